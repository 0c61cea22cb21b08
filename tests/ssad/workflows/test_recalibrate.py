"""New intervals from new rows, the weights untouched."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from serving.registry import answer_of as answer_of_the_child
from ssad import cli
from ssad.bundle import Bundle, Thresholds
from ssad.bundle.bundle import file_digest
from ssad.datasets.tables import read_table
from ssad.detectors import FitSettings, fit_detector
from ssad.errors import BundleError, RefusedError, SettingsError, TrackingError
from ssad.workflows.recalibrate import RecalibrateSettings, _description, check_rows, new_curve, recalibrate
from ssad.workflows.registry import fetch_model, register
from ssad.workflows.stopping import stop_by_signals
from ssad.workflows.train import TrainSettings, prepare, train
from tests.ssad.workflows.support import QUIET_LIBRARIES, permission_denied

pytestmark = [*QUIET_LIBRARIES, pytest.mark.filterwarnings("ignore::ResourceWarning")]

CHAMPION = "models:/ssad@champion"


def moved(folder: Path, by: float, rows: int = 600) -> str:
    """Rows like the training ones, spread by a factor."""
    table = read_table("breast-cancer").drop(columns="label").sample(rows, replace=True, random_state=1)
    (table.mean() + (table - table.mean()) * by).to_csv(folder / "moved.csv", index=False)
    return str(folder / "moved.csv")


def versions(client: MlflowClient) -> list[str]:
    return sorted(str(version.version) for version in client.search_model_versions())


@pytest.mark.every_back_end
def test_a_new_version_has_the_weights_of_its_parent_and_the_intervals_of_the_rows(
    champion: Bundle, tmp_path: Path
) -> None:
    dataset = moved(tmp_path, 1.3)
    result = recalibrate(RecalibrateSettings(CHAMPION, dataset))
    assert (result.registered.version, result.registered.aliases) == ("2", ("challenger",))
    assert result.parent == "models:/ssad/1"
    new = fetch_model("models:/ssad/2", tmp_path / "new").bundle
    for file in ("detector.onnx", "errors.onnx", "weights.safetensors", "columns.json", "golden.json"):
        assert (new.path / file).read_bytes() == (champion.path / file).read_bytes(), file
        assert new.manifest["files"][file] == champion.manifest["files"][file]
    assert new.manifest["files"]["intervals.json"] != champion.manifest["files"]["intervals.json"]
    assert new.manifest["recalibrated_from"] == "models:/ssad/1"
    new.check_golden()

    scores = new.score(pd.read_csv(dataset)).score
    assert result.new == new.curve.thresholds
    assert result.new.normal > result.old.normal
    assert result.shares == new.curve.thresholds.shares(scores)
    drift = new.reference.drift(new.reference.count(scores, new.schema.inputs(pd.read_csv(dataset))))
    assert drift.score_psi == 0
    assert set(drift.column_psi.values()) == {0}


@pytest.mark.every_back_end
def test_the_run_and_the_version_tell_the_shift_and_where_it_comes_from(
    champion: Bundle, own_store: MlflowClient, tmp_path: Path
) -> None:
    result = recalibrate(RecalibrateSettings(CHAMPION, moved(tmp_path, 1.3)))
    version = own_store.get_model_version("ssad", "2")
    run = own_store.get_run(str(version.run_id))
    assert run.info.status == "FINISHED"
    for side in ("normal", "abnormal"):
        before, after = getattr(result.old, side), getattr(result.new, side)
        assert run.data.metrics[f"threshold_{side}_shift"] == pytest.approx(after - before)
    assert run.data.tags["sha256.weights.safetensors"] == champion.manifest["files"]["weights.safetensors"]
    assert "recalibration.png" in {file.path for file in own_store.list_artifacts(run.info.run_id)}
    assert version.tags["parent"] == "models:/ssad/1"
    assert "models:/ssad/1 recalibrated" in str(version.description)
    first, second = (mlflow.models.get_model_info(f"models:/ssad/{number}").signature for number in (1, 2))
    assert first == second


def fetched_by_a_service(uri: str, folder: Path) -> dict[str, Any]:
    """What a service's child process tells of a model that it has fetched."""
    source: dict[str, Any] = answer_of_the_child({"do": "fetch", "uri": uri, "folder": str(folder)})["source"]
    return source


def test_a_service_of_it_tells_the_training_and_the_recalibration_apart(
    own_store: MlflowClient, tmp_path: Path
) -> None:
    training, *_ = own_store.search_runs(["0"], order_by=["start_time"])
    for parent in (CHAMPION, "models:/ssad/2"):
        recalibrate(RecalibrateSettings(parent, moved(tmp_path, 1.3)))
    found = fetched_by_a_service("models:/ssad/3", tmp_path)
    run = own_store.get_run(str(own_store.get_model_version("ssad", "3").run_id))
    assert (found["run_id"], found["recalibrated_at"]) == (run.info.run_id, run.info.start_time)
    assert found["trained_at"] == training.info.start_time
    trained = {name: value for name, value in training.data.metrics.items() if not name.startswith("system/")}
    assert found["metrics"] == trained


