"""The default's intervals: where four ways to cut a distribution agree, a row is decided."""

from __future__ import annotations

import math
import sys

import numpy as np

from ssad.bundle.intervals import Floats
from ssad.confidence_estimators import ConfidenceIntervalsConfiguration
from ssad.distribution_analyzers.analyzer import Cut, HistogramPlotAnalyzer, clear_of
from ssad.distribution_analyzers.histogram import score_histogram
from ssad.distribution_analyzers.triangular import corner_right_of_peak

BIN_RULE = "fd"
"""Freedman & Diaconis' rule: its width follows the bulk, which a heavy tail does not stretch."""

MEAN_SIGMAS = 1.0
"""A cut at one standard deviation above the mean: never more than half of the rows lie beyond [Cantelli 1929]."""

ONE_SIGMA_QUANTILE = 0.1587
LOWER_SIGMAS = 1.5
"""Anomalies lie above the median, so the spread of normal rows is read below it; these many of it are the cut."""

HELD = 100.0
"""A score is held to so many times the way from the median to the upper tenth, above the median. The default's on the
benchmark's sets end at half of that."""
HELD_QUANTILES = (0.5, 0.9)


class ConsensusThresholding(HistogramPlotAnalyzer):
    """Four cuts vote: normal is what all call normal, abnormal what all call abnormal, and the rest is unknown.

    They fail differently: Rosin's corner needs a peak with a tail [Rosin 2001], Otsu's split two masses
    [Otsu 1979], lower deviations above the median a symmetric bulk, and a standard deviation above the mean
    anomalies that are far. If every row must be decided, abnormal is what most, three of the four, call so.

    Scores are held to `HELD` before: a few that lie orders of magnitude above all others would draw Otsu's split and
    the deviation to themselves, and leave the rest of the tail unknown.
    """

    def _thresholds(self, scores: Floats, current_conf: ConfidenceIntervalsConfiguration | None) -> Cut:
        normal, _, majority, abnormal = sorted(clear_of(cut, scores) for cut in four_cuts(scores))
        return normal, abnormal, majority


def four_cuts(scores: Floats) -> list[float]:
    """Where each of the four would cut ascending scores, shape (n,), that are not all equal."""
    scores = np.minimum(scores, _highest(scores))
    # Squares of large or small scores leave the range; a power of two changes no digit.
    power = int(np.frexp(max(-scores[0], scores[-1]))[1])
    scores = np.ldexp(scores, -power)
    cuts = [
        corner_right_of_peak(*score_histogram(scores, BIN_RULE)),
        otsu_threshold(scores),
        lower_spread_threshold(scores),
        float(scores.mean() + MEAN_SIGMAS * scores.std()),
    ]
    largest = math.ldexp(sys.float_info.max, -max(power, 0))  # a deviation above the mean may lie beyond
    return [math.ldexp(min(cut, largest), power) for cut in cuts]


def _highest(scores: Floats) -> float:
    """What scores, shape (n,), are held to; nothing where nine in ten are alike, which tells no scale."""
    median, upper = np.quantile(scores, HELD_QUANTILES)
    with np.errstate(over="ignore"):
        return float(median + HELD * (upper - median)) if upper > median else math.inf


def otsu_threshold(scores: Floats) -> float:
    """The middle of the gap between two groups whose means differ most [Otsu 1979, eq. 18].

    Exact, over every split of the scores instead of histogram bins. No score lies on it: one that did would
    fall on either side, as a runtime rounds.

    Args:
        scores: ascending, shape (n,), n at least 2.
    """
    # In place: with millions of rows every intermediate counts.
    between = scores - scores.mean()
    between = np.cumsum(between, out=between)[:-1]
    between *= between
    below = np.arange(1.0, len(scores))
    between /= below
    between /= np.subtract(len(scores), below, out=below)
    between[np.diff(scores) <= 0] = -1.0  # a split between equal scores is none
    lower, higher = scores[np.argmax(between) :][:2]
    return float(lower + (higher - lower) / 2)


def lower_spread_threshold(scores: Floats) -> float:
    """Median plus `LOWER_SIGMAS` of the distance from the median down to one standard deviation."""
    low, median = np.quantile(scores, [ONE_SIGMA_QUANTILE, 0.5])
    return float(median + LOWER_SIGMAS * (median - low))
