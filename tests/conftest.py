"""What every test starts from: fixed seeds, no environment of the user's, quiet libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch

PROJECT = Path(__file__).parents[1]
SHARED_DATA = PROJECT.parent / "shared" / "data"

torch.set_num_threads(1)  # small networks: threads cost more than they give, and tests share the machine


@pytest.fixture(autouse=True)
def seeded() -> None:
    L.seed_everything(0, verbose=False)


@pytest.fixture(scope="session", autouse=True)
def serving_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Services keep nothing in the user's cache, and end at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSAD_SERVE_CACHE", str(tmp_path_factory.mktemp("serving-cache")))
        patch.setenv("SSAD_SERVE_DRAIN_SECONDS", "0")
        yield


@pytest.fixture
def blobs() -> pd.DataFrame:
    """Rows of two numeric columns and a categorical one; the last tenth are far away. Unlabelled."""
    generator = np.random.default_rng(0)
    near, far = generator.normal(0, 1, (270, 2)), generator.normal(0, 8, (30, 2))
    table = pd.DataFrame(np.vstack([near, far]), columns=["x", "y"])
    return table.assign(kind=np.where(generator.random(300) < 0.5, "a", "b"))


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh SQLite store with its artifacts beside it, as the default of this process."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type] # back to the default, which its types forget


CommandLine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    """Run `ssad ...` in a process of its own, in an empty folder with a store of its own."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        defaults = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-m", "ssad.cli", *arguments],
            cwd=tmp_path,
            env=os.environ | defaults | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run
