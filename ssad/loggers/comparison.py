"""Figures that put recent rows beside the training rows a bundle remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssad.bundle import Thresholds
from ssad.bundle.intervals import Floats, same_scores
from ssad.drawing import BLUE, GREY, ORANGE, plot_edges

PLOT_QUANTILE = 0.999
"""The figure ends at this quantile of the recent scores: a single far score would flatten the rest."""

ONE_SCORE = 1e-3
"""What is drawn on either side of a score that all rows have, as a share of it."""

SHOWN_COLUMNS = 20

SHOWN_NAME = 40
"""Characters of a column's name: a longer one would leave no room for its bar."""


def score_distributions_figure(
    training: Mapping[str, Any], scores: Floats, thresholds: Sequence[tuple[str, Thresholds]]
) -> Figure:
    """The share of the training scores and of recent ones in the same bins, with one or two sets of intervals.

    What a bundle's histogram counts in a wide bin is spread evenly over it, as it is drawn. Where a bulk would be
    squeezed into a corner, bins and axis are logarithmic.

    Args:
        training: a bundle's histogram: `edges` (k + 1) and `counts` (k).
        scores: recent scores, shape (n,).
        thresholds: what to call each set of intervals, and its thresholds; the first is dotted, a second solid.
    """
    edges, counts = np.asarray(training["edges"]), np.asarray(training["counts"])
    marks = [t for _, ends in thresholds for t in (ends.normal, ends.abnormal) if np.isfinite(t)]
    right = max(float(np.quantile(scores, PLOT_QUANTILE)), *marks, float(edges[-2]))
    left = min(float(scores.min()), float(edges[0]))
    if same_scores(np.asarray(left), np.asarray(right)):  # the bundle's edges lie a rounding above its scores
        left, right = left - ONE_SCORE * abs(left), right + ONE_SCORE * abs(right)
    bins, logarithmic = plot_edges(left, float(edges[len(edges) // 2]), right)
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    along = np.log if logarithmic else np.asarray
    below = np.interp(along(bins), along(edges), np.concatenate([[0], np.cumsum(counts)]) / counts.sum())
    axes.stairs(np.diff(below), bins, color=GREY, fill=True, alpha=0.6, label="training rows")
    share = np.histogram(scores, bins)[0] / len(scores)
    axes.stairs(share, bins, color="black", linewidth=1.5, label=f"recent rows ({len(scores):,})")
    for (name, ends), line in zip(thresholds, (":", "-"), strict=False):
        for mark, color, side in ((ends.normal, BLUE, "normal"), (ends.abnormal, ORANGE, "abnormal")):
            if np.isfinite(mark):
                axes.axvline(mark, color=color, linestyle=line, label=f"{name}: {side} {mark:.4g}")
    axes.set(xlabel="score (higher is more abnormal)", ylabel="share of rows", xlim=(bins[0], bins[-1]), yscale="log")
    if logarithmic:
        axes.set_xscale("log")
    axes.set_title("Scores now and at training")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
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
