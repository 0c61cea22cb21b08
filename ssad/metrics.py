"""How well scores rank and decide rows whose labels are known. For evaluation alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn import metrics as sk

Floats = npt.NDArray[np.float64]
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


def roc_figure(scores: Floats, labels: Labels) -> Figure:
    """The receiver operating characteristic."""
    false_alarms, detected, _ = sk.roc_curve(labels, scores)
    figure, area = Figure(figsize=(6, 6), layout="constrained"), sk.auc(false_alarms, detected)
    axes = figure.subplots()
    axes.plot(false_alarms, detected, color="#0072B2", label=f"area {area:.3f}")
    axes.plot([0, 1], [0, 1], color="#999999", linestyle="--", label="chance")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC, test rows")
    axes.legend(loc="lower right")
    return figure


def precision_recall_figure(scores: Floats, labels: Labels) -> Figure:
    """Precision against recall."""
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    figure, average = Figure(figsize=(6, 6), layout="constrained"), sk.average_precision_score(labels, scores)
    axes = figure.subplots()
    axes.step(recall, precision, where="post", color="#D55E00", label=f"average precision {average:.3f}")
    axes.axhline(labels.mean(), color="#999999", linestyle="--", label="share of anomalies")
    axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02), title="Precision and recall, test rows")
    axes.legend(loc="upper right")
    return figure
