"""What scoring loads, and what it must not."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRAINING = ["torch", "lightning", "pytorch_lightning", "sklearn", "matplotlib"]


def loaded(module: str) -> set[str]:
    """Top-level modules loaded by importing `module` in a fresh process."""
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("ssad.bundle", [*TRAINING, "pandas", "mlflow"]), ("serving.app", TRAINING), ("ssad", TRAINING)],
)
def test_importing_loads_nothing_of_training(module: str, unwanted: list[str]) -> None:
    assert loaded(module).isdisjoint(unwanted)
