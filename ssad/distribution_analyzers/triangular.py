"""RADON's intervals: Rosin's unimodal threshold on a histogram with Knuth's bin count."""

from __future__ import annotations

import numpy as np

from ssad.bundle.intervals import Floats, beyond
from ssad.confidence_estimators import ConfidenceIntervalsConfiguration
from ssad.distribution_analyzers.analyzer import HistogramPlotAnalyzer, clear_of
from ssad.distribution_analyzers.histogram import score_histogram, spreads

MAJORITY = 0.5
"""Share of the rows that the normal region holds at least: what is abnormal is rare, whatever its share."""


class TriangularThresholding(HistogramPlotAnalyzer):
    """Thresholds at the corners of the score histogram [Najari et al., SIN 2021; Rosin 2001].

    The first analysis puts one threshold at the corner right of the peak: normal below, abnormal above,
    nothing unknown. Later ones look for a corner in each half of the histogram: right of the normal peak,
    and left of the abnormal one.

    Three choices that the paper leaves open. The halves meet in the middle of the histogram's range, which
    goes with the scores; a border kept from the first threshold would keep its mistakes. The normal peak
    must be that of the main population: rows that repeat make a spike, whose corner cuts off most of the
    others, so the corner is looked for again among the scores right of it until at least `MAJORITY` of all
    rows are normal. And a peak of the upper half that lies nearer to its lower end than to its upper one is
    the tail of the normal population: then nothing seen is abnormal.
    """

    def __init__(
        self,
        bin_estimator: str = "knuth",
        abnormal_threshold: float | None = None,
        normal_threshold: float | None = None,
    ) -> None:
        """Choose the bins by `bin_estimator` (`knuth` or a NumPy rule); given thresholds are kept as they are.

        Raises:
            ValueError: both thresholds are given and the normal one exceeds the abnormal one.
        """
        super().__init__()
        if normal_threshold is not None and abnormal_threshold is not None:
            ConfidenceIntervalsConfiguration.from_thresholds(normal_threshold, abnormal_threshold)
        self.bin_estimator = bin_estimator
        self.abnormal_threshold = abnormal_threshold
        self.normal_threshold = normal_threshold

    def _thresholds(self, scores: Floats, current_conf: ConfidenceIntervalsConfiguration | None) -> tuple[float, float]:
        majority = MAJORITY * len(scores)
        if current_conf is None or not np.isfinite(current_conf.thresholds.abnormal):
            # Nothing has been cut yet, or only scores without spread.
            normal = abnormal = self._corner_of_majority(scores, majority)
        else:
            border = float(scores[0] + scores[-1]) / 2
            low, high = np.split(scores, [np.searchsorted(scores, border, side="right")])
            # A half without spread has no corner: the border takes its place.
            normal = self._corner_of_majority(low, majority) if spreads(low) else border
            abnormal = self._abnormal_corner(high, border) if spreads(high) else border
        return self._with_given(clear_of(normal, scores), clear_of(abnormal, scores))

    def _thresholds_without_spread(
        self, scores: Floats, current_conf: ConfidenceIntervalsConfiguration | None
    ) -> tuple[float, float]:
        return self._with_given(*super()._thresholds_without_spread(scores, current_conf))

    def _with_given(self, normal: float, abnormal: float) -> tuple[float, float]:
        """Given thresholds in place of found ones, which give way where the two would cross."""
        normal = normal if self.normal_threshold is None else self.normal_threshold
        abnormal = abnormal if self.abnormal_threshold is None else self.abnormal_threshold
        if self.normal_threshold is None:
            return min(normal, abnormal), abnormal
        return normal, max(normal, abnormal)

    def _corner_of_majority(self, scores: Floats, majority: float) -> float:
        """The first corner with at least so many of the ascending scores below it; their end if there is none."""
        rest = scores
        while spreads(rest):
            corner = corner_right_of_peak(*score_histogram(rest, self.bin_estimator))
            rest = scores[np.searchsorted(scores, corner, side="right") :]
            if len(scores) - len(rest) >= majority:
                return corner
        return float(scores[-1])

    def _abnormal_corner(self, scores: Floats, border: float) -> float:
        """The corner left of the peak of the ascending scores above the border; above them all if it has no peak."""
        counts, mirrored = score_histogram(-scores[::-1], self.bin_estimator)
        peak = -float(mirrored[np.argmax(counts) :][:2].mean())
        if peak - border < scores[-1] - peak:
            return beyond(scores[-1])
        return -corner_right_of_peak(counts, mirrored)


def corner_right_of_peak(counts: Floats, edges: Floats) -> float:
    """Rosin's threshold: the histogram's corner right of its peak [Rosin 2001, section 2].

    The corner is where the histogram is farthest below the line from the top of its highest bin to that of
    its last bin that is not empty.

    Args:
        counts: rows in each bin, shape (m,), not all zero.
        edges: borders of the bins, shape (m + 1,).

    Returns:
        The right border of the corner's bin. Where the peak is the last bin there is no tail to cut, and
        the threshold is the end of the histogram.
    """
    peak = int(np.argmax(counts))
    last = int(np.flatnonzero(counts)[-1])
    if peak == last:
        return float(edges[peak + 1])
    at = np.arange(peak, last + 1)
    # Distance from the line is proportional to the height below it.
    line = counts[peak] + (counts[last] - counts[peak]) * (at - peak) / (last - peak)
    return float(edges[peak + int(np.argmax(line - counts[at])) + 1])
