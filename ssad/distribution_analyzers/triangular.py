"""RADON's intervals: Rosin's unimodal threshold on a histogram with Knuth's bin count."""

from __future__ import annotations

import numpy as np

from ssad.bundle.intervals import Floats
from ssad.confidence_estimators import ConfidenceIntervalsConfiguration
from ssad.distribution_analyzers.analyzer import HistogramPlotAnalyzer
from ssad.distribution_analyzers.histogram import score_histogram, spreads


class TriangularThresholding(HistogramPlotAnalyzer):
    """Thresholds at the corners of the score histogram [Najari et al., SIN 2021; Rosin 2001].

    The first analysis puts one threshold at the corner right of the peak: normal below, abnormal above,
    nothing unknown. Later ones split the scores at the middle of the unknown interval in force and look
    for a corner in each half: right of the normal peak, and left of the abnormal one. The paper leaves
    open where the halves meet; the middle of the unknown interval keeps each half with its own mode.
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
        border = None if current_conf is None else _middle(current_conf)
        if border is None:
            normal = abnormal = self._corner(scores)
        else:
            low, high = scores[scores <= border], scores[scores > border]
            # An empty half, or one without spread, has no corner: the border takes its place.
            normal = self._corner(low) if spreads(low) else border
            abnormal = -self._corner(-high) if spreads(high) else border
        return self._with_given(normal, abnormal)

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

    def _corner(self, scores: Floats) -> float:
        counts, edges = score_histogram(scores, self.bin_estimator)
        return corner_right_of_peak(counts, edges)


def corner_right_of_peak(counts: Floats, edges: Floats) -> float:
    """Rosin's threshold: the histogram's corner right of its peak [Rosin 2001, section 2].

    The corner is where the histogram is farthest below the line from the top of its highest bin to the
    far end of its last bin that is not empty.

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


def _middle(configuration: ConfidenceIntervalsConfiguration) -> float | None:
    """Middle of the unknown interval; None where it has none because it is unbounded."""
    low, high = configuration.thresholds.normal, configuration.thresholds.abnormal
    return (low + high) / 2 if np.isfinite([low, high]).all() else None
