"""The protocol: how data sets are split, scaled and cut down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssad.errors import DatasetError
from ssad.workflows.benchmark.suites import MAX_ROWS, MAX_THRESHOLD_ROWS, SUITES
from tests.conftest import SHARED_DATA


def test_a_set_is_split_70_to_30_with_the_anomalies_in_proportion(folder: Path) -> None:
    task, *_ = SUITES["adbench"](folder, [1])
    rows = task.load()
    assert (len(rows.train), len(rows.test), int(rows.labels.sum())) == (70, 30, 3)
    assert (rows.size, rows.contamination) == (100, 0.1)
    assert (rows.train.min(axis=0) == 0).all()
    np.testing.assert_allclose(rows.train.max(axis=0), 1)


def test_every_set_is_taken_with_every_seed_and_a_seed_gives_one_split(folder: Path) -> None:
    tasks = SUITES["adbench"](folder, [1, 2])
    assert [(task.name, task.seed) for task in tasks] == [("one", 1), ("two", 1), ("one", 2), ("two", 2)]
    np.testing.assert_array_equal(tasks[0].load().test, tasks[0].load().test)
    assert not np.array_equal(tasks[0].load().test, tasks[2].load().test)


@pytest.mark.parametrize(("suite", "most"), [("adbench", MAX_ROWS), ("thresholds", MAX_THRESHOLD_ROWS)])
def test_a_large_set_is_cut_down_in_proportion(tmp_path: Path, suite: str, most: int) -> None:
    labels = np.arange(12_000) % 20 == 0
    np.savez(tmp_path / "large.npz", X=np.random.default_rng(0).normal(size=(12_000, 2)), y=labels.astype(int))
    (task,) = SUITES[suite](tmp_path, [1])
    rows = task.load()
    used = len(rows.train) + (len(rows.test) if suite == "adbench" else 0)
    assert (used, rows.size) == (most, 12_000)
    assert rows.labels.mean() == pytest.approx(0.05)


def test_a_set_to_threshold_is_fitted_and_scored_whole(folder: Path) -> None:
    task, *_ = SUITES["thresholds"](folder, [1])
    rows = task.load()
    assert len(rows.train) == len(rows.labels) == 100
    np.testing.assert_array_equal(rows.train, rows.test)


def test_a_set_without_labels_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "bare.npz", X=np.zeros((20, 2)))
    (task,) = SUITES["adbench"](tmp_path, [1])
    with pytest.raises(DatasetError, match="bare"):
        task.load()


@pytest.mark.parametrize("suite", ["adbench", "thresholds"])
@pytest.mark.parametrize(
    ("holds", "message"),
    [
        ({"y": np.zeros(60)}, "odd.npz leaves 60 normal rows and 0 anomalies"),
        ({"y": np.arange(60) == 7}, "odd.npz leaves 59 normal rows and 1 anomalies to compare on, expected at least 2"),
        ({"y": np.ones(60)}, "odd.npz leaves 0 normal rows and 60 anomalies"),
        (
            {"y": np.repeat([1, -1], 30)},
            r"the labels of .*odd.npz cannot be used \(.*it holds 1, -1.*write 0 for normal",
        ),
        ({"y": np.append(np.arange(59) % 2, np.nan)}, "the labels of .*odd.npz cannot be used .1 rows have no value"),
        ({"X": np.full((60, 2), "tcp")}, "odd.npz holds more than numbers"),
    ],
)
def test_a_set_that_cannot_be_compared_on_is_named(
    tmp_path: Path, suite: str, holds: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "odd.npz", **{"X": np.ones((60, 2)), "y": np.arange(60) % 2} | holds)
    (task,) = SUITES[suite](tmp_path, [1])
    with pytest.raises(DatasetError, match=message):
        task.load()


@pytest.mark.parametrize("suite", ["adbench", "thresholds"])
def test_a_large_set_with_too_few_anomalies_to_be_sampled_is_named(tmp_path: Path, suite: str) -> None:
    np.savez(tmp_path / "rare.npz", X=np.zeros((50_000, 1)), y=np.arange(50_000) < 2)
    (task,) = SUITES[suite](tmp_path, [1])
    with pytest.raises(DatasetError, match="and 0 anomalies to compare on"):
        task.load()


@pytest.mark.parametrize("suite", ["adbench", "thresholds"])
def test_infinite_cells_are_missing_ones(tmp_path: Path, suite: str) -> None:
    cells = np.random.default_rng(0).normal(size=(60, 2))
    labels = np.arange(60) % 10 == 0
    loaded = []
    for odd in (np.inf, np.nan):
        cells[[3, 30], 1] = odd, -odd
        np.savez(tmp_path / "odd.npz", X=cells, y=labels)
        (task,) = SUITES[suite](tmp_path, [1])
        loaded.append(task.load())
    for name in ("train", "test"):
        np.testing.assert_array_equal(*(getattr(rows, name) for rows in loaded))


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="NSL-KDD is not here")
def test_nsl_kdd_is_thinned_for_training_and_tested_as_it_is() -> None:
    tasks = SUITES["nsl-kdd"](SHARED_DATA / "nsl-kdd", [1])
    assert [task.name for task in tasks] == ["nsl-kdd 0%", "nsl-kdd 5%", "nsl-kdd 10%", "nsl-kdd 20%"]
    clean, thinned = tasks[0].load(), tasks[2].load()
    assert len(thinned.train) == round(len(clean.train) / 0.9)
    np.testing.assert_array_equal(clean.labels, thinned.labels)
