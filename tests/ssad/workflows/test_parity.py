"""One bundle, the same scores wherever it is asked."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from ssad.bundle import Bundle
from ssad.detectors import FitSettings, FittedDetector, fit_detector
from ssad.workflows.train import TrainSettings, prepare
from tests.ssad.workflows.support import (
    PROCESS_SECONDS,
    QUIET_SPARK,
    Store,
    environment,
    free_port,
    real_server,
    run_python,
)

pytestmark = QUIET_SPARK

CHAMPION = "models:/ssad@champion"


@pytest.fixture(scope="session")
def refitted() -> FittedDetector:
    """The detector of the session's store, trained again in this process: same settings, same seed."""
    settings = TrainSettings("breast-cancer", fit=FitSettings(max_epochs=3))
    return fit_detector(prepare(settings).train, settings.fit)


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    test = prepare(TrainSettings("breast-cancer")).test
    assert test is not None
    return test.frame()


@pytest.fixture
def bundle(client: MlflowClient, tmp_path: Path) -> Bundle:
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=CHAMPION, dst_path=str(tmp_path)))
    return Bundle(folder / "data" / "bundle")


@pytest.fixture
def expected(refitted: FittedDetector, rows: pd.DataFrame) -> pd.DataFrame:
    scores = refitted.score(rows)
    curve = refitted.curve
    return pd.DataFrame(
        {"score": scores, "confidence": curve(scores), "region": curve.thresholds.regions(scores).tolist()}
    )


def assert_same(found: Any, expected: pd.DataFrame) -> None:
    table = pd.DataFrame(found)
    assert list(table) == ["score", "confidence", "region"]
    assert table["score"].to_numpy() == pytest.approx(expected["score"].to_numpy(), rel=1e-5)
    assert table["confidence"].to_numpy() == pytest.approx(expected["confidence"].to_numpy(), abs=1e-4)
    assert table["region"].tolist() == expected["region"].tolist()


