"""`mlflow run` and `mlflow server`, as users start them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from ssad.datasets.tables import read_table
from tests.back_ends import BackEnd
from tests.conftest import PROJECT
from tests.ssad.workflows.support import (
    QUIET_LIBRARIES,
    environment,
    free_port,
    real_server,
    run_python,
    tracking_server,
)

pytestmark = [*QUIET_LIBRARIES, pytest.mark.slow]

BIN = str(Path(sys.executable).parent)


def visible_names(folder: Path) -> list[str]:
    """What lies in a folder, without what tools that run beside make: caches, and the site in `build`."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name != "build")


def test_mlflow_run_trains_in_the_run_that_it_opened_on_a_server_from_which_it_is_served(
    back_end: BackEnd, small: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with tracking_server(port, back_end.options(folder), folder, back_end.environment):
        client = MlflowClient(uri)
        experiment = client.create_experiment("projects")
        before = visible_names(PROJECT)
        arguments = ["-m", "mlflow", "run", ".", "--env-manager", "local", "--experiment-name", "projects"]
        arguments += ["--run-name", "by hand", "-P", f"dataset={small}", "-P", "max_epochs=2", "-P", "detector=radon"]
        done = run_python(*arguments, cwd=PROJECT, env=environment(uri, PATH=f"{BIN}:{os.environ['PATH']}"))
        assert done.returncode == 0, done.stderr

        (run,) = client.search_runs([experiment])
        assert run.info.status == "FINISHED"
        assert run.info.run_name == "by hand"
        assert run.data.params["dataset"] == str(small)
        assert run.data.params["detector"] == "radon"
        assert run.data.params["plan.max_epochs"] == "2"
        assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 2
        assert "test_auc" in run.data.metrics
        assert "test_roc.png" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        version = client.get_model_version_by_alias("ssad", "champion")
        assert (str(version.version), version.run_id) == ("1", run.info.run_id)
        assert client.search_runs(["0"]) == []
        assert "ssad version 1" in done.stdout
        assert "mlflow run . --env-manager local -e serve" in done.stdout
        assert visible_names(PROJECT) == before

        service = free_port()
        serve = [sys.executable, "-m", "ssad.cli", "serve", "--port", str(service)]
        with real_server(serve, f"http://127.0.0.1:{service}/health", tmp_path, environment(uri)):
            pass
    assert not (tmp_path / "mlruns").exists()
    assert len(pd.read_csv(small)) == 200


def test_an_entry_point_passes_on_true_nothing_and_what_a_shell_would_read_as_a_pattern(
    own_store: MlflowClient, tmp_path: Path
) -> None:
    uri = own_store._tracking_client.tracking_uri
    recent = read_table("breast-cancer").drop(columns="label").sample(400, replace=True, random_state=0)
    recent.to_csv(tmp_path / "recent.csv", index=False)
    steps: dict[str, dict[str, object]] = {
        "recalibrate": {"dataset": tmp_path / "recent.csv", "force": "true"},
        "score": {"dataset": tmp_path / "recent.csv", "output": tmp_path / "scores"},  # on "local[*]", keeping ""
    }
    for entry_point, parameters in steps.items():
        arguments = ["-m", "mlflow", "run", str(PROJECT), "--env-manager", "local", "-e", entry_point]
        for name, value in parameters.items():
            arguments += ["-P", f"{name}={value}"]
        done = run_python(*arguments, cwd=tmp_path, env=environment(uri, PATH=f"{BIN}:{os.environ['PATH']}"))
        assert done.returncode == 0, f"{entry_point}: {done.stderr}"
        (run,) = own_store.search_runs(["0"], order_by=["start_time DESC"], max_results=1)
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.project.entryPoint"] == entry_point
    assert len(pd.read_parquet(tmp_path / "scores")) == 400
    assert str(own_store.get_model_version_by_alias("ssad", "challenger").version) == "2"


def test_mlflow_run_of_a_mistake_fails_its_run_and_says_one_sentence(tracking: str, tmp_path: Path) -> None:
    arguments = ["-m", "mlflow", "run", str(PROJECT), "--env-manager", "local", "-P", "dataset=nothing.csv"]
    done = run_python(*arguments, cwd=tmp_path, env=environment(tracking, PATH=f"{BIN}:{os.environ['PATH']}"))
    assert done.returncode != 0
    assert "ssad: there is no file" in done.stderr
    (run,) = MlflowClient(tracking).search_runs(["0"])
    assert run.info.status == "FAILED"
