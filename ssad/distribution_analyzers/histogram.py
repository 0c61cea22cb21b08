"""Histograms whose bin count the data chooses."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from ssad.bundle.drift import Counts
from ssad.bundle.intervals import SCORE_TOLERANCE, Floats

FAR = 1e4
"""Interquartile ranges beyond which a score no longer changes that every rule is at `MAX_BINS`."""

LEAST_RULE = "sturges"
"""Bins where another rule finds but one: NumPy's `auto` does the same [Sturges 1926]."""

MAX_BINS = 250
"""Largest bin count searched: the limit of RADON's published implementation."""


def knuth_log_posteriors(counts: Floats, bins: Counts) -> Floats:
    """Relative log posterior of histograms with these bin counts [Knuth 2019, eq. 31].

    Args:
        counts: rows in each bin, one histogram after the other, shape (sum of bins,).
        bins: how many equal bins M each histogram has, shape (h,), at least 1.

    Returns:
        n log M + log G(M/2) - M log G(1/2) - log G(n + M/2) + sum log G(counts + 1/2), up to a constant;
        shape (h,).
    """
    starts = np.cumsum(bins) - bins
    rows = np.add.reduceat(counts, starts)
    of_bins = np.add.reduceat(gammaln(counts + 0.5), starts)
    posteriors: Floats = rows * np.log(bins) + gammaln(bins / 2) - bins * gammaln(0.5) - gammaln(rows + bins / 2)
    return posteriors + of_bins


def knuth_bins(scores: Floats, max_bins: int = MAX_BINS) -> int:
    """Number of equal bins that Knuth's criterion finds best for the scores, in [1, max_bins]."""
    ordered = _ascending(scores)
    bins = np.arange(1, max_bins + 1)
    starts = np.cumsum(bins) - bins
    # The right end of every bin of every histogram, as NumPy spaces them; one search for all of them.
    steps = np.arange(1.0, bins.sum() + 1) - np.repeat(starts, bins)
    right = np.searchsorted(ordered, ordered[0] + steps * np.repeat((ordered[-1] - ordered[0]) / bins, bins))
    right[starts + bins - 1] = len(ordered)
    counts = np.diff(right, prepend=0).astype(np.float64)
    counts[starts] = right[starts]
    return int(np.argmax(knuth_log_posteriors(counts, bins))) + 1


def _ascending(scores: Floats) -> Floats:
    """The scores in order; those of the analyzers are already, and asking costs a twentieth of sorting."""
    return scores if (scores[1:] >= scores[:-1]).all() else np.sort(scores)


def counts_between(ordered: Floats, edges: Floats) -> Counts:
    """Ascending scores in each bin [edge, next edge), the outermost open outwards: one search an edge, not a row."""
    return np.diff(np.searchsorted(ordered, edges[1:-1]), prepend=0, append=len(ordered))


def _histogram(ordered: Floats, bins: int) -> tuple[Floats, Floats]:
    """Counts and edges of `bins` equal bins over ascending scores."""
    edges = np.linspace(ordered[0], ordered[-1], bins + 1)
    return counts_between(ordered, edges).astype(np.float64), edges


def spreads(scores: Floats) -> bool:
    """Whether the scores differ by enough for a histogram: rounding alone is no difference."""
    if not len(scores):
        return False
    low, high = float(scores.min()), float(scores.max())
    return high - low > SCORE_TOLERANCE * max(abs(low), abs(high))


def score_histogram(scores: Floats, bin_estimator: str) -> tuple[Floats, Floats]:
    """Counts and edges of the scores' histogram.

    Args:
        scores: shape (n,), for which `spreads` holds.
        bin_estimator: `knuth`, or a rule of `numpy.histogram_bin_edges`, held to `MAX_BINS` bins.
    """
    ordered = _ascending(scores)
    if bin_estimator == "knuth":
        bins = knuth_bins(ordered)
    else:
        # One score far enough away makes NumPy allocate an edge for each of billions of empty bins.
        first, third = np.quantile(ordered, [0.25, 0.75])
        reach = FAR * (third - first) or np.inf
        near = np.clip(ordered, first - reach, third + reach)
        bins = min(len(np.histogram_bin_edges(near, bin_estimator)) - 1, MAX_BINS)
        # Where half of the scores are one, a rule that goes by their quartiles finds a single bin.
        if bins == 1:
            bins = len(np.histogram_bin_edges(ordered, LEAST_RULE)) - 1
    return _histogram(ordered, bins)