def test_files_that_changed_since_they_were_registered_are_neither_loaded_nor_served(
    champion: Bundle, own_store: MlflowClient, tmp_path: Path
) -> None:
    told = own_store.get_model_version("ssad", "1").tags
    assert told["ssad.manifest"] == file_digest(champion.path / "manifest.json")

    recalibrate(RecalibrateSettings(CHAMPION, moved(tmp_path, 1.3)))
    uri = "models:/ssad/2"
    model_id = fetch_model(uri, tmp_path / "as-registered").model_id
    assert model_id is not None
    files = Path(own_store.get_logged_model(model_id).artifact_location.removeprefix("file://")) / "data" / "bundle"
    golden, manifest = (json.loads((files / name).read_text()) for name in ("golden.json", "manifest.json"))
    (files / "golden.json").write_text(json.dumps(golden))  # the same rows and scores, in other bytes
    manifest["files"]["golden.json"] = file_digest(files / "golden.json")
    (files / "manifest.json").write_text(json.dumps(manifest))
    for fetch in (fetch_model, fetched_by_a_service):
        with pytest.raises(BundleError, match=f"the files of {uri} are not those that were registered"):
            fetch(uri, tmp_path / fetch.__name__)

    own_store.delete_model_version_tag("ssad", "2", "ssad.manifest")  # as one that an older ssad registered
    fetch_model(uri, tmp_path / "untold").bundle.check_golden()


@pytest.mark.parametrize("detector", ["ssad", "radon", "grand"])
def test_recalibrating_on_the_training_rows_changes_little(detector: str, small: Path, tmp_path: Path) -> None:
    rows = prepare(TrainSettings(str(small))).train.frame()
    fit_detector(rows, FitSettings(detector, max_epochs=2)).write_bundle(tmp_path / "bundle")
    bundle = Bundle(tmp_path / "bundle")
    scores = bundle.score(rows).score
    curve = new_curve(bundle, scores)
    shares, before = curve.thresholds.shares(scores), bundle.curve.thresholds.shares(scores)
    assert shares["abnormal"] == pytest.approx(before["abnormal"], abs=0.05)
    assert np.all(np.diff(curve(np.sort(scores))) <= 0)


@pytest.mark.usefixtures("own_store")
def test_a_promise_about_false_alarms_is_kept_on_the_new_rows(small: Path, tmp_path: Path) -> None:
    rows = prepare(TrainSettings(str(small))).train
    fit_detector(rows, FitSettings("radon", max_epochs=1, alpha=0.1)).write_bundle(tmp_path / "bundle")
    bundle = Bundle(tmp_path / "bundle")
    scores = np.random.default_rng(0).normal(1.0, 0.1, 500)
    assert new_curve(bundle, scores).thresholds.shares(scores)["abnormal"] == pytest.approx(0.1, abs=3e-3)
    inputs = bundle.schema.inputs(rows.head(500))
    drift = bundle.drift(bundle.score_inputs(inputs), inputs)
    with pytest.raises(RefusedError, match="expected at least 999"):
        check_rows(drift, RecalibrateSettings(str(bundle.path), str(small)), alpha=1e-3)


