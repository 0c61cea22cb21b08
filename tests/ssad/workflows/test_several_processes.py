"""Two processes on the CPU train what one trains: one run, one version, the same intervals."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from ssad.detectors import FitSettings, fit_detector
from ssad.workflows.registry import fetch_model
from tests.conftest import CommandLine, default_store
from tests.ssad.workflows.support import QUIET_LIBRARIES, environment, free_port, run_python

pytestmark = QUIET_LIBRARIES


@pytest.mark.slow
def test_two_processes_leave_one_run_and_one_version_of_what_one_trains_but_for_rounding(
    command_line: CommandLine, tracking: str, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(1001, 4)) * np.where(np.arange(1001) % 10 == 9, 6, 1)[:, None]
    table = pd.DataFrame(rows, columns=list("abcd"))
    table.to_csv(tmp_path / "rows.csv", index=False)
    # Parts of a batch have 32 rows and 31, and normal and abnormal ones in other numbers.
    arguments = ("--dataset", str(tmp_path / "rows.csv"), "--max-epochs", "4", "--batch-size", "63", "--detector")
    folder = tmp_path / "unnamed"  # where nobody has named a store, it is in the folder that the command is run in
    folder.mkdir()
    command = ("-m", "ssad.cli", "train", *arguments, "ssad", "--devices", "2", "--strategy", "ddp")
    together = run_python(*command, cwd=folder, env=environment(""))
    for done in (together, *on_two_machines(command_line, *2 * [(*arguments, "radon")])):
        assert done.returncode == 0, done.stderr
    for detector, uri in (("radon", tracking), ("ssad", f"sqlite:///{folder / 'mlflow.db'}")):
        with default_store(uri):
            client = MlflowClient(uri)
            (run,) = client.search_runs(["0"])
            assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
            assert len(client.search_model_versions("name='ssad'")) == 1
            assert run.info.status == "FINISHED"
            counted = [run.data.metrics[f"rows_{region}"] for region in ("normal", "unknown", "abnormal")]
            assert sum(counted) == len(rows)  # an odd number: what pads the second process's rows is not counted
            bundle = fetch_model("models:/ssad/1", tmp_path / detector).bundle
        one = fit_detector(table, FitSettings(detector, max_epochs=4, batch_size=63), accelerator="cpu")
        np.testing.assert_allclose(bundle.score(table).score, one.score(table), rtol=1e-5)


@pytest.mark.slow
def test_two_machines_with_other_rows_do_not_train(command_line: CommandLine, tracking: str, tmp_path: Path) -> None:
    tables = [str(tmp_path / "first.csv"), str(tmp_path / "second.csv")]
    for seed, table in enumerate(tables):
        numbers = np.random.default_rng(seed).normal(size=(200, 3))
        pd.DataFrame(numbers, columns=list("abc")).to_csv(table, index=False)
    both = [("--dataset", table, "--detector", "radon", "--max-epochs", "3") for table in tables]
    for done in on_two_machines(command_line, *both):  # which both make the store's database
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("ssad: ")]
        assert re.search(r"not given the same: digest of the rows: \w{12} in process 0, \w{12} in process 1; ", line)
    (run,) = MlflowClient(tracking).search_runs(["0"])
    assert [experiment.name for experiment in MlflowClient(tracking).search_experiments()] == ["Default"]
    assert run.info.status == "FAILED"


def on_two_machines(
    command_line: CommandLine, first: Sequence[str], second: Sequence[str]
) -> Iterator[subprocess.CompletedProcess[str]]:
    """A training as two machines would begin it, each by a command of its own; both are this one."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}

    def begin(rank: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return command_line("train", *arguments, "--num-nodes", "2", "--strategy", "ddp", **meeting, NODE_RANK=rank)

    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(begin, "01", (first, second))
