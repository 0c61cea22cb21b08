"""GRAnD's intervals: peaks over a threshold."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import FitError, genpareto

from ssad.bundle.intervals import Floats, beyond
from ssad.confidence_estimators import ConfidenceIntervalsConfiguration
from ssad.distribution_analyzers.analyzer import HistogramPlotAnalyzer, clear_of

MIN_EXCESSES = 10
"""Fewer excesses than this do not fix the two parameters of a generalized Pareto distribution."""

EXPONENTIAL_SHAPE = 1e-6
"""Below this shape the distribution is exponential to rounding, and the general quantile divides by zero."""


class EVTThresholding(HistogramPlotAnalyzer):
    """Thresholds by extreme value theory [Najari et al., AINA 2022, section 3.3].

    Normal up to u = Q3 + alpha * IQR; abnormal from t_q, the score that a row exceeds with probability
    `q` when the excesses over u follow a generalized Pareto distribution.
    """

    def __init__(self, alpha: float = 1.5, q: float = 0.001) -> None:
        """Set the fence `alpha`, at least 0 (Tukey's is 1.5), and the risk `q`, in (0, 1).

        Raises:
            ValueError: a value out of its range.
        """
        super().__init__()
        if not (alpha >= 0 and 0 < q < 1):
            raise ValueError(f"alpha must be at least 0 and q in (0, 1), got alpha={alpha} and q={q}")
        self.alpha = alpha
        self.q = q

    def _thresholds(self, scores: Floats, current_conf: ConfidenceIntervalsConfiguration | None) -> tuple[float, float]:
        first, third = np.quantile(scores, [0.25, 0.75])
        u = clear_of(float(third + self.alpha * (third - first)), scores)
        excesses = scores[scores > u] - u
        if len(excesses) < MIN_EXCESSES or excesses.min() == excesses.max():
            # No tail to fit: nothing seen is abnormal, and only what exceeds all of it would be.
            return u, max(u, beyond(scores.max()))
        shape, scale = fit_pareto(excesses)
        return u, max(u, u + pareto_quantile(shape, scale, self.q * len(scores) / len(excesses)))


def fit_pareto(excesses: Floats) -> tuple[float, float]:
    """Shape and scale of a generalized Pareto distribution by maximum likelihood, the location being 0.

    The excesses are divided by their mean first, which the fit's tolerances expect; where no maximum is
    found, the moments give the answer [Hosking & Wallis 1987, eq. 4]. With shapes below -1 the likelihood is
    unbounded, and the search stops where the tail ends at the highest excess; that is kept, as on tails with
    such an end the moments' quantiles are several times as far off.
    """
    mean, variance = float(excesses.mean()), float(excesses.var())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            shape, _, scale = genpareto.fit(excesses / mean, floc=0)
    except FitError:
        ratio = mean**2 / variance
        return (1 - ratio) / 2, mean * (1 + ratio) / 2
    return float(shape), float(scale) * mean


def pareto_quantile(shape: float, scale: float, exceedance: float) -> float:
    """The excess that is exceeded with this probability [Siffer et al., KDD 2017, eq. 1].

    scale / shape * (exceedance ** -shape - 1), with `exceedance` = q n / N_u. A negative shape bounds the
    tail at scale / -shape. An exceedance above 1 gives a negative excess: t_q falls below u.
    """
    if abs(shape) < EXPONENTIAL_SHAPE:
        return float(-scale * np.log(exceedance))
    return float(scale / shape * np.expm1(-shape * np.log(exceedance)))
