"""What a test looks like: figures that need no colour vision to read."""

from __future__ import annotations

from matplotlib.figure import Figure
from sklearn import metrics as sk

from ssad.bundle.intervals import Floats
from ssad.drawing import BLUE, GREY, ORANGE
from ssad.metrics import Labels, anomaly_probability, calibration_bins, calibration_error, risk_coverage


def risk_coverage_figure(confidence: Floats, labels: Labels) -> Figure:
    """Error among the rows decided when the least confident are left out first, against the share decided."""
    coverage, risk = risk_coverage(confidence, labels)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    alone = "o" if len(risk) == 1 else ""  # a line of one point is not seen: all rows are equally sure
    axes.plot(coverage, risk, color=BLUE, marker=alone, label="by confidence")
    axes.axhline(risk[-1], color=GREY, linestyle="--", label=f"every row decided: {risk[-1]:.1%}")
    axes.set(xlabel="share of rows decided", ylabel="error among them", xlim=(0, 1), ylim=(0, None))
    axes.set_title("Risk and coverage, test rows")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def reliability_figure(confidence: Floats, labels: Labels) -> Figure:
    """How often rows are anomalies, against the probability (1 - confidence) / 2 that their confidence gives."""
    probability = anomaly_probability(confidence)
    name = f"expected calibration error {calibration_error(probability, labels):.3f}"
    return reliability_curves_figure({name: calibration_bins(probability, labels)})


def reliability_curves_figure(curves: dict[str, tuple[Floats, Floats, Floats]]) -> Figure:
    """Share of anomalies against claimed probability: by name, what `calibration_bins` gives."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as claimed")
    for name, (mean, share, _) in curves.items():
        axes.plot(mean, share, marker="o", label=name)
    axes.set(xlabel="claimed probability of an anomaly", ylabel="share of anomalies", title="Reliability, test rows")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def roc_figure(scores: Floats, labels: Labels) -> Figure:
    """The receiver operating characteristic."""
    false_alarms, detected, _ = sk.roc_curve(labels, scores)
    figure, area = Figure(figsize=(6, 6), layout="constrained"), sk.auc(false_alarms, detected)
    axes = figure.subplots()
    axes.plot(false_alarms, detected, color=BLUE, label=f"area {area:.3f}")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="chance")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC, test rows")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def precision_recall_figure(scores: Floats, labels: Labels) -> Figure:
    """Precision against recall."""
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    figure, average = Figure(figsize=(6, 6), layout="constrained"), sk.average_precision_score(labels, scores)
    axes = figure.subplots()
    axes.step(recall, precision, where="post", color=ORANGE, label=f"average precision {average:.3f}")
    axes.axhline(labels.mean(), color=GREY, linestyle="--", label="share of anomalies")
    axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02), title="Precision and recall, test rows")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
