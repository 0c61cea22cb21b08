"""What one training by the command line leaves in the store, and what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ssad.bundle import Bundle
from ssad.detectors import FitSettings
from ssad.workflows.summary import next_step, show
from ssad.workflows.train import TrainSettings, prepare, train
from tests.conftest import small_table
from tests.ssad.workflows.support import QUIET_LIBRARIES, Store, file_server

pytestmark = QUIET_LIBRARIES


def test_training_leaves_one_finished_run(first_run: Run) -> None:
    assert first_run.info.status == "FINISHED"
    assert first_run.info.end_time >= first_run.info.start_time


def test_the_run_has_every_parameter_and_what_was_decided(first_run: Run) -> None:
    params = first_run.data.params
    assert params["dataset"] == "breast-cancer"
    assert params["detector"] == "ssad"
    assert params["max_epochs"] == "3"
    assert params["contamination"] == "auto"
    assert params["plan.max_epochs"] == "3"
    assert int(params["plan.batch_size"]) > 0
    assert float(params["plan.learning_rate"]) > 0


def test_the_run_has_the_loss_of_every_epoch_at_its_epoch(client: MlflowClient, first_run: Run) -> None:
    history = client.get_metric_history(first_run.info.run_id, "train_loss")
    assert all(np.isfinite(point.value) for point in history)
    assert [point.step for point in history] == [0, 1, 2]
    assert "epoch" not in first_run.data.metrics


def test_the_run_counts_the_rows_of_each_region(client: MlflowClient, first_run: Run) -> None:
    metrics = first_run.data.metrics
    rows = [metrics[f"rows_{region}"] for region in ("normal", "unknown", "abnormal")]
    assert sum(rows) == 277
    assert metrics["threshold_normal"] <= metrics["threshold_abnormal"]
    last = client.get_metric_history(first_run.info.run_id, "rows_normal")[-1]
    assert last.step == 2


def test_the_run_has_the_test_metrics(first_run: Run) -> None:
    metrics = first_run.data.metrics
    assert {"test_auc", "test_ap", "test_f1", "test_precision", "test_recall"} <= set(metrics)
    assert 0.8 < metrics["test_auc"] <= 1


def test_the_run_has_system_metrics(first_run: Run) -> None:
    assert {"cpu_percent", "ram_percent", "ram_process_mib"} <= set(first_run.data.metrics)
    assert any(name.startswith("system/") for name in first_run.data.metrics)


@pytest.mark.every_back_end
def test_the_run_has_the_artifacts_under_their_names(client: MlflowClient, first_run: Run) -> None:
    names = {artifact.path for artifact in client.list_artifacts(first_run.info.run_id)}
    for epoch in (1, 2):
        assert f"confidence_epoch_{epoch}.csv" in names
        assert f"confidence_intervals_epoch_{epoch}.json" in names
        assert f"confidence_analysis_epoch_{epoch}.svg" in names
    figures = {"region_shares.svg", "score_distribution.svg", "confidence_before_after.svg"}
    assert figures | {"test_risk_coverage.png", "test_reliability.png", "report.html"} <= names
    assert {"test_roc.png", "test_pr.png"} <= names
    assert len([name for name in names if re.fullmatch(r"test_metrics_threshold=.*\.json", name)]) == 3


def test_the_run_names_both_data_sets_with_their_digests(first_run: Run) -> None:
    assert first_run.inputs is not None
    inputs = first_run.inputs.dataset_inputs
    contexts = {tag.value: entry.dataset for entry in inputs for tag in entry.tags if tag.key == "mlflow.data.context"}
    assert set(contexts) == {"training", "test"}
    assert {dataset.name for dataset in contexts.values()} == {"breast-cancer"}
    assert contexts["training"].digest != contexts["test"].digest
    assert all(dataset.digest for dataset in contexts.values())


def test_the_first_version_is_champion_and_challenger(client: MlflowClient, first_run: Run) -> None:
    (version,) = client.search_model_versions("name='ssad'")
    assert str(version.version) == "1"
    assert version.run_id == first_run.info.run_id
    for alias in ("champion", "challenger"):
        assert str(client.get_model_version_by_alias("ssad", alias).version) == "1"


@pytest.mark.every_back_end
def test_the_logged_model_holds_plain_files_alone(client: MlflowClient, store: Store, tmp_path: Path) -> None:
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri="models:/ssad@champion", dst_path=str(tmp_path)))
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".pt", ".pth", ".joblib", ".pyc"}
    assert (folder / "data" / "bundle" / "manifest.json").is_file()
    assert "torch" not in (folder / "requirements.txt").read_text()
    assert (folder / "input_example.json").is_file()
    for path in (folder / "data").rglob("*"):
        assert not path.is_file() or str(store.folder).encode() not in path.read_bytes()


def test_the_signature_names_the_columns_and_the_three_answers(client: MlflowClient) -> None:
    from mlflow.models import get_model_info

    signature = get_model_info("models:/ssad@champion").signature
    assert len(signature.inputs.input_names()) == 30
    assert "label" not in signature.inputs.input_names()
    assert signature.outputs.input_names() == ["score", "confidence", "region"]


def test_the_summary_says_what_a_person_wants_to_know(store: Store, first_run: Run) -> None:
    for pattern in (
        r"data set\s+breast-cancer",
        r"training rows\s+277",
        r"features\s+30 from 30 columns",
        r"regions\s+normal [\d.]+%, unknown [\d.]+%, abnormal [\d.]+%",
        r"thresholds\s+normal up to [\d.]+, abnormal from [\d.]+",
        rf"AUROC {first_run.data.metrics['test_auc']:.3f}, average precision",
        r"F1 [\d.]+",
        rf"run\s+{first_run.info.run_id}",
        r"model\s+ssad version 1",
        r"aliases\s+challenger, champion",
        r"Serve it: +ssad serve --model models:/ssad@champion",
    ):
        assert re.search(pattern, store.output), pattern


def test_a_second_training_is_challenger_and_the_champion_stays(
    small: Path, own_store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    second = train(TrainSettings(str(small), fit=FitSettings("radon", max_epochs=1)), progress=False)
    assert (second.registered.version, second.registered.aliases) == ("2", ("challenger",))
    assert str(own_store.get_model_version_by_alias("ssad", "champion").version) == "1"
    assert str(own_store.get_model_version_by_alias("ssad", "challenger").version) == "2"
    assert len(own_store.search_runs(["0"])) == 2
    assert next_step(second.registered).endswith("ssad promote --candidate models:/ssad@challenger")
    Path("MLproject").touch()  # where it is, its entry points are
    assert next_step(second.registered).endswith("-e promote -P candidate=models:/ssad@challenger")
    assert " mlflow run . --env-manager local -e promote" in next_step(second.registered, second.project)


def test_shuffled_labels_do_not_change_the_bundle_by_one_byte(tracking: str, tmp_path: Path) -> None:
    import mlflow

    table = small_table()
    table.to_csv(tmp_path / "test.csv", index=False)
    bundles = []
    for name, labels in (
        ("true", table["label"]),
        ("shuffled", table["label"].sample(frac=1, random_state=3).to_numpy()),
    ):
        path = tmp_path / f"{name}.csv"
        table.assign(label=labels).to_csv(path, index=False)
        settings = TrainSettings(str(path), str(tmp_path / "test.csv"), fit=FitSettings(max_epochs=2))
        version = train(settings, progress=False).registered.version
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/ssad/{version}"))
        bundles.append({file.name: file.read_bytes() for file in sorted((folder / "data" / "bundle").iterdir())})
    assert len(bundles[0]) > 5
    assert bundles[0] == bundles[1]


def test_a_table_without_labels_trains_from_its_first_confidence_and_says_that_there_are_no_metrics(
    small: Path, tracking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(small).drop(columns="label")
    table.to_csv(small, index=False)
    confidence = small.with_name("confidence.csv")
    pd.DataFrame({"confidence": np.ones(len(table))}).to_csv(confidence, index=False)
    settings = TrainSettings(str(small), confidence=str(confidence), fit=FitSettings(max_epochs=1))
    result = train(settings, progress=False)
    assert len(result.detector.training_scores) == len(table)
    show(settings, result)
    assert "no labels, so no metrics" in capsys.readouterr().out
    (run,) = MlflowClient(tracking).search_runs(["0"])
    assert not [name for name in run.data.metrics if name.startswith("test_")]


def test_the_summary_tells_columns_left_out_for_one_reason_together(
    small: Path, tracking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(small).assign(**{f"off_{i}": i for i in range(25)}, moment=[f"t{i}" for i in range(200)])
    table.to_csv(small, index=False)
    settings = TrainSettings(str(small), fit=FitSettings(max_epochs=1))
    show(settings, train(settings, progress=False))
    told = " ".join(capsys.readouterr().out.split())
    assert "off_19 and 5 more (has one value in every row); moment (identifies rows: " in told
    assert "detector ssad, 1 epoch regions" in told


def test_the_summary_counts_the_epochs_that_were_trained(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tracking: str
) -> None:
    from ssad.modules import self_supervision_callback

    monkeypatch.setattr(self_supervision_callback, "SETTLED_SHARE", 1.0)
    settings = TrainSettings(str(small), fit=FitSettings("radon", max_epochs=9, every_n_epochs=1))
    result = train(settings, progress=False)
    show(settings, result)
    # The recalibrations after the epochs 1, 2 and 3 move at most every row.
    assert len(MlflowClient(tracking).get_metric_history(result.run_id, "epoch_duration_seconds")) == 4
    assert "radon, 4 of 9 epochs, then its regions had settled" in capsys.readouterr().out


def test_a_promise_about_false_alarms_trains_to_a_version(small: Path, tracking: str) -> None:
    import mlflow

    settings = TrainSettings(str(small), model_name="promised", fit=FitSettings("grand", max_epochs=1, alpha=0.1))
    result = train(settings, progress=False)
    assert result.registered.version == "1"
    assert result.detector.plan.alpha == 0.1
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri="models:/promised@champion"))
    bundle = Bundle(folder / "data" / "bundle")
    assert bundle.manifest["detector"] == "grand"

    # What is served is what the run says last, of the training rows that the summary counts.
    client, thresholds = MlflowClient(tracking), bundle.curve.thresholds
    metrics = client.get_run(result.run_id).data.metrics
    before, after = client.get_metric_history(result.run_id, "threshold_abnormal")
    assert before.value != after.value == metrics["threshold_abnormal"] == thresholds.abnormal
    scores = result.detector.training_scores
    assert metrics["rows_normal"] == (scores <= thresholds.normal).sum()
    assert metrics["rows_abnormal"] == (scores >= thresholds.abnormal).sum()
    report = mlflow.artifacts.load_text(f"runs:/{result.run_id}/report.html")
    assert f'<td class="number">{thresholds.abnormal:.5g}</td>' in report
    intervals = mlflow.artifacts.load_dict(f"runs:/{result.run_id}/confidence_intervals_epoch_1.json")
    configuration = result.detector.module.confidence_estimator.configuration
    assert configuration is not None
    assert intervals == configuration.as_dict()


def test_a_contamination_thins_the_training_anomalies_and_leaves_the_test_rows(small: Path) -> None:
    tables = prepare(TrainSettings(str(small), contamination=0.05))
    assert len(tables.train) == 126 + 7  # 70 % of 180 normal rows, and 5 % in all
    assert tables.test_anomalous is not None
    assert (len(tables.test_anomalous), tables.test_anomalous.sum()) == (60, 6)


def test_other_words_for_normal_are_taken_from_the_user(small: Path) -> None:
    table = pd.read_csv(small)
    table = table.assign(verdict=table["label"].map({"normal": "fine", "attack": "bad"})).drop(columns="label")
    table.to_csv(small, index=False)
    tables = prepare(TrainSettings(str(small), label="verdict", normal="fine,ok"))
    assert tables.test_anomalous is not None
    assert (len(tables.test_anomalous), tables.test_anomalous.sum()) == (60, 6)
    assert "verdict" not in tables.train.columns


def test_the_test_metrics_are_those_of_the_forced_decision(
    client: MlflowClient, first_run: Run, tmp_path: Path
) -> None:
    folder = Path(client.download_artifacts(first_run.info.run_id, "", str(tmp_path)))
    at = [json.loads(path.read_text()) for path in folder.glob("test_metrics_threshold=*.json")]
    metrics = first_run.data.metrics
    (forced,) = [m for m in at if m["threshold"] == pytest.approx(metrics["test_threshold"], rel=1e-5)]
    assert metrics["test_f1"] == pytest.approx(forced["f1"])
    assert metrics["test_auc"] == pytest.approx(forced["auc"])
    lowest, highest = (pick(m["threshold"] for m in at) for pick in (min, max))
    assert lowest <= metrics["test_threshold"] <= highest


def test_categories_in_parquet_from_the_web_are_trained_on_as_the_words_they_are(
    small: Path, tracking: str, temporary: Path
) -> None:
    table = pd.read_csv(small).assign(kind=lambda rows: pd.Categorical(rows["kind"]))
    table.to_parquet(small.with_suffix(".parquet"))
    fit = FitSettings("radon", max_epochs=1)
    with file_server(small.parent) as (address, asked):
        words, categories = (
            train(TrainSettings(dataset, fit=fit), progress=False).detector
            for dataset in (str(small), f"{address}/small.parquet?X-Signature=s3cret")
        )
    assert asked == ["/small.parquet?X-Signature=s3cret"]
    runs = MlflowClient(tracking).search_runs(["0"])
    assert "small" in {given.dataset.name for run in runs if run.inputs for given in run.inputs.dataset_inputs}
    assert "s3cret" not in str([run.to_dictionary() for run in runs])
    assert not list(temporary.glob("ssad-*"))
    np.testing.assert_array_equal(categories.training_scores, words.training_scores)
    assert categories.curve.thresholds == words.curve.thresholds
