"""The tables as pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ssad.drawing import BLUE, ORANGE
from ssad.loggers.curves import reliability_curves_figure
from ssad.metrics import calibration_bins
from ssad.workflows.benchmark.decisions import probabilities
from ssad.workflows.benchmark.measurements import Measured
from ssad.workflows.benchmark.ranking import METRICS

NAMES = {"auc": "AUROC", "ap": "average precision"}


def ranking_bars(summary: pd.DataFrame, ours: list[str]) -> Figure:
    """Mean AUROC and average precision of each detector, ours in a colour of their own."""
    figure = Figure(figsize=(9, 1 + 0.3 * len(summary)), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        ordered = summary[metric].sort_values()
        axes.barh(ordered.index, ordered, color=_colors(ordered.index, ours))
        axes.set_xlabel(f"mean {NAMES[metric]}")
    return figure


def gain_bars(summary: pd.DataFrame, ours: list[str]) -> Figure:
    """Mean gain of each method of thresholding."""
    figure = Figure(figsize=(7, 1 + 0.25 * len(summary)), layout="constrained")
    axes, ordered = figure.subplots(), summary["gain"].sort_values()
    axes.barh(ordered.index, ordered, color=_colors(ordered.index, ours))
    axes.set_xlabel("unit MCC less that at the true contamination")
    return figure


def reliability(measured: Measured, detector: str, with_peers: bool) -> Figure:
    """Reliability of one detector's confidence, and of PyOD's probabilities for its scores; all test rows together."""
    chosen = [one for (_, _, name), one in measured.items() if name == detector]
    labels = np.concatenate([one.labels for one in chosen])
    ways = [probabilities(one, with_peers) for one in chosen]
    return reliability_curves_figure(
        {way: calibration_bins(np.concatenate([each[way] for each in ways]), labels) for way in ways[0]}
    )


def risk_coverage(risks: pd.DataFrame) -> Figure:
    """Risk at each coverage, mean over the sets, of each detector."""
    figure, coverages = Figure(figsize=(6, 6), layout="constrained"), np.asarray(risks.columns, dtype=np.float64)
    axes = figure.subplots()
    for name, row in risks.iterrows():
        axes.plot(coverages, row, marker=".", label=name)
    axes.set(xlabel="share of the rows decided, surest first", ylabel="share decided wrongly", xlim=(0, 1.02))
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    return figure


def _colors(names: pd.Index, ours: list[str]) -> list[str]:
    return [ORANGE if name in ours else BLUE for name in names]
