"""What every test starts from: fixed seeds, no environment of the user's, quiet libraries."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.back_ends import BACK_END, BACK_ENDS, BackEnd
from tests.ssad.workflows.support import Store, environment, made_once, run_python

PROJECT = Path(__file__).parents[1]
SHARED_DATA = PROJECT.parent / "shared" / "data"

SLOW_UNTIL = float(os.environ.get("SSAD_TEST_SLOW_UNTIL", math.inf))
"""Seconds since the epoch after which no slow test begins: CI has a limit, and machines differ by a factor of three."""

torch.set_num_threads(1)  # small networks: threads cost more than they give, and tests share the machine

# However long an example takes on a busy machine. Every run tries the same ones; `--hypothesis-profile new` others.
settings.register_profile("new", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("new"), derandomize=True)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    if BACK_END == "postgresql":
        for warning in (
            # MLflow's clients and boto3 leave sockets to the end of the process.
            "ignore::ResourceWarning",
            "ignore::pytest.PytestUnraisableExceptionWarning",
            # The embedded PostgreSQL asks for a folder of the desktop's session.
            "ignore:XDG_RUNTIME_DIR is not set",
        ):
            config.addinivalue_line("filterwarnings", warning)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several workers share the files, long ones come first: none is left alone with one at the end."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if item.get_closest_marker("slow") or "back_end" in fixtures(item)}
        items.sort(key=lambda item: item.path not in long)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and time.time() > SLOW_UNTIL:
        pytest.skip("the time for slow tests is over on this machine, see SSAD_TEST_SLOW_UNTIL")


def fixtures(item: pytest.Item) -> list[str]:
    return list(getattr(item, "fixturenames", []))


@pytest.fixture(autouse=True)
def seeded() -> None:
    L.seed_everything(0, verbose=False)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """As a terminal gives them: one that a test's command, or who began the tests, ignores is so in every process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    unraised = sys.unraisablehook  # a command's takes the place of pytest's
    yield
    sys.unraisablehook = unraised


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that this process's temporary files go to."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A folder on a disk of its own, of so many bytes as `mount` has it; the test is skipped where none can be."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk with room for next to nothing."""
    with small_disk(tmp_path, "4k") as disk:
        yield disk


@pytest.fixture(scope="session", autouse=True)
def serving_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Services keep nothing in the user's cache, and end at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSAD_SERVE_CACHE", str(tmp_path_factory.mktemp("serving-cache")))
        patch.setenv("SSAD_SERVE_DRAIN_SECONDS", "0")
        yield


@pytest.fixture(scope="session")
def blobs() -> pd.DataFrame:
    """Rows of two numeric columns and a categorical one; the last tenth are far away. Unlabelled."""
    generator = np.random.default_rng(0)
    near, far = generator.normal(0, 1, (270, 2)), generator.normal(0, 8, (30, 2))
    table = pd.DataFrame(np.vstack([near, far]), columns=["x", "y"])
    return table.assign(kind=np.where(generator.random(300) < 0.5, "a", "b"))


def small_table() -> pd.DataFrame:
    """Numbers and words, 200 rows of which 20 are anomalies far from the others, labelled."""
    generator = np.random.default_rng(0)
    anomalous = np.arange(200) % 10 == 9
    table = pd.DataFrame(
        np.where(anomalous[:, None], generator.normal(0, 9, (200, 3)), generator.normal(0, 1, (200, 3))),
        columns=["x", "y", "z"],
    )
    return table.assign(kind=generator.choice(["a", "b"], 200), label=np.where(anomalous, "attack", "normal"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.csv"
    small_table().to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def back_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackEnd]:
    """Where runs, versions and artifacts are kept."""
    with ExitStack() as stack:
        yield BACK_ENDS[BACK_END](tmp_path_factory.mktemp("back-end"), stack)


@contextmanager
def default_store(uri: str) -> Iterator[str]:
    """A store that is this process's default meanwhile."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        yield uri
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type] # back to the default, which its types forget


@pytest.fixture
def tracking(back_end: BackEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh store, as the default of this process, which is in an empty folder."""
    monkeypatch.chdir(tmp_path)
    with default_store(back_end.own(tmp_path)) as uri:
        yield uri


@pytest.fixture(scope="session")
def store(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store filled by one `train` of the command line."""

    def make(folder: Path) -> str:
        arguments = ("-m", "ssad.cli", "train", "--dataset", "breast-cancer", "--max-epochs", "3")
        done = run_python(*arguments, cwd=folder, env=environment(back_end.shared(folder)))
        assert done.returncode == 0, done.stderr
        return done.stdout

    folder, output = made_once(tmp_path_factory, "breast-cancer", make)
    return Store(folder, back_end.shared(folder), output)


CommandLine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command_line(tracking: str, tmp_path: Path) -> CommandLine:
    """Run `ssad ...` in a process of its own, in an empty folder with a store of its own."""

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return run_python("-m", "ssad.cli", *arguments, cwd=tmp_path, env=environment(tracking, **more))

    return run
