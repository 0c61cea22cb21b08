"""What all figures have in common: colours of regions, bins of scores. A leaf: it imports nothing of this project."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Okabe & Ito's colours, told apart by colour-blind readers too.
REGION_COLORS = {"normal": "#0072B2", "unknown": "#999999", "abnormal": "#D55E00"}

BLUE, GREY, ORANGE = REGION_COLORS.values()
"""By their own names, for what is no region."""

PLOT_BINS = 100

HEAVY = 10.0
"""Positive scores that reach so many times their median are drawn on a logarithmic axis: a bulk needs width too."""


def plot_edges(left: float, median: float, right: float) -> tuple[npt.NDArray[np.float64], bool]:
    """Borders of the bins to draw from the score `left` to `right`, and whether they go by the logarithm."""
    if left > 0 and right > HEAVY * median:
        return np.geomspace(left / 1.1, right * 1.1, PLOT_BINS + 1), True
    margin = 0.05 * (right - left) or max(abs(right), 1.0) * 1e-6
    return np.linspace(left - margin, right + margin, PLOT_BINS + 1), False
