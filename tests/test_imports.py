"""What the service, the bundle and the library itself must not load."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.ssad.workflows.support import environment, run_python

HEAVY = {"torch", "lightning", "pytorch_lightning", "sklearn", "scipy", "matplotlib", "mlflow", "pandas"}


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("ssad", set()),
        ("ssad.bundle", set()),
        ("ssad.bundle.pyfunc", {"pandas"}),
        ("serving.app", set()),
        ("serving.main", set()),
    ],
)
def test_importing_it_loads_nothing_of_training(module: str, needed: set[str]) -> None:
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = run_python("-c", program, cwd=PROJECT, env=environment(""))
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & HEAVY == needed


@pytest.mark.parametrize("module", ["ssad.bundle.pyfunc", "serving.app", "ssad.detectors"])
def test_onnxruntime_tells_nobody_of_what_it_runs(module: str, tmp_path: Path) -> None:
    settings = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    program = f"import {module}, onnxruntime"
    done = run_python("-c", program, cwd=PROJECT, env=settings | {"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob(".onnxruntime"))  # where it keeps the machine's id, and what it could not send yet
