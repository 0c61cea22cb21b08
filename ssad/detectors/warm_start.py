"""The first confidence: what two simple detectors agree on, before any network is trained."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import norm, rankdata
from sklearn.covariance import EmpiricalCovariance
from sklearn.ensemble import IsolationForest

from ssad.bundle.intervals import Floats

NORMAL_SHARE = 0.70
ABNORMAL_SHARE = 0.05
"""Rows that start as normal and as abnormal: wrong rarely, by what ADBench's contaminations are."""

TEACHER_ROWS = 20_000
"""The teachers learn from at most so many rows; their cost beyond is spent without gain."""


def warm_start_confidence(features: torch.Tensor, seed: int) -> torch.Tensor:
    """Confidence of training rows by their teachers' mean rank.

    The teachers are an isolation forest [Liu et al., ICDM 2008] and the Mahalanobis distance of the
    features, which are held to a range already.

    Args:
        features: shape (n, d), finite.
        seed: of the forest and of the rows it learns from.

    Returns:
        Shape (n,): +1 for the `NORMAL_SHARE` lowest, -1 for the `ABNORMAL_SHARE` highest, else 0.
    """
    rows = features.numpy().astype(np.float64)
    sample = rows[np.random.default_rng(seed).permutation(len(rows))[:TEACHER_ROWS]]
    # EmpiricalCovariance inverts by the pseudo-inverse, which constant and repeated features need.
    forest = IsolationForest(random_state=seed).fit(sample)
    gaussian = EmpiricalCovariance().fit(sample)
    rank = _probit(-forest.score_samples(rows)) + _probit(gaussian.mahalanobis(rows))
    normal, abnormal = np.quantile(rank, [NORMAL_SHARE, 1 - ABNORMAL_SHARE])
    return torch.from_numpy(((rank <= normal) * 1.0 - (rank > abnormal)).astype(np.float32))


def _probit(scores: Floats) -> Floats:
    """Ranks as quantiles of a standard normal distribution: outliers of one teacher do not drown the other."""
    quantiles: Floats = norm.ppf((rankdata(scores) - 0.5) / len(scores))
    return quantiles
