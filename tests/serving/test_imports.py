"""What the service and the bundle must not load."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.ssad.workflows.support import environment, run_python


@pytest.mark.parametrize("module", ["serving.app", "serving.main", "ssad.bundle", "ssad.bundle.pyfunc", "ssad"])
def test_importing_it_loads_neither_torch_nor_lightning(module: str, tmp_path: Path) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    done = run_python("-c", code, cwd=tmp_path, env=environment("sqlite:///unused.db"))
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"torch", "lightning", "sklearn", "matplotlib", "mlflow", "scipy"}
    assert module.partition(".")[0] in loaded
    assert sys.executable
