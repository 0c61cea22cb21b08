from __future__ import annotations

import numpy as np
import pytest

from ssad.sampling import spread


@pytest.mark.parametrize(("rows", "most"), [(1, 1), (5, 9), (100_003, 7), (40_000_001, 10_000)])
def test_rows_are_spread_from_the_first_to_the_last_without_repeating_one(rows: int, most: int) -> None:
    chosen = spread(rows, most)
    assert len(chosen) == min(rows, most)
    assert chosen[[0, -1]].tolist() == [0, rows - 1]
    assert (np.diff(chosen) > 0).all()


def test_of_no_rows_none_is_taken() -> None:
    assert not len(spread(0, 7))
