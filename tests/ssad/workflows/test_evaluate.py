"""What an evaluation measures, and where it leaves that."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn import metrics as sk

from ssad import AnomalyDetector, cli
from ssad.bundle import Bundle
from ssad.datasets.stream import open_stream
from ssad.datasets.tables import read_table
from ssad.errors import BundleError, DatasetError, SsadError, TrackingError
from ssad.workflows.evaluate import (
    EvaluateResult,
    EvaluateSettings,
    decided_error,
    evaluate,
    metric_names,
    most_abnormal,
)
from ssad.workflows.registry import fetch_model
from ssad.workflows.scored_table import ScoredTable
from ssad.workflows.train import TrainSettings, prepare
from tests.conftest import default_store
from tests.ssad.workflows.support import QUIET_LIBRARIES, file_server, permission_denied

pytestmark = [*QUIET_LIBRARIES, pytest.mark.filterwarnings("ignore::ResourceWarning")]

CHAMPION = "models:/ssad@champion"


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    """Breast cancer with anomalies of two classes."""
    table = read_table("breast-cancer")
    malignant = table["label"] == "malignant"
    halves = np.where(malignant.cumsum() % 2, "large/grown", "small")
    table.assign(label=table["label"].mask(malignant, halves)).to_csv(tmp_path / "labelled.csv", index=False)
    return str(tmp_path / "labelled.csv")


def artifact(own_store: MlflowClient, result: EvaluateResult, name: str, tmp_path: Path) -> Any:
    return json.loads(Path(own_store.download_artifacts(result.run_id, name, str(tmp_path))).read_text())


def test_a_labelled_table_is_measured_and_the_metrics_are_at_the_model_too(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    result = evaluate(EvaluateSettings(CHAMPION, labelled))
    table = pd.read_csv(labelled)
    labels, scores = (table["label"] != "benign").astype(int), champion.score(table)
    expected = {
        "auc": sk.roc_auc_score(labels, scores.score),
        "ap": sk.average_precision_score(labels, scores.score),
        "at_normal/recall": sk.recall_score(labels, scores.region != "normal"),
        "at_abnormal/f1": sk.f1_score(labels, scores.region == "abnormal"),
        "at_decision/mcc": sk.matthews_corrcoef(labels, scores.score > champion.curve.decision),
        "recall/small": (scores.score > champion.curve.decision)[table["label"] == "small"].mean(),
        "recall/large_grown": (scores.score > champion.curve.decision)[table["label"] == "large/grown"].mean(),
    }
    run = own_store.get_run(result.run_id)
    logged = {
        metric.key: metric.value for metric in own_store.get_logged_model(run.data.tags["model_id"]).metrics or []
    }
    for name, value in expected.items():
        assert run.data.metrics[name] == pytest.approx(value), name
        assert logged[name] == pytest.approx(value), name
    assert own_store.get_model_version("ssad", "1").tags["evaluated_by"] == result.run_id
    names = {file.path for file in own_store.list_artifacts(result.run_id)}
    curves = {f"{name}.png" for name in ("roc", "precision_recall", "reliability", "risk_coverage", "scores", "drift")}
    assert curves | {"regions.json", "classes.json", "drift.json", "most_abnormal.json"} <= names


def test_who_may_only_read_a_model_evaluates_it_too(
    own_store: MlflowClient,
    champion: Bundle,
    labelled: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_inputs = MlflowClient.log_inputs

    def of_the_run_alone(self: MlflowClient, run_id: str, datasets: Any = None, models: Any = None) -> None:
        if models:
            permission_denied()
        log_inputs(self, run_id, datasets, models)

    monkeypatch.setattr(MlflowClient, "log_inputs", of_the_run_alone)
    monkeypatch.setattr(MlflowClient, "set_model_version_tag", permission_denied)
    result = evaluate(EvaluateSettings(CHAMPION, labelled))
    (told,) = [record.getMessage() for record in caplog.records if record.name.startswith("ssad.workflows")]
    assert re.search(r"results are in this run and not at the logged model \S+ and version 1 of ssad, to which", told)
    run = own_store.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == pytest.approx(result.metrics)
    assert {"auc", "recall/small", "share_normal"} <= result.metrics.keys()
    model = own_store.get_logged_model(run.data.tags["model_id"])
    assert result.run_id not in {metric.run_id for metric in model.metrics or []}


def test_who_may_not_write_to_the_version_alone_is_told_of_that_alone(
    own_store: MlflowClient, labelled: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(MlflowClient, "set_model_version_tag", permission_denied)
    result = evaluate(EvaluateSettings(CHAMPION, labelled))
    (told,) = [record.getMessage() for record in caplog.records if record.name.startswith("ssad.workflows")]
    assert "results are in this run and not at version 1 of ssad, to which" in told
    model = own_store.get_logged_model(own_store.get_run(result.run_id).data.tags["model_id"])
    assert result.run_id in {metric.run_id for metric in model.metrics or []}


def test_the_same_words_are_the_same_whether_the_table_is_text_or_not(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    trained = pd.DataFrame({"x": generator.normal(size=300), "kind": generator.choice(["01", "TRUE", "X9"], 300)})
    trained["release"] = generator.choice(["1.10", "2.0", "2.0rc"], 300)
    trained.to_csv(tmp_path / "trained.csv", index=False)
    later = trained[(trained["kind"] == "01") & (trained["release"] != "2.0rc")].reset_index(drop=True)
    later.to_csv(tmp_path / "later.csv", index=False)
    later.to_csv(tmp_path / "later.csv.xz", index=False)
    later.to_parquet(tmp_path / "later.parquet")
    AnomalyDetector(max_epochs=1).fit(trained).save(tmp_path / "bundle")
    bundle = Bundle(tmp_path / "bundle")
    expected = bundle.score(later).score.tolist()
    for name in ("later.csv", "later.csv.xz", "later.parquet"):
        path = str(tmp_path / name)
        assert ScoredTable.read(bundle, path).scores.score.tolist() == expected
        (batch,) = open_stream(path, bundle.schema).batches()
        assert bundle.score(batch.to_pandas()).score.tolist() == expected
        test = prepare(TrainSettings(str(tmp_path / "trained.csv"), test_dataset=path)).test
        assert test is not None
        assert bundle.score(test.frame()).score.tolist() == expected


def test_label_values_for_a_table_without_labels_are_refused(champion: Bundle, labelled: str, tmp_path: Path) -> None:
    unlabelled = tmp_path / "unlabelled.csv"
    pd.read_csv(labelled).drop(columns="label").to_csv(unlabelled, index=False)
    with pytest.raises(DatasetError, match="normal is 'ok', but there is no label column 'label'"):
        ScoredTable.read(champion, str(unlabelled), normal="ok")


def test_the_region_table_adds_up(own_store: MlflowClient, champion: Bundle, labelled: str) -> None:
    result = evaluate(EvaluateSettings(CHAMPION, labelled))
    regions, table = result.regions.set_index("region"), ScoredTable.read(champion, labelled)
    assert table.labels is not None
    assert regions["rows"].sum() == len(table.rows)
    assert regions["anomalies"].sum() == table.labels.sum()
    assert regions["share_of_anomalies"].sum() == pytest.approx(1)
    assert regions["error"].isna().tolist() == [False, True, False]  # unknown decides nothing
    wrong = (
        (table.labels[table.scores.region == "normal"]).sum()
        + (1 - table.labels[table.scores.region == "abnormal"]).sum()
    )
    assert result.metrics["decided_error"] == pytest.approx(wrong / (table.scores.region != "unknown").sum())


def test_the_most_abnormal_rows_come_first_with_what_makes_them_so(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    result = evaluate(EvaluateSettings(CHAMPION, labelled))
    shown = pd.DataFrame(**artifact(own_store, result, "most_abnormal.json", tmp_path))
    assert list(shown)[:3] == ["row", "label", "contributors"]  # before the scores, which MLflow's page may cut off
    rows = pd.read_csv(labelled)
    scores, errors = champion.score(rows).score, champion.errors(rows)
    assert shown["score"].tolist() == pytest.approx(sorted(scores, reverse=True)[:20])
    first = int(shown["row"][0])
    assert first == int(scores.argmax())
    assert shown["contributors"][0].startswith(f"{champion.schema.graph_order[int(errors[first].argmax())]}=")
    assert shown["label"].tolist() == rows["label"][shown["row"]].tolist()


def test_what_makes_a_row_abnormal_is_told_as_it_was_written(champion: Bundle, labelled: str, tmp_path: Path) -> None:
    rows = read_table(labelled).drop(columns="label").iloc[:1]
    names = champion.schema.graph_order
    for value, told in ((2.482 * 25, "62.05"), (np.nan, "missing"), (10**15, str(10**15))):
        rows.assign(**dict.fromkeys(names, value)).to_parquet(tmp_path / "row.parquet")
        shown = most_abnormal(ScoredTable.read(champion, str(tmp_path / "row.parquet")), champion)
        assert all(f"={told} (" in entry for entry in shown["contributors"][0].split(", "))


def test_a_table_without_labels_is_compared_with_training(
    own_store: MlflowClient, labelled: str, tmp_path: Path
) -> None:
    table = pd.read_csv(labelled).drop(columns="label")
    table["mean radius"] *= 3
    table.to_csv(tmp_path / "moved.csv", index=False)
    result = evaluate(EvaluateSettings(CHAMPION, str(tmp_path / "moved.csv")))
    moved = pd.DataFrame(**artifact(own_store, result, "drift.json", tmp_path))
    assert moved["column"][0] == "mean radius"
    assert result.metrics["max_column_psi"] == pytest.approx(moved["psi"][0])
    assert moved["psi"][0] > 1 > moved["psi"][5]
    assert result.metrics["score_psi"] > 0.25
    assert "auc" not in own_store.get_run(result.run_id).data.metrics
    assert sum(result.metrics[f"share_{region}"] for region in ("normal", "unknown", "abnormal")) == pytest.approx(1)


def test_normal_rows_alone_have_no_ranking_and_nothing_that_is_of_anomalies(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    table = pd.read_csv(labelled)
    benign = table[table["label"] == "benign"]
    benign.to_csv(tmp_path / "benign.csv", index=False)
    result = evaluate(EvaluateSettings(CHAMPION, str(tmp_path / "benign.csv")))
    called = champion.score(benign).region == "abnormal"
    assert result.metrics["at_abnormal/accuracy"] == pytest.approx(1 - called.mean())
    assert not [name for name in result.metrics if name in ("auc", "ap") or name.endswith(("/recall", "/f1", "/mcc"))]
    assert result.regions["anomalies"].sum() == 0
    assert result.regions["share_of_anomalies"].isna().all()


def test_an_empty_region_has_no_error(own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path) -> None:
    table = pd.read_csv(labelled)
    table[champion.score(table).region != "abnormal"].to_csv(tmp_path / "quiet.csv", index=False)
    result = evaluate(EvaluateSettings(CHAMPION, str(tmp_path / "quiet.csv")))
    regions = pd.DataFrame(**artifact(own_store, result, "regions.json", tmp_path)).set_index("region")
    assert regions["rows"]["abnormal"] == 0
    assert np.isnan(regions["error"]["abnormal"])
    assert result.metrics["decided_error"] == pytest.approx(regions["error"]["normal"])


def test_anomalies_alone_have_a_recall(own_store: MlflowClient, labelled: str, tmp_path: Path) -> None:
    table = pd.read_csv(labelled)
    table[table["label"] != "benign"].assign(label=1).to_csv(tmp_path / "anomalies.csv", index=False)
    result = evaluate(EvaluateSettings(CHAMPION, str(tmp_path / "anomalies.csv")))
    assert "auc" not in result.metrics
    assert 0 < result.metrics["at_decision/recall"] <= 1
    assert result.regions["share_of_anomalies"].sum() == pytest.approx(1)


def test_latest_is_the_newest_version(own_store: MlflowClient, labelled: str) -> None:
    assert evaluate(EvaluateSettings("models:/ssad/latest", labelled)).model == "models:/ssad/1"
    with pytest.raises(TrackingError, match="models:/other/latest cannot be loaded"):
        evaluate(EvaluateSettings("models:/other/latest", labelled))


def test_a_bundles_folder_and_a_runs_model_are_evaluated_alike(
    own_store: MlflowClient, champion: Bundle, labelled: str
) -> None:
    of_version = evaluate(EvaluateSettings(CHAMPION, labelled)).metrics
    run_id = own_store.get_model_version("ssad", "1").run_id
    for model in (str(champion.path), f"runs:/{run_id}/model"):
        assert evaluate(EvaluateSettings(model, labelled)).metrics == pytest.approx(of_version)


def test_no_secret_of_a_uri_is_printed_or_logged(
    own_store: MlflowClient,
    labelled: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logged = fetch_model(CHAMPION, tmp_path / "logged").logged
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda **_: str(logged))
    with file_server(Path(labelled).parent) as (address, _):
        cli.evaluate(f"{address}/{Path(labelled).name}?X-Signature=s3cret", "http://bob:s3cret@host/model")
    printed = capsys.readouterr().out
    (run,) = own_store.search_runs(["0"], order_by=["start_time DESC"], max_results=1)
    assert f"http://host/model on {address}/{Path(labelled).name}, run " in printed
    assert "s3cret" not in printed + str(run.to_dictionary())


def test_the_command_line_counts_rows_to_the_last(
    own_store: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "many.parquet"
    rows = pd.concat([read_table("breast-cancer").drop(columns="label")] * 40)
    rows.to_parquet(path)
    cli.evaluate(str(path), CHAMPION)
    assert re.search(rf"^rows +{len(rows)}$", capsys.readouterr().out, re.MULTILINE)


def test_a_model_that_another_store_logged_is_evaluated(own_store: MlflowClient, labelled: str, tmp_path: Path) -> None:
    of_version = evaluate(EvaluateSettings(CHAMPION, labelled)).metrics
    logged = mlflow.artifacts.download_artifacts(artifact_uri=CHAMPION, dst_path=str(tmp_path / "logged"))
    with default_store(f"sqlite:///{tmp_path / 'another.db'}"):
        assert evaluate(EvaluateSettings(logged, labelled)).metrics == pytest.approx(of_version)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"dataset": "nothing.csv"}, DatasetError, "there is no file"),
        ({"label": "verdict"}, DatasetError, "'verdict'"),
        ({"normal": "fine"}, DatasetError, "normal="),
        ({"model": "models:/other@champion"}, SsadError, "models:/other@champion"),
    ],
)
def test_a_mistake_is_one_sentence(
    own_store: MlflowClient, labelled: str, change: dict[str, str], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        evaluate(EvaluateSettings(**{"model": CHAMPION, "dataset": labelled} | change))
    run = own_store.search_runs(["0"], order_by=["start_time DESC"], max_results=1)[0]
    assert run.info.status == "FAILED"
    assert sentence in run.data.tags["ssad.error"]


def test_what_is_wrong_with_a_bundle_is_said_by_the_uri_that_was_given(
    own_store: MlflowClient, labelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssad.bundle.bundle.FORMAT_VERSION", 99)
    with pytest.raises(BundleError, match=f"^the bundle {CHAMPION} has format version"):
        evaluate(EvaluateSettings(CHAMPION, labelled))


def test_no_class_is_measured_under_the_name_of_another() -> None:
    assert metric_names(["a/b", "a_b", "a b", "a|b"]) == ["a_b", "a_b 2", "a b", "a_b 3"]
    assert metric_names(["", ".", "..", "a."]) == ["_", "_ 2", "_ 3", "a."]
    one, two = metric_names(["x" * 300 + "1", "x" * 300 + "2"])
    assert one != two
    assert len(f"recall/{two}") < 250


def test_where_nothing_is_decided_there_is_no_error_to_tell() -> None:
    regions = pd.DataFrame({"region": ["normal", "unknown", "abnormal"], "rows": [0, 9, 0], "error": [0.0, 0.0, 0.0]})
    assert np.isnan(decided_error(regions))
