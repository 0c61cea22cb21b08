"""The documented example of a whole life, as a reader runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.ssad.workflows.support import environment, run_python


@pytest.mark.slow
def test_false_alarms_rise_and_come_back_down_and_no_request_is_lost(tmp_path: Path) -> None:
    figure = tmp_path / "loop.png"
    script = str(PROJECT / "examples" / "closed_loop.py")
    # The server has seven more processes where it may run jobs, which nobody asks of it here.
    env = environment("", PYTHONPATH=str(PROJECT), MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    del env["MLFLOW_TRACKING_URI"]
    done = run_python("-W", "ignore", script, "--figure", str(figure), cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    usual, drifted, after, back = (float(rate) for rate in re.findall(r"false alarms ([\d.]+)%", done.stdout))
    assert drifted > 3 * usual
    assert after < drifted / 2
    assert back > after
    drift = [float(index) for index in re.findall(r"drift ([\d.]+)", done.stdout)]
    assert drift[1] > 0.25 > max(drift[0], drift[2])
    assert "the weights are the same" in done.stdout
    assert "refused: version 3 of ssad is not promoted" in done.stdout
    assert re.search(r"requests answered, 0 lost", done.stdout)
    assert figure.stat().st_size > 10_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop.png"]
