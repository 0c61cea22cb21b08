"""A detector in scikit-learn's hands."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ssad.bundle import REGIONS, Bundle
from ssad.bundle.intervals import Floats
from ssad.detectors.fit import FitSettings, fit_detector


class AnomalyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn outlier detector: `fit` on unlabelled rows with anomalies among them.

    It scores with the same bundle that MLflow and the service use. DataFrames keep their columns, of any
    kind a table may have; arrays are numeric, and NaN in them is a missing value.

    Attributes:
        bundle_: the trained detector.
        offset_: `score_samples` of a row at the abnormal threshold: below it a row is an outlier.
        n_features_in_: number of columns.
    """

    def __init__(
        self,
        detector: str = "ssad",
        random_state: int | np.random.RandomState | None = None,
        max_epochs: int | None = None,
        every_n_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
    ) -> None:
        """Choose the preset; None leaves a setting to it, and the seed to NumPy's global state."""
        self.detector = detector
        self.random_state = random_state
        self.max_epochs = max_epochs
        self.every_n_epochs = every_n_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate

    def fit(self, X: Any, y: Any = None) -> AnomalyDetector:  # noqa: N803 - scikit-learn's name
        """Train on rows X, shape (n, d); `y` is ignored.

        Raises:
            DatasetError: there is nothing to learn from.
            SettingsError: a setting has a value that cannot be used.
        """
        rows = self._rows(X, reset=True)
        settings = FitSettings(
            self.detector,
            self.max_epochs,
            self.every_n_epochs,
            self.batch_size,
            self.learning_rate,
            seed=int(check_random_state(self.random_state).randint(2**31)),
        )
        fitted = fit_detector(rows, settings)
        self._folder = tempfile.TemporaryDirectory(prefix="ssad-")
        fitted.write_bundle(Path(self._folder.name))
        self.bundle_ = Bundle(Path(self._folder.name))
        self.offset_ = -fitted.curve.thresholds.abnormal
        return self

    def anomaly_score(self, X: Any) -> Floats:  # noqa: N803
        """Score of each row, shape (n,), float64; higher is more abnormal."""
        check_is_fitted(self)
        return self.bundle_.score(self._rows(X, reset=False)).score

    def confidence(self, X: Any) -> Floats:  # noqa: N803
        """Confidence of each row, shape (n,), in [-1, 1]."""
        return self.bundle_.decide(self.anomaly_score(X)).confidence

    def region(self, X: Any) -> npt.NDArray[np.str_]:  # noqa: N803
        """Region of each row, shape (n,): normal, unknown or abnormal."""
        return self.bundle_.decide(self.anomaly_score(X)).region

    def score_samples(self, X: Any) -> Floats:  # noqa: N803
        """The opposite of the score, shape (n,): scikit-learn's sign, lower is more abnormal."""
        return -self.anomaly_score(X)

    def decision_function(self, X: Any) -> Floats:  # noqa: N803
        """`score_samples` less `offset_`, shape (n,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> npt.NDArray[np.int64]:  # noqa: N803
        """-1 for rows in the abnormal region, else 1; shape (n,)."""
        return np.where(self.region(X) == REGIONS[-1], -1, 1)
