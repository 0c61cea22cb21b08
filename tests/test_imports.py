"""What the service, the bundle and the library itself must not load."""

from __future__ import annotations

import subprocess
import sys

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
