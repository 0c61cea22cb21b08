"""A tracking store that is not there yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.ssad.workflows.support import PROCESS_SECONDS, QUIET_LIBRARIES, environment

pytestmark = [*QUIET_LIBRARIES, pytest.mark.slow]

RUN = "from ssad.workflows.tracking import tracked_run\nwith tracked_run(system_metrics=False): pass"


def test_the_first_runs_of_a_directory_may_begin_together(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    together = [
        subprocess.Popen([sys.executable, "-c", RUN], cwd=tmp_path, env=environment(uri), stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=PROCESS_SECONDS)[1].decode() for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], said
    assert [run.info.status for run in MlflowClient(uri).search_runs(["0"])] == 3 * ["FINISHED"]
