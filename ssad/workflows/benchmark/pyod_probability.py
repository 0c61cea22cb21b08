"""PyOD's probabilities for scores that are given: its own methods on a detector that only passes them on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pyod.models.base import BaseDetector

from ssad.bundle.intervals import Floats


class GivenScores(BaseDetector):  # type: ignore[misc]  # PyOD has no types
    """A detector of PyOD whose rows are scores, shape (n, 1), at PyOD's default contamination."""

    def __init__(self) -> None:
        super().__init__()

    def fit(self, X: Floats, y: Any = None) -> GivenScores:  # noqa: N803 - PyOD's name
        """Take the training scores as they are."""
        self._set_n_classes(y)
        self.decision_scores_ = X[:, 0]
        self._process_decision_scores()
        return self

    def decision_function(self, X: Floats) -> Floats:  # noqa: N803 - PyOD's name
        """The scores, shape (n,)."""
        return X[:, 0]


def pyod_probabilities(train: Floats, test: Floats) -> dict[str, Floats]:
    """Probability of an anomaly by `predict_proba`, linear and unify [Kriegel et al., SDM 2011]; shape (m,)."""
    detector = GivenScores().fit(train[:, None])
    return {way: detector.predict_proba(test[:, None], method=way)[:, 1] for way in ("linear", "unify")}


def exceed(train: Floats, test: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Confidence in each decision by `predict_confidence` [Perini et al., ECML 2020], and the decisions; shape (m,)."""
    called, confidence = GivenScores().fit(train[:, None]).predict(test[:, None], return_confidence=True)
    return confidence, called.astype(bool)
