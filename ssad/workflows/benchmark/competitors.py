"""Who is compared: the presets, and detectors of PyOD and scikit-learn with their own defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import Any

import numpy as np

from ssad.bundle import ConfidenceCurve
from ssad.bundle.intervals import Floats
from ssad.detectors import AnomalyDetector
from ssad.errors import SettingsError

PYOD = {
    "MCD": "mcd",
    "IForest": "iforest",
    "ECOD": "ecod",
    "KNN": "knn",
    "GMM": "gmm",
    "HBOS": "hbos",
    "CBLOF": "cblof",
    "PCA": "pca",
    "INNE": "inne",
    "AutoEncoder": "auto_encoder",
    "VAE": "vae",
    "DeepSVDD": "deep_svdd",
}
"""PyOD's detectors, and the module each is in."""

SKLEARN = {"LocalOutlierFactor": "neighbors", "OneClassSVM": "svm"}
"""Scikit-learn's outlier detectors, and the module each is in; PyOD's IForest and MCD are its other two."""

PEERS = {**PYOD, **SKLEARN}


@dataclass(frozen=True)
class Fitted:
    """A detector after training.

    Attributes:
        training_scores: gives the scores of the training rows, shape (n,), higher is more abnormal.
        score: likewise for other rows.
        curve: regions and confidence of scores; None for peers, who have none.
    """

    training_scores: Callable[[], Floats]
    score: Callable[[Floats], Floats]
    curve: ConfidenceCurve | None = None


def fit(name: str, rows: Floats, seed: int) -> Fitted:
    """Train the detector of that name on unlabelled rows, shape (n, d)."""
    if name in PYOD:
        return _pyod(name, rows, seed)
    return _sklearn(name, rows, seed) if name in SKLEARN else _ours(name, rows, seed)


def require(package: str) -> None:
    """Say how to install a package of the extra `benchmark`.

    Raises:
        SettingsError: it is not installed.
    """
    if find_spec(package) is None:
        raise SettingsError(f'peers need {package}; pip install -c constraints.txt -e ".[benchmark]".')


def _ours(name: str, rows: Floats, seed: int) -> Fitted:
    detector = AnomalyDetector(name, random_state=seed).fit(rows)
    return Fitted(lambda: detector.anomaly_score(rows), detector.anomaly_score, detector.curve_)


def _pyod(name: str, rows: Floats, seed: int) -> Fitted:
    kind = getattr(import_module(f"pyod.models.{PYOD[name]}"), name)
    detector = kind(**_taken(kind, random_state=seed, n_features=rows.shape[1], verbose=0))
    detector.fit(rows)
    return Fitted(lambda: _floats(detector.decision_scores_), lambda x: _floats(detector.decision_function(x)))


def _sklearn(name: str, rows: Floats, seed: int) -> Fitted:
    kind = getattr(import_module(f"sklearn.{SKLEARN[name]}"), name)
    detector = kind(**_taken(kind, random_state=seed, novelty=True)).fit(rows)
    return Fitted(lambda: _floats(-detector.score_samples(rows)), lambda x: _floats(-detector.score_samples(x)))


def _taken(kind: Any, **offered: Any) -> dict[str, Any]:
    """Of what is offered, what a constructor takes."""
    return {name: value for name, value in offered.items() if name in signature(kind).parameters}


def _floats(scores: Any) -> Floats:
    """Scores as finite float64: infinity becomes the highest finite score, NaN and all else without one 0."""
    values = np.asarray(scores, dtype=np.float64)
    finite = values[np.isfinite(values)]
    return np.nan_to_num(values, posinf=finite.max() if len(finite) else 0.0)
