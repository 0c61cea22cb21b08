"""The first confidence: what two simple detectors agree on, before any network is trained."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import norm, rankdata
from sklearn.ensemble import IsolationForest

from ssad.bundle.intervals import Floats
from ssad.models import FeatureViews

NORMAL_SHARE = 0.70
ABNORMAL_SHARE = 0.05
"""Rows that start as normal and as abnormal, as the design's first sketch had them; see docs/benchmarks.md for
what another share does, and why that is no reason to change it."""

RIDGE = 0.1
CONCENTRATION_STEPS = 5
"""Of the covariance: each step keeps the closest half [Rousseeuw & Van Driessen 1999, C-step]."""

TEACHER_ROWS = 20_000
"""The teachers learn from at most so many rows; their cost beyond is spent without gain."""


def warm_start_confidence(features: torch.Tensor, seed: int) -> torch.Tensor:
    """Confidence of training rows by their teachers' mean rank.

    The teachers are an isolation forest [Liu et al., ICDM 2008] and the Mahalanobis distance under a
    robust covariance of the clipped, standardized features.

    Args:
        features: shape (n, d), finite.
        seed: of the forest and of the rows it learns from.

    Returns:
        Shape (n,): +1 for the `NORMAL_SHARE` lowest, -1 for the `ABNORMAL_SHARE` highest, else 0.
    """
    rows = features.numpy().astype(np.float64)
    standardized = FeatureViews(features)(features)[1].numpy().astype(np.float64)
    sample = np.random.default_rng(seed).permutation(len(rows))[:TEACHER_ROWS]
    forest = IsolationForest(random_state=seed).fit(rows[sample])
    center, precision = concentrated_gaussian(standardized[sample])
    rank = _probit(-forest.score_samples(rows)) + _probit(_mahalanobis(standardized, center, precision))
    normal, abnormal = np.quantile(rank, [NORMAL_SHARE, 1 - ABNORMAL_SHARE])
    return torch.from_numpy(((rank <= normal) * 1.0 - (rank > abnormal)).astype(np.float32))


def concentrated_gaussian(rows: Floats) -> tuple[Floats, Floats]:
    """Center (d,) and precision (d, d) of the closest half of the rows (n, d), found by C-steps."""
    kept = np.ones(len(rows), dtype=bool)
    for _ in range(CONCENTRATION_STEPS):
        center = rows[kept].mean(axis=0)
        centered = rows[kept] - center
        covariance = centered.T @ centered / max(1, len(centered) - 1)
        precision = np.linalg.inv(covariance + RIDGE * np.eye(rows.shape[1]))
        distance = _mahalanobis(rows, center, precision)
        kept = distance <= np.median(distance)
    return center, precision


def _mahalanobis(rows: Floats, center: Floats, precision: Floats) -> Floats:
    centered = rows - center
    squares: Floats = ((centered @ precision) * centered).sum(axis=1)
    return squares


def _probit(scores: Floats) -> Floats:
    """Ranks as quantiles of a standard normal: outliers of one teacher do not drown the other."""
    quantiles: Floats = norm.ppf((rankdata(scores) - 0.5) / len(scores))
    return quantiles
