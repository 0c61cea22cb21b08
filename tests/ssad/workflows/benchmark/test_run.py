"""A whole comparison: what is measured, kept, gone on with, and logged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from ssad.errors import DatasetError, SettingsError
from ssad.workflows.benchmark import BenchmarkSettings, benchmark, run
from ssad.workflows.benchmark.measurements import Measurement, measure
from ssad.workflows.benchmark.store import DATA, check_same_data, keep, kept
from ssad.workflows.benchmark.suites import Rows
from tests.ssad.workflows.benchmark.conftest import measurement
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = QUIET_LIBRARIES


def cheap(detector: str, rows: Rows, seed: int) -> Measurement:
    """A detector that scores by the distance from the median, and is sure of nothing."""
    center = np.median(rows.train, axis=0)
    train, test = (np.abs(part - center).sum(axis=1) for part in (rows.train, rows.test))
    more = {"train": train, "confidence": np.zeros(len(test)), "thresholds": np.asarray([0.0, np.inf])}
    return measurement(test, rows.labels, **more, features=rows.train.shape[1])


def test_the_default_is_measured_kept_and_logged(folder: Path, tracking: str) -> None:
    (folder / "two.npz").unlink()
    settings = BenchmarkSettings("adbench", folder, "none", seeds="1", results=folder / "results")
    report = benchmark(settings, progress=False)
    assert report.tables["measurements"].index.tolist() == [("one", 1, "ssad")]
    assert (report.tables["measurements"]["auc"] > 0.9).all()
    one = kept(folder / "results" / "adbench" / "one" / "ssad-1.npz", Measurement)
    assert one is not None
    assert (len(one.train), len(one.test), one.size, one.features) == (70, 30, 100, 3)
    assert ((one.confidence > 0) == (one.codes() == 0))[one.codes() != 1].all()
    (logged,) = mlflow.MlflowClient(tracking).search_runs(["0"])
    assert logged.data.metrics["auc_ssad"] == pytest.approx(report.tables["summary"].loc["ssad", "auc"])
    names = {item.path for item in mlflow.MlflowClient(tracking).list_artifacts(logged.info.run_id)}
    assert {f"{table}.csv" for table in report.tables} | {f"{figure}.svg" for figure in report.figures} == names


def test_a_benchmark_goes_on_where_it_was_killed(folder: Path, tracking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = BenchmarkSettings("adbench", folder, "none", seeds="1,2", results=folder / "results")
    calls: list[int] = []

    def killed(detector: str, rows: Rows, seed: int) -> Measurement:
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return cheap(detector, rows, seed)

    monkeypatch.setattr(run, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        benchmark(settings, progress=False)
    report = benchmark(settings, progress=False)
    assert calls == [1, 1, 2, 2, 2]
    assert len(report.tables["measurements"]) == 4


@pytest.mark.parametrize("left", [0, 3, 1000, -1])
def test_a_measurement_that_is_not_whole_is_measured_again(
    folder: Path, tracking: str, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    monkeypatch.setattr(run, "measure", cheap)
    settings = BenchmarkSettings("adbench", folder, "none", seeds="1", results=folder / "results")
    first = benchmark(settings, progress=False)
    path = folder / "results" / "adbench" / "one" / "ssad-1.npz"
    path.write_bytes(path.read_bytes()[:left])
    again = benchmark(settings, progress=False)
    pd.testing.assert_frame_equal(again.tables["measurements"], first.tables["measurements"])
    assert kept(path, Measurement) is not None


@pytest.mark.parametrize("left", [b"", b"\xff\xfe"])
def test_a_note_of_what_was_measured_that_is_not_whole_is_of_another_set(
    folder: Path, tracking: str, monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    monkeypatch.setattr(run, "measure", cheap)
    settings = BenchmarkSettings("adbench", folder, "none", seeds="1", results=folder / "results")
    benchmark(settings, progress=False)
    (folder / "results" / "adbench" / "one" / DATA).write_bytes(left)
    with pytest.raises(SettingsError, match="one holds measurements of another data set"):
        benchmark(settings, progress=False)


def test_what_was_measured_on_another_set_of_a_name_is_not_taken_for_this_one(
    folder: Path, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "measure", cheap)
    settings = BenchmarkSettings("adbench", folder, "none", seeds="1", results=folder / "results")
    first = benchmark(settings, progress=False)
    (folder / "two.npz").replace(folder / "one.npz")
    with pytest.raises(SettingsError, match="one holds measurements of another data set of this name; name another"):
        benchmark(settings, progress=False)
    other = benchmark(replace(settings, results=folder / "others"), progress=False)
    measured = first.tables["measurements"]["auc"], other.tables["measurements"]["auc"]
    assert measured[0][("two", 1, "ssad")] == measured[1][("one", 1, "ssad")]


def test_a_set_that_was_mended_or_brought_before_anything_was_measured_is_taken(
    folder: Path, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "measure", cheap)
    settings = BenchmarkSettings("adbench", folder, "none", seeds="1", results=folder / "results")
    good = dict(np.load(folder / "one.npz"))
    np.savez(folder / "one.npz", **good | {"y": 2.0 * good["y"] - 1})
    with pytest.raises(DatasetError, match="the labels of"):
        benchmark(settings, progress=False)
    np.savez(folder / "one.npz", **good)
    assert len(benchmark(settings, progress=False).tables["measurements"]) == 2
    check_same_data(folder / "nsl-kdd", [folder / "train.parquet"])
    (folder / "train.parquet").write_bytes(b"here by now")
    check_same_data(folder / "nsl-kdd", [folder / "train.parquet"])


def test_results_that_cannot_be_written_are_named_before_anything_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "measure", lambda *_: pytest.fail("it was measured"))
    settings = BenchmarkSettings("adbench", folder, "none", seeds="1", results=folder / "one.npz")
    with pytest.raises(SettingsError, match=r"one.npz/adbench/one cannot be written \(Not a directory\)"):
        benchmark(settings, progress=False)


def test_results_on_a_full_disk_are_named(full_disk: Path) -> None:
    scores = np.random.default_rng(0).random(10_000)
    with pytest.raises(SettingsError, match=r"cannot be written \(No space left on device\)"):
        keep(measurement(scores, scores > 0.5), full_disk / "one.npz")


def test_what_is_kept_reads_back_the_same(tmp_path: Path) -> None:
    before = measurement([0.5, 2.0], [0, 1], failure="ValueError: no")
    keep(before, tmp_path / "folder" / "one.npz")
    after = kept(tmp_path / "folder" / "one.npz", Measurement)
    for name, value in vars(before).items():
        np.testing.assert_array_equal(getattr(after, name), value)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["one.npz"]


def test_a_detector_that_fails_gets_what_chance_would(caplog: pytest.LogCaptureFixture) -> None:
    rows = Rows(np.zeros((0, 2)), np.zeros((4, 2)), np.asarray([0, 0, 0, 1]), 4, 0.25)
    failed = measure("LocalOutlierFactor", rows, 1)
    assert failed.failure.startswith("ValueError")
    assert failed.test.tolist() == [0, 0, 0, 0]
    assert "LocalOutlierFactor failed" in caplog.text


def test_peers_stand_beside_ours_alone_and_in_pairs(
    folder: Path, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyod", reason="the peers come from it")
    monkeypatch.setattr(run, "measure", lambda name, *rest: (cheap if name == "ssad" else measure)(name, *rest))
    peers = "IForest,KNN,LocalOutlierFactor"
    settings = BenchmarkSettings("adbench", folder, peers, seeds="1", results=folder / "results")
    tables = benchmark(settings, progress=False).tables
    assert tables["summary"]["auc"].min() > 0.9
    assert set(tables["pairs"].index) == {"IForest + KNN", "IForest + LocalOutlierFactor", "KNN + LocalOutlierFactor"}
    assert set(tables["calibration"].loc["ssad"].index) == {"confidence", "linear", "unify", "ExCeeD"}


def test_thresholds_of_ours_and_of_pythresh_stand_in_one_table(
    folder: Path, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pythresh", reason="the peers come from it")
    monkeypatch.setattr(run, "measure", cheap)
    settings = BenchmarkSettings("thresholds", folder, "IQR,default", seeds="1", results=folder / "results")
    summary = benchmark(settings, progress=False).tables["summary"]
    assert {"ConsensusThresholding", "EVTThresholding", "IQR", "default"} < set(summary.index)
    assert summary.loc["default", "called"] == 0.1
    assert (summary["gain"] <= 0).all()  # far anomalies: as many rows as there are is the best that can be called


def test_a_folder_without_data_sets_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no \.npz"):
        benchmark(BenchmarkSettings("adbench", tmp_path, "none"), progress=False)
