"""Two processes on the CPU train what one trains: one run, one version, the same intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.conftest import CommandLine
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = QUIET_LIBRARIES

SHARE_TOLERANCE = 0.01
"""Sums of gradients over two processes round differently, which moves rows that lie at a threshold."""


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(command_line: CommandLine, tracking: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(1001, 4)) * np.where(np.arange(1001) % 10 == 9, 6, 1)[:, None]
    pd.DataFrame(rows, columns=list("abcd")).to_csv(tmp_path / "rows.csv", index=False)
    arguments = ("--dataset", str(tmp_path / "rows.csv"), "--detector", "radon", "--max-epochs", "3")
    for processes in ("1", "2"):
        strategy = "ddp" if processes == "2" else "auto"
        done = command_line("train", *arguments, "--devices", processes, "--strategy", strategy)
        assert done.returncode == 0, done.stderr
    client = MlflowClient(tracking)
    two, one = client.search_runs(["0"])
    assert {run.info.status for run in (one, two)} == {"FINISHED"}
    assert len(client.search_model_versions("name='ssad'")) == 2
    for name in ("threshold_normal", "threshold_abnormal", "train_loss"):
        assert two.data.metrics[name] == pytest.approx(one.data.metrics[name], rel=0.01), name
    for region in ("normal", "unknown", "abnormal"):
        both = [run.data.metrics[f"rows_{region}"] / len(rows) for run in (one, two)]
        assert both[0] == pytest.approx(both[1], abs=SHARE_TOLERANCE), region
    counted = [two.data.metrics[f"rows_{region}"] for region in ("normal", "unknown", "abnormal")]
    assert sum(counted) == len(rows)  # an odd number: what pads the second process's rows is not counted
