"""The protocol: how data sets are split, scaled and cut down."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="NSL-KDD is not here")
def test_nsl_kdd_is_thinned_for_training_and_tested_as_it_is() -> None:
    tasks = SUITES["nsl-kdd"](SHARED_DATA / "nsl-kdd", [1])
    assert [task.name for task in tasks] == ["nsl-kdd 0%", "nsl-kdd 5%", "nsl-kdd 10%", "nsl-kdd 20%"]
    clean, thinned = tasks[0].load(), tasks[2].load()
    assert len(thinned.train) == round(len(clean.train) / 0.9)
    np.testing.assert_array_equal(clean.labels, thinned.labels)
