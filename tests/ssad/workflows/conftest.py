"""What reads the store of the session's training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ssad.bundle import Bundle
from ssad.workflows.registry import fetch_model
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
def champion(own_store: MlflowClient, tmp_path: Path) -> Bundle:
    """What is served from that copy."""
    return fetch_model("models:/ssad@champion", tmp_path / "champion").bundle


@pytest.fixture
def first_run(client: MlflowClient) -> Run:
    (run,) = client.search_runs(["0"])
    return run
