"""What reads the store of the session's training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.back_ends import BackEnd
from tests.conftest import default_store
from tests.ssad.workflows.support import Store


@pytest.fixture
def client(store: Store) -> Iterator[MlflowClient]:
    """A client of the session's store, which is this process's default meanwhile."""
    with default_store(store.uri):
        yield MlflowClient(store.uri)


@pytest.fixture
def own_store(back_end: BackEnd, store: Store, tmp_path: Path) -> Iterator[MlflowClient]:
    """A client of a copy of the session's store, to change as a test likes."""
    with default_store(back_end.own(tmp_path, store.folder)) as uri:
        yield MlflowClient(uri)


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
