"""One training by the command line for a session, and what reads its store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.ssad.workflows.support import Store, breast_cancer_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return breast_cancer_store(tmp_path_factory.getbasetemp())


@pytest.fixture
def client(store: Store) -> Iterator[MlflowClient]:
    """A client of the session's store, which is this process's default meanwhile."""
    mlflow.set_tracking_uri(store.uri)
    yield MlflowClient(store.uri)
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # how MLflow forgets it


@pytest.fixture
def own_store(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """A client of a copy of the session's store, to change as a test likes."""
    shutil.copy(store.folder / "mlflow.db", tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    yield MlflowClient(uri)
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # how MLflow forgets it


@pytest.fixture
def first_run(client: MlflowClient) -> Run:
    (run,) = client.search_runs(["0"])
    return run


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
