"""Thresholds without labels, by PyThresh's own protocol: its methods and our analyzers on the same scores."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.metrics import matthews_corrcoef

from ssad.bundle import ConfidenceCurve
from ssad.bundle.intervals import Floats
from ssad.confidence_estimators import served_curve
from ssad.distribution_analyzers import (
    ConformalThresholding,
    ConsensusThresholding,
    EVTThresholding,
    SupportsDistributionAnalysis,
    TriangularThresholding,
)
from ssad.metrics import Labels

logger = logging.getLogger(__name__)

ANALYZERS = {
    kind.__name__: kind
    for kind in (ConsensusThresholding, TriangularThresholding, EVTThresholding, ConformalThresholding)
}
"""Ours, the default's first; a decision is forced where confidence crosses 0."""

PYTHRESH = (
    *("META", "KARCH", "MIXMOD", "CLF", "FILTER", "HIST", "OCSVM", "EB", "MTT", "IQR", "MAD", "YJ", "DSN", "ZSCORE"),
    *("AUCP", "CHAU", "COMB", "DECOMP", "FGD", "FWFM", "GESD", "MCST", "MOLL", "QMCD", "REGR", "WIND"),
)
"""PyThresh's methods. Left out: GAMGMM, VAE and BOOT, which take from ten seconds to more than a minute a call, and
CPD and CLUST, which need packages of their own."""

DEFAULT_SHARE = "default"
"""PyOD's default: the tenth with the highest scores is called."""

SCORERS = ("IForest", "KNN", "PCA", "ECOD")
"""Whose scores are thresholded, beside our presets'."""

METHODS = (*PYTHRESH, DEFAULT_SHARE)


@dataclass(frozen=True)
class Calls:
    """What one method called anomalies.

    Attributes:
        called: shape (n,), of the rows in the order of their scores.
        seconds: it took.
        failure: what it raised; nothing is called then. Else empty.
    """

    called: npt.NDArray[np.bool_]
    seconds: float
    failure: str


def threshold(method: str, scores: Floats) -> Calls:
    """Call anomalies by the method of that name; PyThresh's raise many things, and call nothing then."""
    start = time.perf_counter()
    called, failure = np.zeros(len(scores), dtype=bool), ""
    try:
        called = _called(method, scores)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
        logger.warning("%s failed: %s", method, failure)
    return Calls(called, time.perf_counter() - start, failure)


def unit_mcc(labels: Labels, called: npt.NDArray[np.bool_]) -> float:
    """Matthews' correlation moved to [0, 1]: 1/2 is chance."""
    return float((matthews_corrcoef(labels, called) + 1) / 2)


def gain(scores: Floats, labels: Labels, called: npt.NDArray[np.bool_]) -> float:
    """Unit MCC of the rows called, less that of calling as many rows as there are anomalies."""
    highest = np.sort(scores)[::-1]
    return unit_mcc(labels, called) - unit_mcc(labels, scores >= highest[max(int(labels.sum()), 1) - 1])


def analyzed(analyzer: SupportsDistributionAnalysis, scores: Floats) -> ConfidenceCurve:
    """Regions and graded confidence that an analyzer gives the scores it was shown, shape (n,)."""
    return served_curve(analyzer.analyze_distribution(torch.from_numpy(scores), None), scores)


def _called(method: str, scores: Floats) -> npt.NDArray[np.bool_]:
    if method in ANALYZERS:
        return scores > analyzed(ANALYZERS[method](), scores).decision
    if method == DEFAULT_SHARE:
        return scores > np.quantile(scores, 0.9)
    kind = getattr(import_module(f"pythresh.thresholds.{method.lower()}"), method)
    return np.asarray(kind().eval(scores), dtype=bool)


def summarize_gains(table: pd.DataFrame) -> pd.DataFrame:
    """A row a method, best first: mean gain over the sets for each scorer and over all of them, and what it took."""
    by_set = table.groupby(["set", "scorer", "method"])[["gain", "called", "seconds", "failed"]].mean()
    by_scorer = by_set["gain"].groupby(["method", "scorer"]).mean().unstack()
    means = by_set.groupby("method").mean()
    return means.join(by_scorer).sort_values("gain", ascending=False)
