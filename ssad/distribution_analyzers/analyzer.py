"""What every distribution analyzer offers, and what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssad.bundle.bundle import GOLDEN_TOLERANCE
from ssad.bundle.intervals import Floats
from ssad.confidence_estimators import ConfidenceIntervalsConfiguration
from ssad.distribution_analyzers.histogram import spreads

Cut = tuple[float, float] | tuple[float, float, float]
"""The normal and the abnormal threshold, and between them the one of a forced decision, if the analyzer has one."""

# Okabe & Ito's colours, told apart by colour-blind readers too.
REGION_COLORS: dict[str, str] = {"normal": "#0072B2", "unknown": "#999999", "abnormal": "#D55E00"}


@runtime_checkable
class SupportsDistributionAnalysis(Protocol):
    """Anything that cuts a score distribution into three intervals, and can show how."""

    def analyze_distribution(
        self, scores_batch: torch.Tensor, current_conf: ConfidenceIntervalsConfiguration | None
    ) -> ConfidenceIntervalsConfiguration:
        """Intervals for the scores of all training rows, shape (n,); `current_conf` are those in force."""
        ...

    def plot_analysis(self, style: str = "default", plot_size: tuple[float, float] = (16, 22)) -> Figure:
        """A figure of the last analysis, `plot_size` in inches."""
        ...


class HistogramPlotAnalyzer(ABC, SupportsDistributionAnalysis):
    """An analyzer that finds two thresholds; its figure shows them on both scales."""

    def __init__(self) -> None:
        self._last: tuple[Floats, ConfidenceIntervalsConfiguration] | None = None

    @abstractmethod
    def _thresholds(self, scores: Floats, current_conf: ConfidenceIntervalsConfiguration | None) -> Cut:
        """Where to cut scores that are finite, ascending and not all equal, shape (n,)."""

    def _thresholds_without_spread(
        self, scores: Floats, current_conf: ConfidenceIntervalsConfiguration | None
    ) -> tuple[float, float]:
        """Likewise where all scores are equal to rounding: they are normal, and nothing abnormal was seen."""
        return beyond(scores[-1]), np.inf

    def analyze_distribution(
        self, scores_batch: torch.Tensor, current_conf: ConfidenceIntervalsConfiguration | None
    ) -> ConfidenceIntervalsConfiguration:
        """Cut the score distribution into three intervals.

        Scores that are all equal are normal, and what is higher is unknown: nothing abnormal was seen.

        Args:
            scores_batch: scores of all training rows, shape (n,), finite, n at least 1.
            current_conf: the intervals in force, or None at the first analysis.

        Raises:
            ValueError: no scores, or some are not finite.
        """
        # Sorted, so that not even rounding depends on the order of the rows.
        scores = _in_order(scores_batch.detach().cpu().numpy().astype(np.float64, copy=False).ravel())
        if not len(scores) or not np.isfinite(scores).all():
            raise ValueError(
                f"expected at least one score and all finite, got {len(scores)} of which "
                f"{int((~np.isfinite(scores)).sum())} are not finite; check the loss and the features"
            )
        find = self._thresholds if spreads(scores) else self._thresholds_without_spread
        configuration = ConfidenceIntervalsConfiguration.from_thresholds(*find(scores, current_conf))
        self._last = scores, configuration
        return configuration

    def plot_analysis(self, style: str = "default", plot_size: tuple[float, float] = (16, 22)) -> Figure:
        """The last analysed histogram with its thresholds, counts linear above and logarithmic below.

        Args:
            style: a Matplotlib style.
            plot_size: inches, width and height.

        Raises:
            RuntimeError: nothing has been analysed yet.
        """
        if self._last is None:
            raise RuntimeError("nothing to plot yet; call analyze_distribution first")
        scores, configuration = self._last
        with plt.style.context(style):
            figure = Figure(figsize=plot_size, layout="constrained")
            linear, logarithmic = figure.subplots(2, 1, sharex=True)
            for axes in (linear, logarithmic):
                draw_regions(axes, scores, configuration)
            linear.set_title(f"{type(self).__name__}: {len(scores):,} training scores")
            linear.legend(loc="upper right")
            logarithmic.set_yscale("log")
            logarithmic.set_xlabel("score (higher is more abnormal)")
        return figure


def _in_order(scores: Floats) -> Floats:
    """The scores, ascending; what was computed in single precision is sorted as such, in half the time."""
    with np.errstate(over="ignore", under="ignore"):
        single = scores.astype(np.float32)
    return np.sort(single).astype(np.float64) if (single == scores).all() else np.sort(scores)


PLOT_BINS = 100
PLOT_QUANTILE = 0.999
"""The figure ends a little beyond this quantile of the scores: a single far score would flatten the rest."""

HEAVY = 10.0
"""Positive scores that reach so many times their median are drawn on a logarithmic axis: a bulk needs width too."""


def draw_regions(axes: Axes, scores: Floats, configuration: ConfidenceIntervalsConfiguration) -> None:
    """Draw a score histogram, coloured by region, with the thresholds marked."""
    thresholds = configuration.thresholds
    marks = [t for t in (thresholds.normal, thresholds.abnormal) if np.isfinite(t)]
    edges = _plot_edges(scores, marks)
    shown = np.clip(scores, edges[0], edges[-1])
    codes = thresholds.codes(scores)
    for code, (region, color) in enumerate(REGION_COLORS.items()):
        members = shown[codes == code]
        counts, _ = np.histogram(members, edges)
        axes.stairs(counts, edges, fill=True, color=color, label=f"{region} ({len(members) / len(scores):.1%})")
    for mark, line in zip((thresholds.normal, thresholds.abnormal), ("--", "-"), strict=True):
        if np.isfinite(mark):
            axes.axvline(mark, color="black", linestyle=line, linewidth=1)
    axes.set(xlim=(edges[0], edges[-1]), ylabel="rows")
    if _heavy(scores, edges[-1]):
        axes.set_xscale("log")


def _plot_edges(scores: Floats, marks: list[float]) -> Floats:
    """Borders of the bins to draw: equal on the axis that suits the scores, the thresholds within them."""
    left, median, right = np.quantile(scores, [1 - PLOT_QUANTILE, 0.5, PLOT_QUANTILE])
    left, right = min(left, *marks, median), max(right, *marks, median)
    if _heavy(scores, right):
        return np.geomspace(max(left, scores.min()) / 1.1, right * 1.1, PLOT_BINS + 1)
    margin = 0.05 * (right - left) or max(abs(right), 1.0) * 1e-6
    return np.linspace(left - margin, right + margin, PLOT_BINS + 1)


def _heavy(scores: Floats, right: float) -> bool:
    return bool(scores.min() > 0 and right > HEAVY * np.median(scores))


def beyond(score: float) -> float:
    """The least threshold that a row of this score does not reach on any runtime, which differ by rounding."""
    return float(max(np.nextafter(score, np.inf), score + GOLDEN_TOLERANCE * abs(score)))
