"""Any confidence estimator as the plain curve that a bundle carries."""

from __future__ import annotations

import numpy as np
import torch

from ssad.bundle import REGIONS, ConfidenceCurve
from ssad.bundle.intervals import Floats, beyond
from ssad.confidence_estimators.estimators import GradedConfidence, SupportsConfidenceEstimation
from ssad.confidence_estimators.intervals import ConfidenceIntervalsConfiguration

KNOTS_PER_REGION = 257
"""Quantiles of the training scores at which the curve is exact: between, a graded confidence is off by at most what it
changes over a 256th of a region's rows, rounded up to whole rows, and those that share the score below."""


def confidence_curve(estimator: SupportsConfidenceEstimation, training_scores: Floats) -> ConfidenceCurve:
    """Sample an estimator where the training scores are, region by region.

    The sampled confidence is held to the words of the design: within [-1, 1], of the region's sign and
    never rising with the score.

    Raises:
        RuntimeError: the estimator has no intervals yet.
    """
    if estimator.configuration is None:
        raise RuntimeError("the estimator has no intervals; analyse a score distribution first")
    thresholds = estimator.configuration.thresholds
    codes = thresholds.codes(training_scores)
    borders = {
        "normal": [thresholds.normal],
        "unknown": [
            np.nextafter(thresholds.normal, np.inf),
            np.nextafter(thresholds.abnormal, -np.inf),
            *([] if estimator.configuration.decision is None else [estimator.configuration.decision]),
        ],
        "abnormal": [
            thresholds.abnormal
            if thresholds.normal < thresholds.abnormal
            else np.nextafter(thresholds.abnormal, np.inf)
        ],
    }
    limits = {"normal": (0.0, 1.0), "unknown": (-1.0, 1.0), "abnormal": (-1.0, 0.0)}
    knots, ceiling = {}, 1.0
    for code, region in enumerate(REGIONS):
        at = _knots(training_scores[codes == code], borders[region])
        at = at[thresholds.codes(at) == code]
        value = estimator.estimate_confidence(torch.from_numpy(at)).numpy()
        value = np.minimum.accumulate(np.clip(value, limits[region][0], min(limits[region][1], ceiling)))
        knots[region] = (at, value)
        ceiling = min(ceiling, float(value[-1])) if len(value) else ceiling
    return ConfidenceCurve(thresholds, knots)


def served_curve(configuration: ConfidenceIntervalsConfiguration | None, training_scores: Floats) -> ConfidenceCurve:
    """Intervals with graded confidence: what is served, whatever estimator trained.

    A binary one is for training; what a service answers is to be read as a probability.

    Raises:
        RuntimeError: there are no intervals yet.
    """
    estimator = GradedConfidence()
    estimator.configuration = configuration
    estimator.fit(torch.from_numpy(training_scores))
    return confidence_curve(estimator, training_scores)


def _knots(scores: Floats, borders: list[float]) -> Floats:
    """Ascending scores at which to sample a region: its borders, quantiles among its training scores, and beyond them.

    At the highest score itself not all rows lie below.
    """
    shares = np.linspace(0, 1, KNOTS_PER_REGION)
    quantiles = np.quantile(scores, shares, method="inverted_cdf") if len(scores) else np.empty(0)
    at = np.unique(np.concatenate([quantiles, [beyond(score) for score in quantiles[-1:]], borders]))
    finite: Floats = at[np.abs(at) < np.finfo(np.float64).max]  # nor what lies next to an infinite threshold
    return finite
