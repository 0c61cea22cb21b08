"""The first confidence: what an isolation forest says, before any network is trained."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.ensemble import IsolationForest

NORMAL_SHARE = 0.70
ABNORMAL_SHARE = 0.05
"""Rows that start as normal and as abnormal, as the design's first sketch had them; see docs/benchmarks.md for
what another share does, and why that is no reason to change it."""

TREE_ROWS = 128
"""Rows of which each tree is grown, half the paper's 256: among fewer rows dense anomalies are too few to pass for
normal. Measured in docs/benchmarks.md."""


def warm_start_confidence(features: torch.Tensor, seed: int) -> torch.Tensor:
    """Confidence of training rows by the rank an isolation forest gives them [Liu, Ting & Zhou, ICDM 2008].

    Args:
        features: shape (n, d), finite.
        seed: of the forest.

    Returns:
        Shape (n,): +1 for the `NORMAL_SHARE` lowest, -1 for the `ABNORMAL_SHARE` highest, else 0.
    """
    forest = IsolationForest(max_samples=min(TREE_ROWS, len(features)), random_state=seed).fit(features.numpy())
    score = -forest.score_samples(features.numpy())
    normal, abnormal = np.quantile(score, [NORMAL_SHARE, 1 - ABNORMAL_SHARE])
    return torch.from_numpy((score <= normal).astype(np.float32) - (score > abnormal))
