"""A registry with versions good and bad, and services that follow it; all are real processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import onnx
import trustme
from mlflow import MlflowClient
from mlflow.models import Model

from ssad.bundle import Bundle
from ssad.bundle.bundle import COLUMNS, GOLDEN, GRAPH, INTERVALS, MANIFEST
from tests.back_ends import BackEnd
from tests.ssad.workflows.support import endless, environment, free_port, real_server, sign, tracking_server

MODEL, ALIAS = "payments", "champion"
SECRET = "shared with the registry"
SECONDS = 300.0
"""Deadline of everything that is waited for."""


def until(happened: Callable[[], Any], what: str) -> Any:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = happened()
        if found:
            return found
        time.sleep(0.02)  # between two looks; the deadline decides
    raise AssertionError(f"never happened: {what}")


@dataclass
class Registry:
    """A real `mlflow server` and what it holds.

    Attributes:
        back_end: its database and artifacts.
        folder: what names them.
        port: where it listens.
        bundles: version -> bundle, of those that are good.
        versions: what each version is for -> its number.
    """

    back_end: BackEnd
    folder: Path
    port: int
    bundles: dict[str, Bundle] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def promote(self, version: str) -> None:
        self.client.set_registered_model_alias(MODEL, ALIAS, self.versions.get(version, version))

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        allowed = {
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "_MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_CACHE_TTL": "0",
        }
        options, more = self.back_end.options(self.folder), allowed | self.back_end.environment
        with tracking_server(self.port, options, self.folder, more) as process:
            yield process

    def fill(self, bundle: Path, edits: dict[str, Callable[[Path], None]]) -> None:
        """Register a version for each edit of a bundle."""
        client = self.client
        client.create_registered_model(MODEL)
        run = client.create_run("0").info.run_id
        client.log_metric(run, "test_auroc", 0.5)
        for purpose, edit in edits.items():
            folder = self.folder / purpose
            shutil.copytree(bundle, folder / "bundle")
            Model().add_flavor("python_function", loader_module="ssad.bundle.pyfunc", data="bundle").save(
                folder / "MLmodel"
            )
            edit(folder / "bundle")
            client.log_artifacts(run, str(folder), purpose)
            version = str(client.create_model_version(MODEL, f"runs:/{run}/{purpose}", run).version)
            self.versions[purpose] = version
            if purpose not in DAMAGES:
                self.bundles[version] = Bundle(folder / "bundle")


def change(folder: Path, name: str, edit: Callable[[Any], None]) -> None:
    """Edit a JSON file of a bundle, and its digest."""
    path = folder / name
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    sign(folder, name)


def other_intervals(folder: Path) -> None:
    """Move both thresholds, as a recalibration does, and all of the confidence with them."""

    def edit(document: Any) -> None:
        for name in document["thresholds"]:
            document["thresholds"][name] = float(document["thresholds"][name]) * 0.7
        for knots in document["confidence"].values():
            knots["score"] = [0.7 * at for at in knots["score"]]

    change(folder, INTERVALS, edit)


def needs_another_column(folder: Path) -> None:
    def edit(document: Any) -> None:
        document["columns"][0]["name"] = "colour"

    change(folder, COLUMNS, edit)
    change(folder, GOLDEN, lambda document: document["rows"].update(colour=document["rows"].pop("amount")))


def shift_golden_scores(document: Any) -> None:
    document["scores"] = [score * 1.01 + 0.01 for score in document["scores"]]


def truncate(folder: Path) -> None:
    path = folder / GRAPH
    path.write_bytes(path.read_bytes()[:1000])


def wrong_digest(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][GRAPH] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(manifest))


def no_end(folder: Path) -> None:
    (folder / GRAPH).write_bytes(endless(onnx.load(folder / GRAPH).graph))
    sign(folder, GRAPH)


def bundle_elsewhere(folder: Path) -> None:
    """The model's description names a good bundle that lies outside of the model."""
    elsewhere = folder.parents[1] / "first" / "bundle"
    Model().add_flavor("python_function", loader_module="ssad.bundle.pyfunc", data=str(elsewhere)).save(
        folder.parent / "MLmodel"
    )


def empty_description(folder: Path) -> None:
    (folder.parent / "MLmodel").write_text("")


GOOD: dict[str, Callable[[Path], None]] = {"first": lambda folder: None, "second": other_intervals}

DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "wrong-digest": wrong_digest,
    "missing-file": lambda folder: (folder / INTERVALS).unlink(),
    "other-columns": needs_another_column,
    "other-scores": lambda folder: change(folder, GOLDEN, shift_golden_scores),
    "no-description": empty_description,
    "no-end": no_end,
    "bundle-elsewhere": bundle_elsewhere,
    "graph-of-another-schema": lambda folder: change(folder, COLUMNS, lambda document: document["columns"].pop()),
}


@dataclass
class Running:
    """A service that follows a registry.

    Attributes:
        client: a client with its address.
        process: its process.
        cache: where it keeps bundles.
    """

    client: httpx.Client
    process: subprocess.Popen[bytes]
    cache: Path

    @property
    def version(self) -> str:
        found: str = self.client.get("/v1/model").json()["version"]
        return found

    @property
    def refused_version(self) -> str | None:
        found: str | None = self.client.get("/readyz").json()["refused_version"]
        return found

    def metric(self, name: str) -> float:
        """The sum of a metric's samples whose name and labels begin so."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def reload(self) -> None:
        assert self.client.post("/admin/reload", headers={"X-API-Key": "admin"}).status_code == 202


def service_environment(uri: str, cache: Path, **more: str) -> dict[str, str]:
    settings = {
        "SSAD_SERVE_CACHE": str(cache),
        "SSAD_SERVE_POLL_SECONDS": "0.2",
        "SSAD_SERVE_DRAIN_SECONDS": "0",
        "SSAD_SERVE_WEBHOOK_SECRET": SECRET,
        "SSAD_SERVE_ADMIN_KEY": "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918",  # of admin
    }
    return environment(uri, **{**settings, **more})


@contextmanager
def running_service(
    uri: str,
    folder: Path,
    wrap: tuple[str, ...] = (),
    program: str = sys.executable,
    scheme: str = "http",
    **more: str,
) -> Iterator[Running]:
    """A real service of `models:/payments@champion`, unless `more` names another model."""
    port, cache = free_port(), folder / "cache"
    more = {"SSAD_SERVE_MODEL": f"models:/{MODEL}@{ALIAS}"} | more
    command = [*wrap, program, "-m", "ssad.cli", "serve", "--port", str(port)]
    url = f"{scheme}://127.0.0.1:{port}"
    with (
        real_server(command, f"{url}/startupz", folder, service_environment(uri, cache, **more)) as process,
        httpx.Client(base_url=url, timeout=SECONDS) as client,
    ):
        yield Running(client, process, cache)


def certificate(folder: Path) -> dict[str, str]:
    """Settings of a certificate for this machine; `authority.pem` in the folder is who issued it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    names = {"CERTIFICATE": "certificate.pem", "KEY": "key.pem"}
    return {f"SSAD_SERVE_TLS_{name}": str(folder / file) for name, file in names.items()}


def children(pid: int) -> list[int]:
    """Processes started by a process."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if Path(f"/proc/{child}").exists()]
