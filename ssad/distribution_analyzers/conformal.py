"""An abnormal threshold with a promise: split-conformal p-values of rows that training has not seen."""

from __future__ import annotations

import math

from ssad.bundle.intervals import Floats, beyond
from ssad.confidence_estimators import ConfidenceIntervalsConfiguration
from ssad.distribution_analyzers.analyzer import HistogramPlotAnalyzer

ALPHA = 0.05
"""Fisher's level, for want of the user's own."""

ROUNDING = 1 + 1e-12
"""A hair more than 1, so that products such as 0.29 * 100 are not rounded below their whole number."""

LEAST_ALPHA = 1e-18
"""No table has the rows for it."""


class ConformalThresholding(HistogramPlotAnalyzer):
    """At most a share `alpha` of normal rows is called abnormal [Bates et al., Annals of Statistics 2023, eq. 3].

    A row's p-value is (1 + held-back rows that score at least as high) / (n + 1), and it is abnormal where
    that is at most `alpha`. Where the held-back rows and a new normal one are exchangeable, the new one is
    called with probability at most `alpha`, whatever the detector and the distribution: on average over
    held-back parts, that is; for one part the share varies about it like a Beta variable.

    Anomalies among the held-back rows raise the threshold: the promise holds all the more, and power is
    lost [Bashari et al. 2025]. With a share of them near `alpha` or above, hardly anything is called.

    The scores to analyse are those of the held-back rows. Of the intervals in force the normal threshold
    is kept, held to the new abnormal one; where there are none, nothing is unknown.
    """

    def __init__(self, alpha: float = ALPHA) -> None:
        """Promise that at most this share of normal rows is called abnormal, in (0, 1).

        Raises:
            ValueError: a share out of its range.
        """
        super().__init__()
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), got {alpha}")
        self.alpha = alpha

    def _thresholds(self, scores: Floats, current_conf: ConfidenceIntervalsConfiguration | None) -> tuple[float, float]:
        abnormal = beyond(conformal_threshold(scores, self.alpha))
        if current_conf is None or current_conf.thresholds.normal >= abnormal:
            return abnormal, abnormal
        return current_conf.thresholds.normal, abnormal

    def _thresholds_without_spread(
        self, scores: Floats, current_conf: ConfidenceIntervalsConfiguration | None
    ) -> tuple[float, float]:
        normal, abnormal = super()._thresholds_without_spread(scores, current_conf)
        return normal if current_conf is None else current_conf.thresholds.normal, abnormal


def conformal_threshold(scores: Floats, alpha: float) -> float:
    """The highest score whose conformal p-value exceeds `alpha`; infinity where there are too few scores to tell.

    Args:
        scores: of held-back rows, shape (n,), ascending.
        alpha: in (0, 1).
    """
    called = _callable_ranks(len(scores), alpha)
    return float(scores[-called]) if called else math.inf


def rows_to_promise(alpha: float) -> int:
    """The fewest held-back rows that allow p-values as small as `alpha`: the smallest is 1 / (rows + 1)."""
    return math.ceil(1 / max(alpha * ROUNDING, LEAST_ALPHA)) - 1


def _callable_ranks(rows: int, alpha: float) -> int:
    """How many of the rows + 1 ranks that a new score may have make it abnormal."""
    return math.floor(alpha * (rows + 1) * ROUNDING)
