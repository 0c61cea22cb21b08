"""Histograms whose bin count the data chooses."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from ssad.bundle.bundle import GOLDEN_TOLERANCE
from ssad.bundle.intervals import Floats

FAR = 1e4
"""Interquartile ranges beyond which a score no longer changes that every rule is at `MAX_BINS`."""

MAX_BINS = 250
"""Largest bin count searched: the limit of RADON's published implementation."""


def knuth_log_posterior(counts: Floats) -> float:
    """Relative log posterior of a histogram with these bin counts [Knuth 2019, eq. 31].

    Args:
        counts: rows in each of M equal bins, shape (M,).

    Returns:
        n log M + log G(M/2) - M log G(1/2) - log G(n + M/2) + sum log G(counts + 1/2), up to a constant.
    """
    bins, rows = len(counts), counts.sum()
    return float(
        rows * np.log(bins)
        + gammaln(bins / 2)
        - bins * gammaln(0.5)
        - gammaln(rows + bins / 2)
        + gammaln(counts + 0.5).sum()
    )


def knuth_bins(scores: Floats, max_bins: int = MAX_BINS) -> int:
    """Number of equal bins that Knuth's criterion finds best for the scores, in [1, max_bins]."""
    ordered = _ascending(scores)
    posterior = [knuth_log_posterior(_histogram(ordered, bins)[0]) for bins in range(1, max_bins + 1)]
    return int(np.argmax(posterior)) + 1


def _ascending(scores: Floats) -> Floats:
    """The scores in order; those of the analyzers are already, and asking costs a twentieth of sorting."""
    return scores if (scores[1:] >= scores[:-1]).all() else np.sort(scores)


def _histogram(ordered: Floats, bins: int) -> tuple[Floats, Floats]:
    """Counts and edges of `bins` equal bins over ascending scores: one search an edge, not a row."""
    edges = np.linspace(ordered[0], ordered[-1], bins + 1)
    inner = np.searchsorted(ordered, edges[1:-1], side="left")
    return np.diff(inner, prepend=0, append=len(ordered)).astype(np.float64), edges


def spreads(scores: Floats) -> bool:
    """Whether the scores differ by enough for a histogram: rounding alone is no difference."""
    if not len(scores):
        return False
    low, high = float(scores.min()), float(scores.max())
    return high - low > GOLDEN_TOLERANCE * max(abs(low), abs(high))


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
    return _histogram(ordered, bins)
