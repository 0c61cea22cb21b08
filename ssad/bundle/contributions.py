"""Which columns a row deviates in most; NumPy alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ssad.bundle.intervals import Floats

CONTRIBUTORS, CONTRIBUTOR_ERRORS = "contributors", "contributor_errors"
"""Columns of an answer: the names of the columns that contribute most, and what each adds."""


def largest(errors: Floats, k: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """The k columns that add most to each row's deviation, largest first.

    Args:
        errors: what each column adds, shape (n, columns), as `Bundle.errors` gives it.
        k: how many, at least 1; never more than there are columns.

    Returns:
        Indices of the columns and what each adds, both of shape (n, k).
    """
    k = min(k, errors.shape[1])
    top = np.argsort(-errors, axis=1, kind="stable")[:, :k]
    return top, np.take_along_axis(errors, top, axis=1)
