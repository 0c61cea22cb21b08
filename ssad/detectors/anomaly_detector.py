"""A detector in scikit-learn's hands."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from mlflow.utils.autologging_utils import disable_autologging
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ssad.bundle import Bundle
from ssad.bundle.bundle import FILES, MANIFEST, copy_bundle
from ssad.bundle.intervals import Floats
from ssad.detectors.fit import FittedDetector, fit_detector
from ssad.detectors.plan import FitSettings
from ssad.errors import BundleError, DatasetError, SettingsError, listed, reason_of

logger = logging.getLogger(__name__)

MIN_FIT_ROWS = 2
"""One row has no distribution."""

LIGHTNING_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG")
"""What Lightning sets in the environment for a seed and for `deterministic`."""

_TORCH = threading.RLock()
"""Held while torch works: its random state is the process's, and a network scores in one precision at a time."""


class AnomalyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A scikit-learn outlier detector: `fit` on unlabelled rows with anomalies among them.

    DataFrames keep their columns, of any kind a table may have; arrays are numeric. Where one was fitted and
    the other is scored, columns go by their position, and scikit-learn warns. A NaN, infinite or masked cell is a
    missing value. Fitting leaves the global random states, and torch's and Lightning's settings of the
    process, as they are. The bundle that MLflow and the
    service use, which scores the same to 1e-5, is written when it is first asked for: exporting takes longer
    than a small table trains.

    Attributes:
        curve_: thresholds and confidence.
        offset_: `score_samples` where confidence crosses 0: below it a row is an outlier.
        n_features_in_: number of columns.
    """

    # One of the two scores: what has just been trained, or what has been loaded.
    _fitted: FittedDetector | None
    _bundle: Bundle | None

    def __init__(
        self,
        detector: str = "ssad",
        random_state: int | np.random.RandomState | None = None,
        max_epochs: int | None = None,
        every_n_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        alpha: float | None = None,
    ) -> None:
        """Choose the preset; None leaves a setting to it, and the seed to NumPy's global state.

        With `alpha`, at most that share of normal rows is in region `abnormal`, see `ConformalThresholding`.
        """
        self.detector = detector
        self.random_state = random_state
        self.max_epochs = max_epochs
        self.every_n_epochs = every_n_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.alpha = alpha

    def fit(self, X: Any, y: Any = None) -> AnomalyDetector:  # noqa: N803 - scikit-learn's name
        """Train on rows X, shape (n, d); `y` is ignored.

        MLflow's autologging logs nothing of it: what it knows are parts, a forest among them that only starts training.

        Raises:
            DatasetError: there is nothing to learn from.
            SettingsError: a setting has a value that cannot be used.
            ValueError: X is not a table of numbers, or has too few rows or columns.
        """
        if self.__sklearn_is_fitted__():
            del self.curve_  # if this fails nothing is fitted, least of all to other columns
        rows = self._rows(X, reset=True)
        settings = FitSettings(
            self.detector,
            self.max_epochs,
            self.every_n_epochs,
            self.batch_size,
            self.learning_rate,
            seed=int(check_random_state(self.random_state).randint(2**31)),
            alpha=self.alpha,
        )
        with _TORCH, _process_as_it_was(), disable_autologging():
            fitted = fit_detector(rows, settings)
        if fitted.schema.dropped:
            logger.warning("columns were left out: %s", fitted.schema.left_out)
        self._adopt(fitted)
        self._columns, self._by_name = list(rows.columns), isinstance(X, pd.DataFrame)
        return self

    @property
    def offset_(self) -> float:
        """`score_samples` where confidence crosses 0."""
        check_is_fitted(self)
        return -self.curve_.decision

    @property
    def bundle_(self) -> Bundle:
        """The trained detector as a bundle, in a folder that lives as long as this object."""
        check_is_fitted(self)
        with _TORCH:
            if self._bundle is None:
                assert self._fitted is not None  # one of the two is there
                folder = self._new_folder()
                with _process_as_it_was():  # or the graph would have the types of a cast
                    self._fitted.write_bundle(folder)
                self._bundle = Bundle(folder)
            return self._bundle

    def anomaly_score(self, X: Any) -> Floats:  # noqa: N803 - scikit-learn's name
        """Score of each row, shape (n,), float64; higher is more abnormal."""
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        if self._fitted is None:
            return self.bundle_.score(rows).score
        with _TORCH, _new_tensors_on_cpu():
            # In single precision a row's last digits vary with the rows beside it, which scikit-learn's checks forbid.
            return self._fitted.score(rows, torch.float64)

    def confidence(self, X: Any) -> Floats:  # noqa: N803 - scikit-learn's name
        """Confidence of each row, shape (n,), in [-1, 1]."""
        scores = self.anomaly_score(X)  # before the curve: it says what to do where nothing is fitted
        return self.curve_(scores)

    def region(self, X: Any) -> npt.NDArray[np.str_]:  # noqa: N803 - scikit-learn's name
        """Region of each row, shape (n,): normal, unknown or abnormal."""
        scores = self.anomaly_score(X)
        return self.curve_.thresholds.regions(scores)

    def score_samples(self, X: Any) -> Floats:  # noqa: N803 - scikit-learn's name
        """The opposite of the score, shape (n,): scikit-learn's sign, lower is more abnormal."""
        return -self.anomaly_score(X)

    def decision_function(self, X: Any) -> Floats:  # noqa: N803 - scikit-learn's name
        """`score_samples` less `offset_`, shape (n,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> npt.NDArray[np.int64]:  # noqa: N803 - scikit-learn's name
        """-1 for rows more probably abnormal than normal, else 1; shape (n,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def save(self, path: str | Path) -> None:
        """Write the bundle into a folder, which `Bundle`, `load` and the service read.

        Raises:
            SettingsError: the path is that of a file, or cannot be written.
        """
        if Path(path).is_file():
            raise SettingsError(f"{path} is a file; name a folder to save the detector in.")
        if self.bundle_.path.resolve() != Path(path).resolve():
            try:
                copy_bundle(self.bundle_.path, Path(path))
            except OSError as error:
                raise SettingsError(
                    f"the detector cannot be saved in {path} ({reason_of(error)}); name a folder that can be written."
                ) from error

    @classmethod
    def load(cls, path: str | Path) -> AnomalyDetector:
        """The detector whose bundle is in a folder; its settings are those it was trained with.

        `random_state` is the seed that was drawn: fitting again is as good, but not the same bit for bit.

        Raises:
            BundleError: the folder holds no complete bundle.
        """
        plan: Any = Bundle(path).manifest.get("plan")
        try:
            detector = cls(random_state=plan["seed"], **{name: plan[name] for name in plan if name != "seed"})
        except (KeyError, TypeError) as error:
            raise BundleError(
                f"{MANIFEST} of the bundle {path} does not tell how it was trained; fetch it again."
            ) from error
        # A copy: the folder may go, or hold another detector tomorrow.
        bundle = Bundle(copy_bundle(Path(path), detector._new_folder()))
        detector._adopt(bundle)
        kept, dropped = bundle.schema.names, bundle.schema.dropped
        detector.n_features_in_ = len(kept) + len(dropped)
        of_an_array = _array_names(detector.n_features_in_)
        detector._by_name = {*kept, *dropped} != set(of_an_array)
        # A bundle does not tell where among named columns those lay that were left out.
        detector._columns = kept if not dropped else [] if detector._by_name else of_an_array
        if detector._by_name and not dropped:
            detector.feature_names_in_ = np.asarray(kept, dtype=object)
        return detector

    def _adopt(self, trained: FittedDetector | Bundle) -> None:
        self._fitted = trained if isinstance(trained, FittedDetector) else None
        self._bundle = trained if isinstance(trained, Bundle) else None
        self.curve_ = trained.curve

    def _rows(self, X: Any, reset: bool) -> pd.DataFrame:  # noqa: N803 - scikit-learn's name
        """Rows as a table: a DataFrame's own columns, or those of an array by position."""
        min_rows = MIN_FIT_ROWS if reset else 1
        if not isinstance(X, pd.DataFrame) and hasattr(X, "to_pandas"):
            X = X.to_pandas()  # noqa: N806 - a table of Arrow's or Polars': an array of it would have no names or dates
        if isinstance(X, pd.DataFrame):
            _check_frame(X, min_rows)
            if reset or self._fitted is not None:  # a loaded bundle checks names itself, by its schema
                validate_data(self, X, reset=reset, skip_check_array=True)
            return X.reset_index(drop=True).set_axis(self._names(X, reset), axis=1)
        if isinstance(X, np.ma.MaskedArray):
            X = np.ma.filled(X.astype(np.float64), np.nan)  # noqa: N806 - scikit-learn's name
        _check_no_text(X)
        array = validate_data(
            self, X, reset=reset, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=min_rows
        )
        names = _array_names(array.shape[1]) if reset else self._columns
        if not names:
            raise DatasetError(
                "the detector was trained on named columns and left some out, and an array does not tell which is "
                "which; pass a DataFrame."
            )
        return pd.DataFrame(array, columns=names)

    def _names(self, frame: pd.DataFrame, reset: bool) -> list[str]:
        """Names of a frame's columns; those of the fitted array, where none of them was ever named."""
        names = list(frame.columns.map(str))
        if reset or self._by_name or set(names) >= set(self._columns) or len(names) != len(self._columns):
            return names
        return self._columns

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "curve_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """The settings and what was trained, or else the files of the bundle that was loaded."""
        state = dict(super().__getstate__())
        bundle = state.pop("_bundle", None)
        if state.get("_fitted") is None and bundle is not None:
            state["_bundle"] = {name: (bundle.path / name).read_bytes() for name in (MANIFEST, *FILES)}
        with _TORCH:  # a network that scores meanwhile is in another precision
            return copy.deepcopy(state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("_bundle", None)
        super().__setstate__(state)
        self._bundle = None
        if files is not None:
            folder = self._new_folder()
            for name, content in files.items():
                (folder / name).write_bytes(content)
            self._bundle = Bundle(folder)

    def _new_folder(self) -> Path:
        """A folder for the bundle that lives as long as the detector."""
        folder = tempfile.mkdtemp(prefix="ssad-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


def _array_names(columns: int) -> list[str]:
    """What the columns of an array are called."""
    return [f"x{at}" for at in range(columns)]


@contextmanager
def _process_as_it_was() -> Iterator[None]:
    """As in a fresh process, and take back what training changes: random states, Lightning's seed, torch's settings."""
    environment = {name: os.environ.get(name) for name in LIGHTNING_VARIABLES}
    tries, precision = torch.backends.cudnn.benchmark, torch.get_default_dtype()
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # Not by get_float32_matmul_precision, which refuses where these were set.
    backends: Any = torch.backends
    products = {kind: kind.fp32_precision for kind in (backends.cuda.matmul, backends.mkldnn.matmul)}
    autocast = {kind: torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")}
    torch.set_default_dtype(torch.float32)
    for kind in products:
        kind.fp32_precision = "ieee"
    for device in autocast:
        torch.set_autocast_enabled(device, False)
    failure = None
    try:
        with isolate_rng(), torch.inference_mode(False), torch.enable_grad(), _new_tensors_on_cpu():
            try:
                yield
            except BaseException as error:  # after which `isolate_rng` takes nothing back
                failure = error
    finally:
        torch.set_default_dtype(precision)
        for kind, value in products.items():
            kind.fp32_precision = value
        for device, enabled in autocast.items():
            torch.set_autocast_enabled(device, enabled)
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        torch.backends.cudnn.benchmark = tries
        for name, text in environment.items():
            os.environ.pop(name, None)
            if text is not None:
                os.environ[name] = text
    if failure is not None:
        raise failure


def _new_tensors_on_cpu() -> AbstractContextManager[Any]:
    """As in a fresh process; without a context of torch's, through which every call would go, where they are anyhow."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def _check_frame(frame: pd.DataFrame, min_rows: int) -> None:
    """What `validate_data` checks of an array, for columns of any kind."""
    repeated = frame.columns[frame.columns.map(str).duplicated()]
    if len(repeated):
        raise DatasetError(f"{len(repeated)} column names are not unique ({listed(repeated)}); rename them.")
    if len(frame) < min_rows or not frame.shape[1]:
        raise DatasetError(
            f"the table has {len(frame)} row(s) and {frame.shape[1]} column(s), expected at least {min_rows} and 1; "
            "bring more data."
        )


def _check_no_text(array: Any) -> None:
    """Refuse an array of words, or of moments: by position alone, nothing says which columns are of which kind."""
    values = np.asarray(array) if isinstance(array, np.ndarray | list | tuple) else np.empty(0)
    if values.dtype.kind in "US" or (values.dtype == object and any(isinstance(value, str) for value in values.flat)):
        raise DatasetError(
            "the array holds text, expected numbers; pass a DataFrame, whose text columns are categories."
        )
    if values.dtype.kind in "Mm":
        raise DatasetError("the array holds moments, expected numbers; pass a DataFrame, whose moments are dates.")
