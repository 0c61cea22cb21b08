"""Some of many rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def spread(count: int, most: int) -> npt.NDArray[np.intp]:
    """Positions of `count` rows, at most `most` (m,) of them, evenly spread from the first to the last."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.intp)
