"""What every distribution analyzer offers, and what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssad.bundle import Thresholds
from ssad.bundle.intervals import Floats, beyond
from ssad.confidence_estimators import ConfidenceIntervalsConfiguration
from ssad.distribution_analyzers.histogram import counts_between, spreads
from ssad.drawing import REGION_COLORS, plot_edges

Cut = tuple[float, float] | tuple[float, float, float]
"""The normal and the abnormal threshold, and between them the one of a forced decision, if the analyzer has one."""


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
        self._last: RegionHistogram | None = None

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
        scores = _in_order(scores_batch.detach().cpu().double().numpy().ravel())
        if not len(scores) or not np.isfinite(scores).all():
            raise ValueError(
                f"expected at least one score and all finite, got {len(scores)} of which "
                f"{int((~np.isfinite(scores)).sum())} are not finite; check the loss and the features"
            )
        find = self._thresholds if spreads(scores) else self._thresholds_without_spread
        configuration = ConfidenceIntervalsConfiguration.from_thresholds(*find(scores, current_conf))
        self._last = region_histogram(scores, configuration.thresholds)
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
        last = self._last
        with plt.style.context(style):
            figure = Figure(figsize=plot_size, layout="constrained")
            linear, logarithmic = figure.subplots(2, 1, sharex=True)
            for axes in (linear, logarithmic):
                last.draw(axes)
            linear.set_title(f"{type(self).__name__}: {last.rows:,} training scores")
            figure.legend(*linear.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
            logarithmic.set_yscale("log")
            logarithmic.set_xlabel("score (higher is more abnormal)")
        return figure


def _in_order(scores: Floats) -> Floats:
    """The scores, ascending; what was computed in single precision is sorted as such, in half the time."""
    with np.errstate(over="ignore", under="ignore"):
        single = scores.astype(np.float32)
    return np.sort(single).astype(np.float64) if (single == scores).all() else np.sort(scores)


PLOT_QUANTILE = 0.999
"""The figure ends a little beyond this quantile of the scores: a single far score would flatten the rest."""


@dataclass(frozen=True)
class RegionHistogram:
    """What is drawn of a score distribution: a few numbers, however many rows it has.

    Attributes:
        edges: borders of the bins, shape (m + 1,); what lies beyond counts in the outermost bins.
        counts: rows of each region in each bin, shape (3, m).
        thresholds: where the regions meet.
        logarithmic: whether the axis of the scores is.
    """

    edges: Floats
    counts: npt.NDArray[np.int64]
    thresholds: Thresholds
    logarithmic: bool

    @property
    def rows(self) -> int:
        """How many scores there are."""
        return int(self.counts.sum())

    def draw(self, axes: Axes) -> None:
        """Draw the bins, coloured by region, with the thresholds marked; a bin of two regions is stacked."""
        below = np.zeros_like(self.counts[0])
        for (region, color), counts in zip(REGION_COLORS.items(), self.counts, strict=True):
            label = f"{region} ({counts.sum() / self.rows:.1%})"
            axes.stairs(below + counts, self.edges, baseline=below, fill=True, color=color, label=label)
            below = below + counts
        for mark, line in zip((self.thresholds.normal, self.thresholds.abnormal), ("--", "-"), strict=True):
            if np.isfinite(mark):
                axes.axvline(mark, color="black", linestyle=line, linewidth=1)
        axes.set(xlim=(self.edges[0], self.edges[-1]), ylabel="rows")
        if self.logarithmic:
            axes.set_xscale("log")


def draw_regions(axes: Axes, scores: Floats, thresholds: Thresholds) -> None:
    """Draw a score histogram, coloured by region, with the thresholds marked."""
    region_histogram(np.sort(scores), thresholds).draw(axes)


def region_histogram(scores: Floats, thresholds: Thresholds) -> RegionHistogram:
    """The histogram to draw of ascending scores, shape (n,): a search an edge, no pass over the rows."""
    left, median, right = scores[
        [round(share * (len(scores) - 1)) for share in (1 - PLOT_QUANTILE, 0.5, PLOT_QUANTILE)]
    ]
    marks = [end for end in (thresholds.normal, thresholds.abnormal) if np.isfinite(end)]
    left, right = min(left, *marks, median), max(right, *marks, median)
    edges, logarithmic = plot_edges(max(left, scores[0]) if scores[0] > 0 else left, median, right)
    above_normal = np.searchsorted(scores, thresholds.normal, side="right")
    regions = np.split(scores, [above_normal, max(above_normal, np.searchsorted(scores, thresholds.abnormal))])
    counts = [counts_between(of, edges) for of in regions]
    return RegionHistogram(edges, np.asarray(counts), thresholds, logarithmic)


def clear_of(threshold: float, scores: Floats) -> float:
    """The threshold; beyond the score that it is, if it is one: rows that share it would fall on either side of it.

    Args:
        threshold: where to cut.
        scores: ascending, shape (n,).
    """
    at = np.searchsorted(scores, threshold)
    return beyond(threshold) if at < len(scores) and scores[at] == threshold else threshold
