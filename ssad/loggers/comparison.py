"""Figures that put recent rows beside the training rows a bundle remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssad.bundle import Thresholds
from ssad.bundle.intervals import Floats
from ssad.loggers.colors import BLUE, GREY, ORANGE

PLOT_BINS = 100
PLOT_QUANTILE = 0.999
"""The figure ends at this quantile of the recent scores: a single far score would flatten the rest."""

SHOWN_COLUMNS = 20

SHOWN_NAME = 40
"""Characters of a column's name: a longer one would leave no room for its bar."""


def score_distributions_figure(
    training: Mapping[str, Any], scores: Floats, thresholds: Sequence[tuple[str, Thresholds]]
) -> Figure:
    """The training scores and recent ones as densities, with the thresholds of one or two sets of intervals.

    Args:
        training: a bundle's histogram: `edges` (k + 1) and `counts` (k).
        scores: recent scores, shape (n,).
        thresholds: what to call each set of intervals, and its thresholds; the first is dotted, a second solid.
    """
    edges, counts = np.asarray(training["edges"]), np.asarray(training["counts"])
    marks = [t for _, ends in thresholds for t in (ends.normal, ends.abnormal) if np.isfinite(t)]
    right = max(float(np.quantile(scores, PLOT_QUANTILE)), *marks, float(edges[-2]))
    left = min(float(scores.min()), float(edges[0]))
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    right = right if right > left else left + 1
    widths = np.diff(edges)
    widths[widths <= 0] = (right - left) / PLOT_BINS  # rows of one score have a bin of no width
    axes.stairs(counts / counts.sum() / widths, edges, color=GREY, fill=True, alpha=0.6, label="training rows")
    bins = np.linspace(left, right, PLOT_BINS + 1)
    density = np.histogram(scores, bins)[0] / len(scores) / np.diff(bins)
    axes.stairs(density, bins, color="black", linewidth=1.5, label=f"recent rows ({len(scores):,})")
    for (name, ends), line in zip(thresholds, (":", "-"), strict=False):
        for mark, color, side in ((ends.normal, BLUE, "normal"), (ends.abnormal, ORANGE, "abnormal")):
            if np.isfinite(mark):
                axes.axvline(mark, color=color, linestyle=line, label=f"{name}: {side} {mark:.4g}")
    axes.set(xlabel="score (higher is more abnormal)", ylabel="density", xlim=(left, right), yscale="log")
    axes.set_title("Scores now and at training")
    axes.legend()
    return figure


def column_drift_figure(column_psi: Mapping[str, float], limit: float) -> Figure:
    """Stability index of the columns that have moved most, with a limit marked."""
    moved = sorted(column_psi.items(), key=lambda item: item[1])[-SHOWN_COLUMNS:]
    figure = Figure(figsize=(8, 1.8 + 0.25 * len(moved)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(moved)), [psi for _, psi in moved], color=BLUE)
    names = [name if len(name) <= SHOWN_NAME else f"{name[: SHOWN_NAME - 1]}…" for name, _ in moved]
    axes.set_yticks(range(len(moved)), names, parse_math=False)  # which two dollar signs would be
    axes.axvline(limit, color=ORANGE, linestyle="--", label=f"{limit:g}: another population")
    axes.set(xlabel="population stability index", title="Columns that have moved most since training")
    figure.legend(loc="outside lower center", frameon=False)
    return figure
