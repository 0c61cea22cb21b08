"""Splits have exactly the rows they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssad.datamodules.splits import MIN_PART_ROWS, controlled_split, holdout_split, thin_anomalies
from ssad.errors import DatasetError

ANOMALOUS = np.arange(1000) % 5 == 0


@pytest.mark.parametrize("shuffling", [False, True])
def test_a_controlled_split_has_its_sizes_and_shares(shuffling: bool) -> None:
    split = controlled_split(ANOMALOUS, 0.5, 0.1, 0.1, 0.5, 0.25, n_rows=400, shuffling=shuffling)
    assert [len(part) for part in split] == [200, 40, 160]
    assert [int(ANOMALOUS[part].sum()) for part in split] == [20, 20, 40]
    assert len(np.unique(np.concatenate(split))) == 400


def test_without_shuffling_a_split_keeps_the_order_of_the_table() -> None:
    split = controlled_split(ANOMALOUS, 0.4, 0.1, 0.05, 0.05, 0.05, n_rows=500)
    assert all((np.diff(part) > 0).all() for part in split)


def test_a_shuffled_split_is_fixed_by_its_seed() -> None:
    first, same, other = (
        controlled_split(ANOMALOUS, 0.4, 0.1, 0.05, 0.05, 0.05, 500, seed, shuffling=True) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.train, same.train)
    assert not np.array_equal(first.train, other.train)


@pytest.mark.parametrize(("pa_train", "n_rows"), [(0.9, None), (0.0, 1000)])
def test_a_split_that_the_data_cannot_give_is_refused_with_counts(pa_train: float, n_rows: int | None) -> None:
    with pytest.raises(DatasetError, match="800 and 200"):
        controlled_split(ANOMALOUS, 0.5, 0.1, pa_train, 0.0, 0.0, n_rows)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(40, 500), every=st.integers(2, 20))
def test_a_held_out_part_is_disjoint_and_stratified(seed: int, rows: int, every: int) -> None:
    anomalous = np.arange(rows) % every == 0
    train, test = holdout_split(rows, anomalous, 0.3, seed)
    assert sorted([*train, *test]) == list(range(rows))
    for kind in (anomalous, ~anomalous):
        assert kind[test].sum() == round(kind.sum() * 0.3)


def test_too_few_rows_to_hold_some_out_are_refused() -> None:
    with pytest.raises(DatasetError, match=f"12 rows.*at least {MIN_PART_ROWS}"):
        holdout_split(12, None, 0.3, 0)


@settings(max_examples=50)
@given(contamination=st.floats(0, 0.19), seed=st.integers(0, 2**32 - 1))
def test_thinning_keeps_every_normal_row_and_reaches_the_share(contamination: float, seed: int) -> None:
    kept = thin_anomalies(ANOMALOUS, contamination, seed)
    assert (~ANOMALOUS[kept]).sum() == 800
    assert ANOMALOUS[kept].mean() == pytest.approx(contamination, abs=1e-3)


def test_more_anomalies_than_there_are_cannot_be_kept() -> None:
    with pytest.raises(DatasetError, match=r"the data has 200 \(20.0%\)"):
        thin_anomalies(ANOMALOUS, 0.3, 0)
