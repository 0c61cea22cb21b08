"""A real service over a model with columns of every kind, for the whole session."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow.artifacts import download_artifacts

from ssad.bundle import Bundle
from ssad.detectors import FitSettings, fit_detector
from tests.back_ends import BackEnd
from tests.conftest import default_store
from tests.serving.support import DAMAGES, GOOD, SECONDS, Registry, Running, running_service
from tests.ssad.workflows.support import environment, free_port, made_once, real_server, run_python

KINDS = {"amount": "numeric", "count": "numeric", "paid": "boolean", "day": "date", "kind": "categorical"}


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        client: a client with its address.
        bundle: what it serves.
        rows: rows as JSON has them.
        pid: its process.
    """

    client: httpx.Client
    bundle: Bundle
    rows: list[dict[str, Any]]
    pid: int

    def score(self, document: Any) -> httpx.Response:
        return self.client.post("/v1/score", json=document)

    def invoke(self, document: Any) -> httpx.Response:
        return self.client.post("/invocations", json=document)


def mixed_table() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    days = pd.Timestamp("2025-01-01") + pd.to_timedelta(generator.integers(0, 300, 250), unit="D")
    table = pd.DataFrame(
        {
            "amount": generator.normal(50, 10, 250).round(3),
            "count": generator.poisson(4, 250),
            "paid": generator.random(250) < 0.7,
            "day": days.strftime("%Y-%m-%d"),
            "kind": generator.choice(["card", "cash", "transfer"], 250),
        }
    )
    table["amount"] = table["amount"].mask(generator.random(250) < 0.1)
    return table


@pytest.fixture(scope="session")
def service(
    back_end: BackEnd, rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    def make(folder: Path) -> str:
        mixed_table().to_csv(folder / "payments.csv", index=False)
        uri = back_end.shared(folder)
        arguments = ("train", "--dataset", "payments.csv", "--max-epochs", "2", "--model-name", "payments")
        trained = run_python("-m", "ssad.cli", *arguments, cwd=folder, env=environment(uri))
        assert trained.returncode == 0, trained.stderr
        with warnings.catch_warnings(), default_store(uri):
            warnings.simplefilter("ignore")  # of MLflow about what it uses itself
            return str(download_artifacts("models:/payments@champion", dst_path=str(folder / "model")))

    shared, model = made_once(tmp_path_factory, "payments", make)
    env, folder = environment(back_end.shared(shared)), tmp_path_factory.mktemp("service")
    port = free_port()
    command = [sys.executable, "-m", "ssad.cli", "serve", "--model", "models:/payments@champion", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with (
        real_server(command, f"{url}/health", folder, env) as process,
        httpx.Client(base_url=url, timeout=SECONDS) as client,
    ):
        yield Service(client, Bundle(Path(model) / "data" / "bundle"), rows, process.pid)


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """Rows of the table, as JSON has them."""
    table = mixed_table().head(20).astype(object)
    # pandas types keys as anything that has a hash
    records: list[dict[str, Any]] = table.where(table.notna(), None).to_dict("records")  # type: ignore[assignment]
    return records


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with columns of every kind."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning about small trainings
        fit_detector(mixed_table(), FitSettings("radon", 1)).write_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def registry(back_end: BackEnd, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A real registry with two good versions, which differ in their intervals, and damaged ones."""
    registry = Registry(back_end, tmp_path_factory.mktemp("registry"), free_port())
    with registry.running():
        registry.fill(bundle_folder, GOOD | DAMAGES)
        registry.promote("first")
        yield registry


@pytest.fixture(scope="module")  # it asks the registry five times a second for as long as it lives
def following(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that follows the registry."""
    with running_service(registry.uri, tmp_path_factory.mktemp("following")) as running:
        yield running
