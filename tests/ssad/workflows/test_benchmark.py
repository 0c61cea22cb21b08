"""The comparison of detectors: its protocol, and going on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from ssad.errors import DatasetError, SettingsError
from ssad.workflows.benchmark import BenchmarkSettings, benchmark, summarize
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = QUIET_LIBRARIES


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        rows = np.vstack([generator.normal(0, 1, (90, 3)), generator.normal(6, 1, (10, 3))])
        np.savez(tmp_path / f"{name}.npz", X=rows, y=np.repeat([0, 1], [90, 10]))
    return tmp_path


def test_every_set_and_seed_is_measured_once_and_what_is_measured_stays(suite: Path, tracking: str) -> None:
    results = suite / "results.csv"
    first = benchmark(BenchmarkSettings("adbench", suite, "none", seeds="1", results=results), progress=False)
    assert first[["set", "seed", "detector"]].values.tolist() == [["one", 1, "ssad"], ["two", 1, "ssad"]]
    assert (first["auc"] > 0.9).all()
    pd.read_csv(results).assign(auc=0.123).to_csv(results, index=False)
    again = benchmark(BenchmarkSettings("adbench", suite, "none", seeds="1", results=results), progress=False)
    assert again["auc"].tolist() == [0.123, 0.123]
    runs = mlflow.MlflowClient(tracking).search_runs(["0"])
    assert [run.data.metrics["auc_ssad"] for run in runs] == pytest.approx([0.123, first["auc"].mean()])


def test_the_summary_ranks_detectors_set_by_set() -> None:
    table = pd.DataFrame(
        [
            {
                "set": name,
                "seed": 1,
                "detector": detector,
                "auc": auc,
                "ap": auc,
                "fit_seconds": 1,
                "score_seconds": 0.5,
            }
            for name, detector, auc in (("a", "x", 0.9), ("a", "y", 0.8), ("b", "x", 0.7), ("b", "y", 0.2))
        ]
    )
    summary = summarize(table)
    assert summary["auc"].to_dict() == pytest.approx({"x": 0.8, "y": 0.5})
    assert summary["auc_rank"].to_dict() == {"x": 1.0, "y": 2.0}
    assert summary["fit_seconds"].to_dict() == {"x": 2.0, "y": 2.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"suite": "adbenc"}, "did you mean 'adbench'"),
        ({"peers": "IForrest"}, "did you mean 'IForest'"),
        ({"detectors": "sad"}, "did you mean 'ssad'"),
        ({"seeds": "1,x"}, "whole numbers"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        benchmark(BenchmarkSettings(**{"suite": "adbench", "peers": "none", **settings}, data=tmp_path), progress=False)


def test_a_folder_without_data_sets_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no \.npz"):
        benchmark(BenchmarkSettings("adbench", tmp_path, "none"), progress=False)
