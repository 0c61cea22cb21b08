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
from ssad.workflows.train import TrainSettings, train
from tests.conftest import CommandLine
from tests.ssad.workflows.support import QUIET_LIBRARIES, environment, free_port, run_python

pytestmark = QUIET_LIBRARIES

SHARE_TOLERANCE = 0.01
"""Sums of gradients over two processes round differently, which moves rows that lie at a threshold."""


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(command_line: CommandLine, tracking: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(1001, 4)) * np.where(np.arange(1001) % 10 == 9, 6, 1)[:, None]
    pd.DataFrame(rows, columns=list("abcd")).to_csv(tmp_path / "rows.csv", index=False)
    arguments = ("--dataset", str(tmp_path / "rows.csv"), "--detector", "radon", "--max-epochs", "3")
    fit = FitSettings("radon", max_epochs=3)
    train(TrainSettings(str(tmp_path / "rows.csv"), fit=fit), progress=False)
    folder = tmp_path / "unnamed"  # where nobody has named a store, it is in the folder that the command is run in
    folder.mkdir()
    command = ("-m", "ssad.cli", "train", *arguments, "--devices", "2", "--strategy", "ddp")
    together = run_python(*command, cwd=folder, env=environment(""))
    for done in (together, *on_two_machines(command_line, *2 * [arguments])):
        assert done.returncode == 0, done.stderr
    client = MlflowClient(tracking)
    (unnamed,) = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_runs(["0"])
    *several, one = client.search_runs(["0"])
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    assert len(several) == 1
    assert len(client.search_model_versions("name='ssad'")) == 2
    several.append(unnamed)
    assert {run.info.status for run in (one, *several)} == {"FINISHED"}
    for two in several:
        for name in ("threshold_normal", "threshold_abnormal", "train_loss"):
            assert two.data.metrics[name] == pytest.approx(one.data.metrics[name], rel=0.01), name
        for region in ("normal", "unknown", "abnormal"):
            both = [run.data.metrics[f"rows_{region}"] / len(rows) for run in (one, two)]
            assert both[0] == pytest.approx(both[1], abs=SHARE_TOLERANCE), region
        counted = [two.data.metrics[f"rows_{region}"] for region in ("normal", "unknown", "abnormal")]
        assert sum(counted) == len(rows)  # an odd number: what pads the second process's rows is not counted


TOGETHER = """
import os, sys
import numpy as np, pandas as pd
from ssad.detectors import FitSettings, fit_detector

rows, scores, detector = sys.argv[1:]
settings = FitSettings(detector, max_epochs=4, batch_size=63)
fitted = fit_detector(pd.read_parquet(rows), settings, accelerator="cpu", devices=2, strategy="ddp")
if os.environ.get("LOCAL_RANK", "0") == "0":
    np.save(scores, fitted.training_scores)
"""


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["ssad", "radon"])
def test_two_processes_train_what_one_trains_but_for_rounding(detector: str, tmp_path: Path) -> None:
    program, rows, scores = tmp_path / "together.py", tmp_path / "rows.parquet", tmp_path / "scores.npy"
    program.write_text(TOGETHER)
    generator = np.random.default_rng(0)
    table = pd.DataFrame(generator.normal(size=(501, 4)), columns=list("abcd"))
    table.iloc[::10] *= 6
    table.to_parquet(rows)
    arguments = map(str, (program, rows, scores, detector))
    done = run_python("-W", "ignore", *arguments, cwd=tmp_path, env=environment(""))
    assert done.returncode == 0, done.stderr
    # Parts of a batch have 32 rows and 31, and normal and abnormal ones in other numbers.
    one = fit_detector(table, FitSettings(detector, max_epochs=4, batch_size=63), accelerator="cpu")
    np.testing.assert_allclose(np.load(scores), one.training_scores, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "told"), [(200, r"digest of the rows: \w{12}"), (201, "rows: 200")], ids=["rows", "a row more"]
)
def test_two_machines_with_other_rows_do_not_train(
    rows: int, told: str, command_line: CommandLine, tracking: str, tmp_path: Path
) -> None:
    tables: list[str] = []
    for count in (200, rows):
        tables.append(str(tmp_path / f"{len(tables)}.csv"))
        numbers = np.random.default_rng(len(tables)).normal(size=(count, 3))
        pd.DataFrame(numbers, columns=list("abc")).to_csv(tables[-1], index=False)
    both = [("--dataset", table, "--detector", "radon", "--max-epochs", "3") for table in tables]
    for done in on_two_machines(command_line, *both):  # which both make the store's database
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("ssad: ")]
        assert re.search(f"the processes were not given the same: .*{told} in process 0, ", line)
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
