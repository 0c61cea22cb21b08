"""What the service, the bundle and the library itself must not load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert set(done.stdout.split()) & HEAVY == needed


@pytest.mark.parametrize("module", ["ssad.bundle.pyfunc", "serving.app", "ssad.detectors"])
def test_onnxruntime_tells_nobody_of_what_it_runs(module: str, tmp_path: Path) -> None:
    settings = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    program = f"import {module}, onnxruntime"
    subprocess.run([sys.executable, "-c", program], env=settings | {"HOME": str(tmp_path)}, timeout=60, check=True)
    assert not list(tmp_path.rglob(".onnxruntime"))  # where it keeps the machine's id, and what it could not send yet
