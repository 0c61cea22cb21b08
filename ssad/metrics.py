"""How well scores rank and decide rows whose labels are known. For evaluation alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from ssad.bundle.intervals import Floats

Labels = npt.NDArray[np.int64]


def has_both_classes(labels: Labels) -> bool:
    """Whether ranking can be measured: there are normal rows and anomalies."""
    return len(np.unique(labels)) > 1


def ranking_metrics(scores: Floats, labels: Labels) -> dict[str, float]:
    """Area under the ROC curve and average precision; 1 labels an anomaly."""
    return {
        "auc": float(sk.roc_auc_score(labels, scores)),
        "ap": float(sk.average_precision_score(labels, scores)),
    }


def decision_metrics(called: npt.NDArray[np.bool_], labels: Labels) -> dict[str, float]:
    """Precision, recall, F1, Matthews' correlation and accuracy of rows `called` anomalies."""
    precision, recall, f1, _ = sk.precision_recall_fscore_support(labels, called, average="binary", zero_division=0)
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "mcc": float(sk.matthews_corrcoef(labels, called)),
        "accuracy": float(sk.accuracy_score(labels, called)),
    }


def threshold_metrics(scores: Floats, labels: Labels, threshold: float) -> dict[str, float]:
    """Decision metrics when scores above `threshold` are called anomalies, and the ranking metrics."""
    ranking = ranking_metrics(scores, labels) if has_both_classes(labels) else {}
    return {"threshold": threshold} | decision_metrics(scores > threshold, labels) | ranking


def anomaly_probability(confidence: Floats) -> Floats:
    """Probability of an anomaly that a confidence claims: (1 - confidence) / 2, shape (n,), in [0, 1]."""
    return (1 - confidence) / 2


CALIBRATION_BINS = 15
"""Of equal mass: the number most papers on calibration use since [Guo et al., ICML 2017]."""


def calibration_bins(
    probability: Floats, outcome: Labels, bins: int = CALIBRATION_BINS
) -> tuple[Floats, Floats, Floats]:
    """Group rows by probability into bins of equal mass; rows of equal probability stay together.

    Args:
        probability: of outcome 1, shape (n,), in [0, 1], n at least 1.
        outcome: 0 or 1, shape (n,).
        bins: at most so many.

    Returns:
        Mean probability, share of outcome 1 and share of the rows of each bin that is not empty, shape (m,) each.
    """
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1]))
    member = np.searchsorted(edges, probability)
    rows = np.bincount(member)
    filled = rows > 0
    mean = np.bincount(member, probability)[filled] / rows[filled]
    share = np.bincount(member, outcome)[filled] / rows[filled]
    return mean, share, rows[filled] / len(probability)


def calibration_error(probability: Floats, outcome: Labels) -> float:
    """Expected calibration error: how far probability and share are apart in a bin, on average over the rows."""
    mean, share, weight = calibration_bins(probability, outcome)
    return float((weight * np.abs(mean - share)).sum())


def risk_at_coverage(confidence: Floats, labels: Labels, coverage: float) -> float:
    """Share of wrong decisions among the surest rows, a decision being the sign of confidence.

    Args:
        confidence: shape (n,), in [-1, 1].
        labels: shape (n,), 1 for an anomaly.
        coverage: share of the rows to decide, in (0, 1]; rows as sure as the last of them are decided too.
    """
    covered, risk = risk_coverage(confidence, labels)
    return float(risk[np.searchsorted(covered, coverage)])


def risk_coverage(confidence: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Share of rows decided, and the error among them, from the most confident row to all [El-Yaniv & Wiener 2010].

    Rows of equal size of confidence are decided together.

    Args:
        confidence: shape (n,), in [-1, 1]; its sign is the decision.
        labels: 1 for an anomaly, shape (n,).
    """
    size = np.abs(confidence)
    order = np.argsort(-size, kind="stable")
    wrong = np.cumsum((confidence < 0)[order] != labels[order].astype(bool))
    last_of_equals = np.flatnonzero(np.diff(size[order], append=-1.0))
    decided = last_of_equals + 1
    return decided / len(size), wrong[last_of_equals] / decided