def test_the_same_rows_a_month_later_are_no_other_population(tracking: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    table = pd.DataFrame(generator.normal(size=(600, 3)), columns=["a", "b", "c"])
    table["at"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(generator.uniform(0, 31 * 86_400, 600), unit="s")
    table.assign(at=table["at"] + pd.Timedelta(days=31)).to_parquet(tmp_path / "february.parquet")
    fit_detector(table, FitSettings("radon", max_epochs=1)).write_bundle(tmp_path / "bundle")
    february = str(tmp_path / "february.parquet")
    settings = RecalibrateSettings(str(tmp_path / "bundle"), february, max_abnormal=1.0, model_name="dated")
    assert recalibrate(settings).registered.version == "1"


@pytest.mark.parametrize(
    ("by", "rows", "limits", "sentence"),
    [
        (1.3, 199, {}, "199 rows are too few"),
        (50.0, 600, {}, "another population"),
        (1.3, 600, {"max_abnormal": 0.001}, "abnormal, the limit is 0.001;"),
        (1.3, 600, {"max_drift": 1e-3}, "the scores by .*, column .* by .*, column"),
    ],
)
def test_rows_that_cannot_be_recalibrated_on_are_refused_and_nothing_is_registered(
    champion: Bundle,
    own_store: MlflowClient,
    tmp_path: Path,
    by: float,
    rows: int,
    limits: dict[str, Any],
    sentence: str,
) -> None:
    with pytest.raises(RefusedError, match=sentence):
        recalibrate(RecalibrateSettings(CHAMPION, moved(tmp_path, by, rows), **limits))
    (run,) = own_store.search_runs(["0"], order_by=["start_time DESC"], max_results=1)
    assert "drift.json" in {file.path for file in own_store.list_artifacts(run.info.run_id)}
    assert versions(own_store) == ["1"]
    assert run.info.status == "FAILED"


def test_the_version_is_told_a_threshold_that_cuts_nothing_off_as_the_summary_tells_it() -> None:
    said = _description("models:/ssad/1", "rows.csv", Thresholds(1.5, np.inf), Thresholds(-np.inf, 2.5))
    assert "normal up to nowhere (was 1.5), abnormal from 2.5 (was nowhere); the weights" in said


def test_what_is_hardly_beyond_a_limit_is_told_apart_from_it(champion: Bundle, tmp_path: Path) -> None:
    dataset = moved(tmp_path, 1.3)
    share = recalibrate(RecalibrateSettings(CHAMPION, dataset)).shares["abnormal"]
    with pytest.raises(RefusedError, match="would call a share of") as refusal:
        recalibrate(RecalibrateSettings("models:/ssad/1", dataset, max_abnormal=share - 1e-6))
    called, limit = re.findall(r"a share of (\S+) .* the limit is (\S+);", str(refusal.value))[0]
    assert float(called) > float(limit) == pytest.approx(share - 1e-6)
    inputs = champion.schema.inputs(pd.read_csv(dataset))
    drift = champion.drift(champion.score_inputs(inputs), inputs)
    limits = RecalibrateSettings(CHAMPION, dataset, max_drift=drift.score_psi - 1e-6)
    with pytest.raises(RefusedError, match="the scores by") as refusal:
        check_rows(drift, limits, None)
    moved_by, limit = re.findall(r"the scores by ([\d.]+).* the limit is (\S+);", str(refusal.value))[0]
    assert float(moved_by) > float(limit)


@pytest.mark.parametrize(
    "failing", ["update_model_version", "get_model_version_by_alias", "set_registered_model_alias"]
)
def test_a_version_that_cannot_be_told_all_of_it_is_not_left_behind(
    own_store: MlflowClient, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    works = getattr(MlflowClient, failing)

    def fails_once(*_: Any) -> None:
        monkeypatch.setattr(MlflowClient, failing, works)
        raise MlflowException("database is locked")

    monkeypatch.setattr(MlflowClient, failing, fails_once)
    with pytest.raises((MlflowException, TrackingError), match="database is locked"):
        register(str(own_store.get_model_version("ssad", "1").source), "ssad", "a description")
    assert versions(own_store) == ["1"]
    assert str(own_store.get_model_version_by_alias("ssad", "challenger").version) == "1"


def test_who_may_not_register_a_version_is_told_so_before_the_work(
    small: Path, champion: Bundle, own_store: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(MlflowClient, "delete_registered_model_tag", permission_denied)
    before, told = len(own_store.search_logged_models(["0"])), "may not register versions of ssad .* permission EDIT on"
    with pytest.raises(TrackingError, match=told):
        recalibrate(RecalibrateSettings(CHAMPION, moved(tmp_path, 1.3)))
    with pytest.raises(TrackingError, match=told):
        train(TrainSettings(str(small), fit=FitSettings("radon", max_epochs=1)), progress=False)
    newest = own_store.search_runs(["0"], order_by=["start_time DESC"])[:2]
    assert [(run.info.status, run.data.metrics) for run in newest] == [("FAILED", {})] * 2
    assert len(own_store.search_logged_models(["0"])) == before
    recalibrate(RecalibrateSettings(CHAMPION, moved(tmp_path, 1.3), model_name="own"))
    assert versions(own_store) == ["1", "1"]


def test_a_registry_that_does_not_answer_is_told_before_the_work(
    small: Path, own_store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowClient, "get_registered_model", Mock(side_effect=MlflowException("nobody there")))
    told = r"^the registry at .* does not tell whether there is a model ssad \(nobody there\); see that MLFLOW_"
    with pytest.raises(TrackingError, match=told):
        train(TrainSettings(str(small), fit=FitSettings("radon", max_epochs=1)), progress=False)
    newest = own_store.search_runs(["0"], order_by=["start_time DESC"])[0]
    assert (newest.info.status, newest.data.metrics) == ("FAILED", {})


def test_a_first_version_that_cannot_be_told_all_of_it_leaves_no_model_behind(
    own_store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", Mock(side_effect=MlflowException("went away")))
    with pytest.raises(MlflowException, match="went away"):
        register(str(own_store.get_model_version("ssad", "1").source), "other")
    assert [model.name for model in own_store.search_registered_models()] == ["ssad"]


@pytest.mark.parametrize("name", ["ssad", "other"])
def test_a_registration_that_fails_leaves_anothers_version_and_aliases_as_they_are(
    own_store: MlflowClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bundle, set_alias = str(own_store.get_model_version("ssad", "1").source), MlflowClient.set_registered_model_alias
    others = []

    def loses_its_connection(*arguments: Any) -> None:
        set_alias(*arguments)
        monkeypatch.setattr(MlflowClient, "set_registered_model_alias", set_alias)
        others.append(register(bundle, name))  # another training's, at this moment
        raise MlflowException("went away")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", loses_its_connection)
    with pytest.raises(MlflowException, match="went away"):
        register(bundle, name)
    (other,) = others
    for alias in other.aliases:
        assert str(own_store.get_model_version_by_alias(name, alias).version) == other.version


def test_a_signal_comes_too_late_once_a_version_is_being_registered(
    champion: Bundle, own_store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_by_signals()

    def signalled(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return register(*arguments)

    monkeypatch.setattr("ssad.workflows.recalibrate.register", signalled)
    assert recalibrate(RecalibrateSettings(CHAMPION, moved(tmp_path, 1.3))).registered.version == "2"


def test_force_goes_beyond_the_limit_of_drift(champion: Bundle, own_store: MlflowClient, tmp_path: Path) -> None:
    settings = RecalibrateSettings(CHAMPION, moved(tmp_path, 3.0), max_abnormal=1.0, force=True)
    assert recalibrate(settings).registered.version == "2"


@pytest.mark.usefixtures("champion", "own_store")
def test_what_to_type_next_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.recalibrate(moved(tmp_path, 1.3))
    assert capsys.readouterr().out.endswith("\n\nPromote it:  ssad promote --candidate models:/ssad@challenger\n")


@pytest.mark.usefixtures("champion", "own_store")
def test_a_temporary_folder_may_have_a_name_that_reads_as_part_of_a_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = moved(tmp_path, 1.3)
    temporary = tmp_path / "a%20b"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    registered = recalibrate(RecalibrateSettings(CHAMPION, dataset)).registered
    parent, new = (mlflow.models.get_model_info(f"models:/ssad/{n}").signature for n in ("1", registered.version))
    assert new == parent


def test_a_bundles_folder_needs_a_name_to_be_registered_under(
    champion: Bundle, own_store: MlflowClient, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="model_name"):
        recalibrate(RecalibrateSettings(str(champion.path), moved(tmp_path, 1.3)))
    named = RecalibrateSettings(str(champion.path), moved(tmp_path, 1.3), model_name="other")
    assert recalibrate(named).registered.aliases == ("challenger", "champion")
    found = fetched_by_a_service("models:/other/1", tmp_path)
    assert found["recalibrated_at"]
    assert (found["trained_at"], found["metrics"]) == (None, {})


def test_what_only_a_model_names_is_not_imported(
    champion: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = champion.manifest["plan"] | {"detector": "only_named:SSAD"}
    (champion.path / "manifest.json").write_text(json.dumps(champion.manifest | {"plan": plan}))
    (tmp_path / "only_named.py").write_text("from ssad.detectors import PRESETS\nSSAD = PRESETS['ssad']")
    monkeypatch.syspath_prepend(tmp_path)
    settings = RecalibrateSettings(str(champion.path), moved(tmp_path, 1.3), model_name="other")
    for detector in ("", "ssad"):
        with pytest.raises(SettingsError, match=r"detector 'only_named:SSAD', got .* if you trust its code"):
            recalibrate(replace(settings, detector=detector))
    assert "only_named" not in sys.modules
    assert recalibrate(replace(settings, detector="only_named:SSAD")).registered.version == "1"


def test_bad_limits_are_named_together() -> None:
    with pytest.raises(SettingsError, match=r"max_drift.*max_abnormal.*model_name"):
        RecalibrateSettings(CHAMPION, "rows.csv", max_drift=0, max_abnormal=2, model_name="a/b")


def test_labels_are_not_read(champion: Bundle, tmp_path: Path) -> None:
    rows = pd.read_csv(moved(tmp_path, 1.3))
    found = []
    for labels in ("normal", "attack"):
        rows.assign(label=labels).to_csv(tmp_path / "labelled.csv", index=False)
        found.append(recalibrate(RecalibrateSettings(CHAMPION, str(tmp_path / "labelled.csv"))).new)
    assert found[0] == found[1]
