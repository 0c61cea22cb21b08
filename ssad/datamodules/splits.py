"""Splits with a controlled share of anomalies, as row positions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssad.errors import DatasetError

Positions = npt.NDArray[np.int64]

MIN_PART_ROWS = 10
"""A part of a split with fewer rows says nothing: no quantile, histogram or metric means anything on it."""


class Split(NamedTuple):
    """Positions of the rows of each part, without overlap."""

    train: Positions
    val: Positions
    test: Positions


def controlled_split(
    anomalous: npt.NDArray[np.bool_],
    p_train: float,
    p_val: float,
    pa_train: float,
    pa_val: float,
    pa_test: float,
    n_rows: int | None = None,
    random_state: int = 42,
    shuffling: bool = False,
) -> Split:
    """Draw train, validation and test parts, each with its own share of anomalies.

    Args:
        anomalous: which rows are anomalies, shape (n,).
        p_train: share of the rows for training, in (0, 1).
        p_val: share of the rows for validation; the rest is for test.
        pa_train: share of anomalies among the training rows, in [0, 1]; likewise `pa_val`, `pa_test`.
        pa_val: see `pa_train`.
        pa_test: see `pa_train`.
        n_rows: rows to use in all; None for all of them.
        random_state: seed of the shuffling.
        shuffling: whether rows are drawn in random order; else in the order of the table.

    Raises:
        DatasetError: a share is none, a part would have no row, or the table has fewer normal rows or anomalies than
            the shares ask for.
    """
    shares = (p_train, p_val, p_train + p_val, pa_train, pa_val, pa_test)
    if not all(0 <= share <= 1 for share in shares):
        raise DatasetError(
            f"p_train and p_val must be shares that leave some rows for test, and anomaly shares lie in [0, 1], got "
            f"p_train={p_train}, p_val={p_val}, pa_train={pa_train}, pa_val={pa_val}, pa_test={pa_test}."
        )
    sizes = _part_sizes(len(anomalous) if n_rows is None else n_rows, p_train, p_val)
    wanted = [round(size * share) for size, share in zip(sizes, (pa_train, pa_val, pa_test), strict=True)]
    pools = [np.flatnonzero(~anomalous), np.flatnonzero(anomalous)]
    if shuffling:
        generator = np.random.default_rng(random_state)
        pools = [generator.permutation(pool) for pool in pools]
    counts = [[size - anomalies for size, anomalies in zip(sizes, wanted, strict=True)], wanted]
    needs = [sum(of_parts) for of_parts in counts]
    if any(need > len(pool) for need, pool in zip(needs, pools, strict=True)):
        raise DatasetError(
            f"the split asks for {needs[0]} normal rows and {needs[1]} anomalies, the data has {len(pools[0])} and "
            f"{len(pools[1])}; lower n_rows or the anomaly shares."
        )
    drawn = [
        np.split(pool[:need], np.cumsum(of_parts)[:-1])
        for pool, need, of_parts in zip(pools, needs, counts, strict=True)
    ]
    parts = [np.sort(np.concatenate(part)) for part in zip(*drawn, strict=True)]
    if shuffling:
        parts = [generator.permutation(part) for part in parts]
    return Split(*parts)


def _part_sizes(total: int, p_train: float, p_val: float) -> list[int]:
    """Rows of each of the three parts."""
    sizes = [round(total * p_train), round(total * p_val)]
    sizes.append(total - sum(sizes))
    if min(sizes) < 1:
        raise DatasetError(
            f"the split of {total} rows asks for {sizes[0]} to train, {sizes[1]} to validate and {sizes[2]} to test; "
            "each part needs at least one row."
        )
    return sizes


def holdout_split(
    rows: int, anomalous: npt.NDArray[np.bool_] | None, test_share: float, random_state: int
) -> tuple[Positions, Positions]:
    """Hold out a test part at random, stratified where labels are known.

    Args:
        rows: how many rows there are.
        anomalous: which are anomalies, shape (rows,), or None without labels.
        test_share: share of the rows that is held out, in (0, 1).
        random_state: seed.

    Returns:
        Positions for training and for test, each in the order of the table.

    Raises:
        DatasetError: a part would have fewer than `MIN_PART_ROWS` rows.
    """
    generator = np.random.default_rng(random_state)
    strata = [np.arange(rows)] if anomalous is None else [np.flatnonzero(~anomalous), np.flatnonzero(anomalous)]
    test = np.sort(
        np.concatenate([generator.permutation(stratum)[: round(len(stratum) * test_share)] for stratum in strata])
    )
    train = np.setdiff1d(np.arange(rows), test)
    if min(len(train), len(test)) < MIN_PART_ROWS:
        raise DatasetError(
            f"the table has {rows} rows; holding out {test_share:.0%} for test leaves {len(train)} to train and "
            f"{len(test)} to test, expected at least {MIN_PART_ROWS} each; bring more, or a test_dataset of its own."
        )
    return train, test


def thin_anomalies(anomalous: npt.NDArray[np.bool_], contamination: float, random_state: int) -> Positions:
    """Positions that keep all normal rows and so many random anomalies that these are the wanted share.

    Args:
        anomalous: which rows are anomalies, shape (n,).
        contamination: wanted share of anomalies, in [0, 0.5).
        random_state: seed.

    Raises:
        DatasetError: the rows have fewer anomalies than that.
    """
    normal, anomalies = np.flatnonzero(~anomalous), np.flatnonzero(anomalous)
    wanted = round(contamination / (1 - contamination) * len(normal))
    if wanted > len(anomalies):
        share = len(anomalies) / max(len(anomalous), 1)
        most = math.floor(1000 * share) / 1000
        raise DatasetError(
            f"contamination {contamination:g} needs {wanted} anomalies beside {len(normal)} normal training rows, "
            f"the data has {len(anomalies)} ({share:.1%}); ask for at most {most:g} or leave it out."
        )
    kept = np.random.default_rng(random_state).permutation(anomalies)[:wanted]
    return np.sort(np.concatenate([normal, kept]))