def test_two_processes_train_the_same_bundle(refitted: FittedDetector, bundle: Bundle, tmp_path: Path) -> None:
    refitted.write_bundle(tmp_path / "again")
    for path in sorted(bundle.path.iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_the_bundle_scores_as_the_network(bundle: Bundle, rows: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert_same(bundle.score(rows).columns(), expected)


def test_the_module_scores_encoded_rows_as_the_network(
    refitted: FittedDetector, rows: pd.DataFrame, expected: pd.DataFrame
) -> None:
    features = refitted.encoder.encode(refitted.schema.inputs(rows))
    assert refitted.module.score_rows([features]).numpy() == pytest.approx(expected["score"].to_numpy(), rel=1e-5)
    single = refitted.module.eval().score(features.float()).detach().numpy()
    assert single == pytest.approx(expected["score"].to_numpy(), rel=1e-3)  # in the precision it was trained in


def test_the_pyfunc_scores_as_the_network(client: MlflowClient, rows: pd.DataFrame, expected: pd.DataFrame) -> None:
    model = mlflow.pyfunc.load_model(CHAMPION)
    assert_same(model.predict(rows), expected)
    shuffled = rows.sample(frac=1, random_state=0)
    assert_same(model.predict(shuffled[shuffled.columns[::-1]]).sort_index(), expected)


# A model in a store of files is imported where it lies, and Python would leave compiled files beside it.
LEAVE_THE_STORE_ALONE = {"PYTHONDONTWRITEBYTECODE": "1"}

LOAD_ALONE = """
import importlib.abc, json, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "lightning", "sklearn", "safetensors", "onnx"):
            raise ImportError(f"{name} is not installed here")

project = sys.argv[2]
# Neither the installed package nor its folder: what is left is the code that was logged with the model.
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.path = [p for p in sys.path if p and p != project and "editable" not in p]
sys.meta_path.insert(0, Refuse())
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/ssad@champion")
print(model.predict(pandas.read_json(sys.argv[1])).to_json(orient="records"))
import ssad
print(json.dumps({"ssad": ssad.__file__, "torch": "torch" in sys.modules}))
"""


@pytest.mark.slow
def test_the_pyfunc_scores_where_neither_torch_nor_this_package_is(
    store: Store, rows: pd.DataFrame, expected: pd.DataFrame, tmp_path: Path
) -> None:
    from tests.conftest import PROJECT

    rows.to_json(tmp_path / "rows.json", orient="records", double_precision=15)
    env = environment(store.uri, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false", **LEAVE_THE_STORE_ALONE)
    arguments = ("-W", "ignore", "-c", LOAD_ALONE, str(tmp_path / "rows.json"), str(PROJECT))
    done = run_python(*arguments, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    answered, found = map(json.loads, done.stdout.splitlines()[-2:])
    assert_same(answered, expected)
    assert not found["torch"]
    assert not found["ssad"].startswith(str(PROJECT / "ssad"))


@pytest.fixture(scope="module")
def mlflow_server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", CHAMPION, "--env-manager", "local"]
    command += ["-p", str(port), "--host", "127.0.0.1"]
    url = f"http://127.0.0.1:{port}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = environment(store.uri, PATH=path, **LEAVE_THE_STORE_ALONE)
    with real_server(command, f"{url}/ping", tmp_path_factory.mktemp("models-serve"), env):
        yield url


@pytest.mark.slow
def test_mlflows_own_server_scores_as_the_network(
    mlflow_server: str, rows: pd.DataFrame, expected: pd.DataFrame
) -> None:
    content = {"dataframe_split": json.loads(rows.to_json(orient="split", double_precision=15))}
    answer = httpx.post(f"{mlflow_server}/invocations", json=content, timeout=PROCESS_SECONDS)
    assert answer.status_code == 200, answer.text
    assert_same(answer.json()["predictions"], expected)


@pytest.mark.slow
def test_mlflows_own_server_tells_what_the_model_refuses(mlflow_server: str, rows: pd.DataFrame) -> None:
    content = {"dataframe_records": rows.head(1).to_dict("records"), "params": {"explain": -1}}
    answer = httpx.post(f"{mlflow_server}/invocations", json=content, timeout=PROCESS_SECONDS)
    assert answer.status_code == 400
    assert "explain must be a whole number from 0, got -1." in answer.json()["message"]


@pytest.fixture(scope="module")
def service(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "ssad.cli", "serve", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with real_server(command, f"{url}/health", tmp_path_factory.mktemp("serve"), environment(store.uri)):
        yield url


@pytest.mark.slow
def test_the_service_scores_as_the_network(service: str, rows: pd.DataFrame, expected: pd.DataFrame) -> None:
    answer = httpx.post(f"{service}/v1/score", json={"records": rows.to_dict("records")}, timeout=PROCESS_SECONDS)
    assert answer.status_code == 200, answer.text
    assert_same(answer.json()["predictions"], expected)
    assert answer.json()["model"] == {"name": "ssad", "version": "1"}


@pytest.mark.slow
def test_the_service_answers_invocations_as_the_network(
    service: str, rows: pd.DataFrame, expected: pd.DataFrame
) -> None:
    text = io.StringIO()
    rows.to_csv(text, index=False)
    split = {"dataframe_split": {"columns": list(rows), "data": rows.to_numpy().tolist()}}
    as_json = httpx.post(f"{service}/invocations", json=split, timeout=PROCESS_SECONDS)
    as_csv = httpx.post(
        f"{service}/invocations", content=text.getvalue(), headers={"Content-Type": "text/csv"}, timeout=PROCESS_SECONDS
    )
    for answer in (as_json, as_csv):
        assert answer.status_code == 200, answer.text
        assert_same(answer.json()["predictions"], expected)


@pytest.mark.slow
def test_the_service_explains_as_mlflows_own_server_does(mlflow_server: str, service: str, rows: pd.DataFrame) -> None:
    content = {"dataframe_records": rows.head(9).to_dict("records"), "params": {"explain": 2}}
    found, wanted = (
        pd.DataFrame(httpx.post(f"{url}/invocations", json=content, timeout=PROCESS_SECONDS).json()["predictions"])
        for url in (service, mlflow_server)
    )
    assert list(found) == list(wanted)
    assert found["contributors"].tolist() == wanted["contributors"].tolist()
    shares = np.asarray([*wanted["contributor_shares"]])
    assert np.asarray([*found["contributor_shares"]]) == pytest.approx(shares, rel=1e-5)
