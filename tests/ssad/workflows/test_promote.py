"""The champion's alias moves only if every check passes, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND
from onnx import helper
from sklearn.metrics import average_precision_score, matthews_corrcoef

from ssad.bundle import Bundle, ConfidenceCurve, TableSchema, Thresholds, write_bundle
from ssad.bundle.bundle import GRAPH, NETWORK
from ssad.bundle.intervals import Floats
from ssad.datasets.labels import split_labels
from ssad.datasets.tables import read_table
from ssad.detectors import FitSettings, fit_detector
from ssad.errors import BundleError, RefusedError, SettingsError, SsadError, TrackingError
from ssad.metrics import Labels
from ssad.workflows import promotion_checks as checks
from ssad.workflows.champion import claimed, move_champion
from ssad.workflows.cut_off import PROCESS, process_name
from ssad.workflows.promote import PromoteSettings, promote
from ssad.workflows.promotion_checks import MIN_ANOMALIES, find_checks, gain_interval, phi
from ssad.workflows.registry import FetchedModel, fetch_model, log_bundle, register
from ssad.workflows.scored_table import MIN_UNLABELLED_ROWS
from ssad.workflows.signature import describe_rows
from ssad.workflows.train import TrainSettings, prepare
from tests.ssad.workflows.support import PROCESS_SECONDS, QUIET_LIBRARIES, environment, permission_denied, run_python

pytestmark = [*QUIET_LIBRARIES, pytest.mark.filterwarnings("ignore::ResourceWarning")]

CHAMPION = "models:/ssad@champion"


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    read_table("breast-cancer").to_csv(tmp_path / "labelled.csv", index=False)
    return str(tmp_path / "labelled.csv")


@pytest.fixture
def unlabelled(tmp_path: Path) -> str:
    read_table("breast-cancer").drop(columns="label").to_csv(tmp_path / "unlabelled.csv", index=False)
    return str(tmp_path / "unlabelled.csv")


def upside_down(graph: bytes) -> bytes:
    """The scoring graph with the sign of its score turned."""
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.output[:] = ["upright" if name == "score" else name for name in node.output]
    model.graph.node.append(helper.make_node("Neg", ["upright"], ["score"]))
    serialized: bytes = model.SerializeToString()
    return serialized


def challenger(
    bundle: Bundle,
    folder: Path,
    graph: bytes | None = None,
    thresholds: Thresholds | None = None,
    schema: TableSchema | None = None,
    curve: ConfidenceCurve | None = None,
) -> str:
    """Register a version that differs from a bundle in a part; gives its number."""
    rows = prepare(TrainSettings("breast-cancer")).train.frame()
    inputs = bundle.schema.inputs(rows)
    plain = (
        ConfidenceCurve(thresholds, {r: (np.empty(0), np.empty(0)) for r in bundle.curve.knots}) if thresholds else None
    )
    curve, scores, golden = curve or plain or bundle.curve, np.zeros(len(rows)), np.asarray(bundle.golden["scores"])
    for _ in range(2):  # once to be able to score, once with the scores
        write_bundle(
            folder,
            {name: (bundle.path / name).read_bytes() for name in NETWORK} | ({GRAPH: graph} if graph else {}),
            schema or bundle.schema,
            curve,
            scores,
            inputs,
            (bundle.golden["rows"], golden),
            {name: bundle.manifest[name] for name in ("detector", "plan", "training_rows")},
        )
        new = Bundle(folder)
        scores, golden = new.score_inputs(inputs), new.score(bundle.golden["rows"]).score
    with mlflow.start_run():
        uri = log_bundle(folder, describe_rows(bundle.schema, rows))
    return register(uri, "ssad").version


def aliases(client: MlflowClient) -> dict[str, str]:
    return {name: str(version) for name, version in client.get_registered_model("ssad").aliases.items()}


@pytest.mark.every_back_end
def test_a_challenger_as_good_becomes_champion_and_the_former_one_previous(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    version = challenger(champion, tmp_path / "same")
    own_store.update_model_version("ssad", version, description="from a test")
    result = promote(PromoteSettings(dataset=labelled))
    assert (result.version, result.former, result.moved) == (version, "1", True)
    assert aliases(own_store) == {"champion": version, "challenger": version, "previous": "1"}
    told = own_store.get_model_version("ssad", version)
    assert str(told.description).startswith("from a test\n\n### Promotion checks")
    assert "gain in average precision | +0 (95%: +0 to +0) | at least 0 | yes" in str(told.description)
    assert told.tags["promotion"] == "passed"
    run = own_store.get_run(told.tags["promotion_run"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["ap_gain"] == 0
    logged = json.loads(Path(own_store.download_artifacts(run.info.run_id, "checks.json", str(tmp_path))).read_text())
    assert all(pd.DataFrame(**logged)["passed"])
    assert not [tag for tag in own_store.get_registered_model("ssad").tags if tag.startswith("ssad.promotion")]


def test_a_challenger_that_ranks_worse_is_refused_and_nothing_moves(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    version = challenger(champion, tmp_path / "bad", upside_down((champion.path / GRAPH).read_bytes()))
    before = aliases(own_store)
    with pytest.raises(RefusedError, match=rf"version {version} of ssad .*gain in average precision.*gain in MCC"):
        promote(PromoteSettings(dataset=labelled))
    assert aliases(own_store) == before
    told = own_store.get_model_version("ssad", version)
    assert told.tags["promotion"] == "refused"
    assert "**no**" in str(told.description)
    assert own_store.get_run(told.tags["promotion_run"]).info.status == "FAILED"
    with pytest.raises(RefusedError, match="at least 0"):  # its description holds one table of checks, the last
        promote(PromoteSettings(dataset=labelled))
    assert str(own_store.get_model_version("ssad", version).description).count("### Promotion checks") == 1


def test_a_challenger_that_gains_too_little_is_refused(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    challenger(champion, tmp_path / "same")
    with pytest.raises(RefusedError, match=r"expected at least 0\.01"):
        promote(PromoteSettings(dataset=labelled, min_gain=0.01))


def test_intervals_that_call_most_rows_abnormal_are_refused_with_labels_and_without(
    own_store: MlflowClient, champion: Bundle, labelled: str, unlabelled: str, tmp_path: Path
) -> None:
    low = float(np.quantile(champion.score(read_table(unlabelled)).score, 0.1))
    challenger(champion, tmp_path / "greedy", thresholds=Thresholds(low, low))
    for dataset, sentence in (
        (labelled, "gain in MCC"),
        (unlabelled, "share called abnormal: .*rows not contradicted"),
        ("", "abnormal share of its training rows"),
    ):
        with pytest.raises(RefusedError, match=sentence):
            promote(PromoteSettings(dataset=dataset))


def test_without_labels_the_same_scores_pass_and_rows_that_drifted_do_not(
    own_store: MlflowClient, champion: Bundle, unlabelled: str, tmp_path: Path
) -> None:
    version = challenger(champion, tmp_path / "same")
    drifted = read_table(unlabelled)
    drifted["mean radius"] *= 3
    drifted.to_csv(tmp_path / "drifted.csv", index=False)
    with pytest.raises(RefusedError, match=r"stability index of the column that moved most: [0-9.]+ \(mean radius\)"):
        promote(PromoteSettings(dataset=str(tmp_path / "drifted.csv")))
    result = promote(PromoteSettings(dataset=unlabelled))
    assert aliases(own_store)["champion"] == version
    assert {check.name: check.value for check in result.checks}["rank correlation of the scores"] == "1"


def test_rows_of_text_are_read_with_the_words_of_the_champion_too(tracking: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    zones = generator.choice(["007", "010", "A1"], 300)
    table = pd.DataFrame(generator.normal(size=(300, 3)), columns=["x", "y", "z"]).assign(zone=zones)
    bundles = []
    for name, rows in (("champion", table), ("candidate", table.assign(zone="A1"))):
        fit_detector(rows, FitSettings("radon", max_epochs=2)).write_bundle(tmp_path / name)
        bundles.append(Bundle(tmp_path / name))
    champion, candidate = bundles
    assert not candidate.schema.words
    new = table[zones != "A1"]
    new = pd.concat([new, new], ignore_index=True)
    new.to_csv(tmp_path / "new.csv", index=False)
    new.to_parquet(tmp_path / "new.parquet")
    found = []
    mlflow.set_tracking_uri(tracking)
    for file in ("new.csv", "new.parquet"):
        with mlflow.start_run():
            told = find_checks(candidate, champion, PromoteSettings(dataset=str(tmp_path / file)))
        found.append({check.name: check.value for check in told if "time" not in check.name})
    assert found[0] == found[1]


def test_a_candidate_that_calls_hardly_any_row_abnormal_is_refused_with_labels_and_without(
    own_store: MlflowClient, champion: Bundle, labelled: str, unlabelled: str, tmp_path: Path
) -> None:
    pd.concat([read_table(labelled)] * 3).to_csv(tmp_path / "many.csv", index=False)
    curve = champion.curve
    far = float(champion.score(read_table(unlabelled)).score.max()) * 2
    blind = replace(curve, thresholds=Thresholds(curve.thresholds.normal, far))
    assert blind.decision == curve.decision  # what is called abnormal where a decision is forced stays the same
    challenger(champion, tmp_path / "blind", curve=blind)
    for dataset, called in ((unlabelled, "rows"), (str(tmp_path / "many.csv"), "anomalies")):
        sentence = rf"is not promoted \({called} called abnormal: 0, expected at least [0-9]+\)"
        with pytest.raises(RefusedError, match=sentence):
            promote(PromoteSettings(dataset=dataset))


def test_a_check_tells_counts_to_the_last_and_a_value_from_its_limit() -> None:
    count = checks._at_least("rows called abnormal", 1_234_567, 1_234_568)
    assert (count.value, count.limit, count.passed) == ("1234567", "at least 1234568", False)
    assert checks._at_most("share", 0.1, 0.3).limit == "at most 0.3"
    refused = [checks._at_most("share", 0.25004, 0.25), checks._at_least("agreement", 0.9 - 1e-12, 0.9)]
    for check, limit in zip(refused, (0.25, 0.9), strict=True):
        assert not check.passed
        assert float(check.value) != limit
    hardly = checks._at_most("share", 0.12333333, 0.12333233)  # four digits of it are on the other side
    assert not hardly.passed
    assert float(hardly.value) > 0.12333233
    assert checks._at_most("share", 0.25, 0.25).value == "0.25"
    assert checks._at_least("rank correlation", float("nan"), 0.5).value == "nan"


def test_a_handful_of_labelled_anomalies_promotes_nothing(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    challenger(champion, tmp_path / "same")
    table = read_table(labelled)
    normal = split_labels(table, "label")[1] == 0
    few = pd.concat([table[normal], table[~normal].head(MIN_ANOMALIES - 1)])
    few.to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(RefusedError, match="labelled anomalies: 9, expected at least 10"):
        promote(PromoteSettings(dataset=str(tmp_path / "few.csv")))


def test_a_few_unlabelled_rows_promote_nothing(
    own_store: MlflowClient, champion: Bundle, unlabelled: str, tmp_path: Path
) -> None:
    few = tmp_path / "few.csv"
    read_table(unlabelled).head(MIN_UNLABELLED_ROWS - 1).to_csv(few, index=False)
    challenger(champion, tmp_path / "same")
    with pytest.raises(RefusedError, match="unlabelled rows: 199, expected at least 200"):
        promote(PromoteSettings(dataset=str(few)))


@pytest.mark.every_back_end
def test_a_rollback_changes_places_with_the_previous_champion(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match="no previous champion"):
        promote(PromoteSettings(rollback=True))
    challenger(champion, tmp_path / "same")
    promote(PromoteSettings(dataset=labelled))
    promote(PromoteSettings(rollback=True))
    assert aliases(own_store) == {"champion": "1", "challenger": "2", "previous": "2"}
    promote(PromoteSettings("models:/ssad@previous", rollback=True))
    assert aliases(own_store)["champion"] == "2"
    assert not any("rolled_back_by" in own_store.get_model_version("ssad", one).tags for one in "12")


@pytest.mark.parametrize("failing", ["set_model_version_tag", "set_registered_model_alias"])
def test_a_rollback_that_fails_on_its_way_leaves_all_as_it_was(
    own_store: MlflowClient,
    champion: Bundle,
    labelled: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    challenger(champion, tmp_path / "same")
    promote(PromoteSettings(dataset=labelled))
    before = aliases(own_store)

    def lost(*_: Any) -> None:
        raise MlflowException("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, failing, lost)
        with pytest.raises(TrackingError, match="connection lost"):
            promote(PromoteSettings(rollback=True))
    assert aliases(own_store) == before
    assert "rolled_back_by" not in own_store.get_model_version("ssad", "2").tags


def test_what_was_rolled_back_is_promoted_again_by_its_number_alone(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    challenger(champion, tmp_path / "same")
    promote(PromoteSettings(dataset=labelled))
    told = own_store.get_model_version("ssad", "2")
    promote(PromoteSettings(rollback=True))
    (run,) = own_store.search_runs(["0"], order_by=["start_time DESC"], max_results=1)
    for uri in ("models:/ssad@challenger", "models:/ssad/latest"):
        told_by = f"version 2 of ssad, which {uri} means, was rolled back by run {run.info.run_id}"
        with pytest.raises(RefusedError, match=told_by):
            promote(PromoteSettings(uri, labelled))
    kept = own_store.get_model_version("ssad", "2")
    assert (kept.description, kept.tags) == (told.description, told.tags | {"rolled_back_by": run.info.run_id})
    promote(PromoteSettings("models:/ssad/2", labelled))
    assert aliases(own_store) == {"champion": "2", "challenger": "2", "previous": "1"}
    assert "rolled_back_by" not in own_store.get_model_version("ssad", "2").tags


def test_a_champion_that_follows_none_has_no_previous_one(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    for number in range(2):
        challenger(champion, tmp_path / f"same-{number}")
        promote(PromoteSettings(dataset=labelled))
    own_store.delete_registered_model_alias("ssad", "champion")
    promote(PromoteSettings("models:/ssad/3", labelled))
    assert aliases(own_store) == {"champion": "3", "challenger": "3"}


def test_a_rollback_where_the_champion_was_deleted_leaves_no_previous_one(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    challenger(champion, tmp_path / "same")
    promote(PromoteSettings(dataset=labelled))
    own_store.delete_registered_model_alias("ssad", "champion")
    promote(PromoteSettings(rollback=True))
    assert aliases(own_store) == {"champion": "1", "challenger": "2"}


def test_a_champion_that_is_broken_stops_no_rollback(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    challenger(champion, tmp_path / "same")
    promote(PromoteSettings(dataset=labelled))
    broken = f"models:/ssad/{aliases(own_store)['champion']}"

    def fetched(uri: str, folder: Path) -> FetchedModel:
        if uri == broken:
            raise BundleError("golden.json does not match its digest; fetch it again.")
        return fetch_model(uri, folder)

    monkeypatch.setattr("ssad.workflows.promote.fetch_model", fetched)
    with pytest.raises(RefusedError, match=r"nothing to compare with, golden.json .*; roll back, or delete the alias"):
        promote(PromoteSettings("models:/ssad/1", labelled))
    promote(PromoteSettings(rollback=True))
    assert aliases(own_store)["champion"] == "1"


def test_a_dry_run_tells_and_moves_nothing(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path
) -> None:
    version = challenger(champion, tmp_path / "bad", upside_down((champion.path / GRAPH).read_bytes()))
    before = aliases(own_store)
    result = promote(PromoteSettings(dataset=labelled, dry_run=True))
    assert not result.moved
    assert not all(check.passed for check in result.checks)
    assert aliases(own_store) == before
    assert "promotion" not in own_store.get_model_version("ssad", version).tags


def test_the_first_version_needs_no_champion_to_be_compared_with(
    own_store: MlflowClient, champion: Bundle, labelled: str
) -> None:
    own_store.delete_registered_model_alias("ssad", "champion")
    with pytest.raises(RefusedError, match="abnormal share of its training rows"):
        promote(PromoteSettings(dataset=labelled, max_abnormal=0.01))
    result = promote(PromoteSettings(dataset=labelled))
    assert result.former is None
    assert aliases(own_store) == {"champion": "1", "challenger": "1"}


def test_a_metric_that_is_no_number_does_not_pass(
    own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    challenger(champion, tmp_path / "same")
    monkeypatch.setattr("sklearn.metrics.average_precision_score", lambda *_: float("nan"))
    with pytest.raises(RefusedError, match=r"gain in average precision: \+nan"):
        promote(PromoteSettings(dataset=labelled))
    assert aliases(own_store)["champion"] == "1"


def test_a_deleted_version_is_named(own_store: MlflowClient, champion: Bundle, labelled: str, tmp_path: Path) -> None:
    version = challenger(champion, tmp_path / "same")
    own_store.delete_model_version("ssad", version)
    for candidate in (f"models:/ssad/{version}", "models:/ssad@challenger"):
        with pytest.raises(TrackingError, match=candidate):
            promote(PromoteSettings(candidate, labelled))


def test_columns_that_the_champions_clients_do_not_send_are_refused(champion: Bundle) -> None:
    first, *others = champion.schema.columns
    more = Bundle(champion.path)
    more.schema = TableSchema((replace(first, name="more"), replace(first, kind="boolean"), *others))
    assert checks._schema(champion, champion).passed
    assert checks._schema(champion, more).passed is False
    refused = checks._schema(more, champion)
    assert not refused.passed
    assert refused.value == f"more is new, {first.name} is boolean"
    found = checks.find_checks(champion, more, PromoteSettings())  # and no row is scored by both
    assert [(check.name, check.passed) for check in found] == [("golden rows", True), ("columns", False)]


@pytest.mark.every_back_end
def test_the_second_of_two_promoters_stops(own_store: MlflowClient, champion: Bundle, tmp_path: Path) -> None:
    version = challenger(champion, tmp_path / "same")
    with claimed(own_store, "ssad", "first"), pytest.raises(RefusedError, match="run first is promoting ssad"):
        promote(PromoteSettings())
    former = own_store.get_model_version_by_alias("ssad", "champion")
    own_store.set_registered_model_alias("ssad", "champion", version)
    with pytest.raises(RefusedError, match=f"changed from 1 to {version} meanwhile"):
        move_champion(own_store, "ssad", version, former)
    assert "previous" not in aliases(own_store)


@pytest.mark.parametrize("since", ["0", "soon", "99999999999", "-1", ""])
def test_a_claim_that_is_old_or_of_no_time_holds_nobody_off(own_store: MlflowClient, since: str) -> None:
    own_store.set_registered_model_tag("ssad", "ssad.promotion.x", since)
    with claimed(own_store, "ssad", "next"):
        pass


def test_a_claim_of_a_process_that_was_killed_goes_and_its_run_ends_and_one_of_a_living_process_stays(
    own_store: MlflowClient,
) -> None:
    run_id = own_store.create_run("0").info.run_id
    own_store.set_registered_model_tag("ssad", f"ssad.promotion.{run_id}", str(int(time.time())))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        own_store.set_tag(run_id, PROCESS, process_name(process.pid))
        told = f"run {run_id} is promoting ssad .* dead, in 60 min or when you deleted the model's tag ssad.promotion."
        with pytest.raises(RefusedError, match=told), claimed(own_store, "ssad", "next"):
            pass
        process.kill()
        process.wait()
    with claimed(own_store, "ssad", "next"):
        assert list(own_store.get_registered_model("ssad").tags) == ["ssad.promotion.next"]
    assert own_store.get_run(run_id).info.status == "KILLED"


def test_a_claim_of_another_thread_of_this_process_stays(own_store: MlflowClient) -> None:
    run_id = own_store.create_run("0", tags={PROCESS: process_name(os.getpid())}).info.run_id
    with claimed(own_store, "ssad", run_id), pytest.raises(RefusedError, match=run_id):
        promote(PromoteSettings())
    assert own_store.get_run(run_id).info.status == "RUNNING"


def test_a_signal_comes_too_late_once_the_alias_moves(
    own_store: MlflowClient, champion: Bundle, tmp_path: Path
) -> None:
    version = challenger(champion, tmp_path / "same")
    program = """
import os, signal
from ssad.workflows import promote
from ssad.workflows.stopping import stop_by_signals
stop_by_signals()
move = promote.move_champion
promote.move_champion = lambda *arguments: (move(*arguments), os.kill(os.getpid(), signal.SIGTERM))
promote.promote(promote.PromoteSettings())
"""
    run_python("-c", program, cwd=tmp_path, env=environment(own_store._tracking_client.tracking_uri)).check_returncode()
    assert aliases(own_store)["champion"] == version
    assert own_store.search_runs(["0"], max_results=1)[0].info.status == "FINISHED"


@pytest.mark.every_back_end
def test_two_claims_are_never_held_at_once(own_store: MlflowClient) -> None:
    """Many threads claim at the same moment; inside, each looks whether it is alone."""
    inside: list[str] = []
    together: list[int] = []
    start = threading.Barrier(4)

    def promoter(name: str) -> None:
        for turn in range(5):
            start.wait(PROCESS_SECONDS)
            try:
                with claimed(own_store, "ssad", f"{name}{turn}"):
                    inside.append(name)
                    together.append(len(inside))
                    inside.remove(name)
            except RefusedError:
                pass

    threads = [threading.Thread(target=promoter, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(together) <= {1}


def test_a_move_that_fails_half_way_is_undone(
    own_store: MlflowClient, champion: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = challenger(champion, tmp_path / "same")
    before = aliases(own_store)
    set_alias = MlflowClient.set_registered_model_alias

    def failing(client: MlflowClient, name: str, alias: str, number: str) -> None:
        if alias == "champion":
            raise MlflowException("the server went away")
        set_alias(client, name, alias, number)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", failing)
    with pytest.raises(TrackingError, match="went away"):
        promote(PromoteSettings(f"models:/ssad/{version}"))
    assert aliases(own_store) == before


def test_a_rollback_that_is_killed_between_its_two_moves_loses_no_version(
    own_store: MlflowClient, champion: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = challenger(champion, tmp_path / "same")
    promote(PromoteSettings(f"models:/ssad/{version}"))
    set_alias = MlflowClient.set_registered_model_alias
    moves: list[str] = []

    def killed(client: MlflowClient, name: str, alias: str, number: str) -> None:
        moves.append(alias)
        if len(moves) > 1:  # what a kill leaves is as the first move left it: nothing is undone
            monkeypatch.setattr(MlflowClient, "set_registered_model_alias", lambda *_: None)
            raise KeyboardInterrupt
        set_alias(client, name, alias, number)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", killed)
    with pytest.raises(KeyboardInterrupt):
        promote(PromoteSettings(rollback=True))
    assert (aliases(own_store)["champion"], moves) == ("1", ["champion", "previous"])


@pytest.mark.parametrize(
    ("method", "permission"),
    [("set_registered_model_tag", "EDIT"), ("get_model_version_by_alias", "READ"), ("get_model_version", "READ")],
)
def test_a_model_that_may_not_be_written_or_read_is_not_called_missing(
    own_store: MlflowClient, champion: Bundle, monkeypatch: pytest.MonkeyPatch, method: str, permission: str
) -> None:
    monkeypatch.setattr(MlflowClient, method, permission_denied)
    sentence = rf"\(Permission denied\); this account may not do that, ask for the permission {permission} on"
    with pytest.raises(TrackingError, match=sentence):
        promote(PromoteSettings("models:/ssad/1"))


def test_a_registry_without_aliases_is_named(
    own_store: MlflowClient, champion: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any) -> None:
        raise MlflowException("API not found", error_code=ENDPOINT_NOT_FOUND)

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", unknown)
    with pytest.raises(TrackingError, match=r"with aliases, of MLflow 2\.3 or newer"):
        promote(PromoteSettings("models:/ssad/1"))


@pytest.mark.parametrize(
    ("candidate", "sentence"),
    [
        ("models:/ssad/1", "is the champion already"),
        ("models:/other/1", "no registered model 'other'"),
        ("models:/ssad", "expected a registered version"),
    ],
)
def test_a_mistake_is_one_sentence_and_moves_nothing(own_store: MlflowClient, candidate: str, sentence: str) -> None:
    before = aliases(own_store)
    with pytest.raises(SsadError, match=sentence):
        promote(PromoteSettings(candidate))
    assert aliases(own_store) == before


def test_labels_of_one_class_cannot_compare(own_store: MlflowClient, champion: Bundle, tmp_path: Path) -> None:
    challenger(champion, tmp_path / "same")
    table = read_table("breast-cancer")
    table[table["label"] == "benign"].to_csv(tmp_path / "benign.csv", index=False)
    with pytest.raises(SsadError, match="one class"):
        promote(PromoteSettings(dataset=str(tmp_path / "benign.csv")))


def test_the_gain_of_the_same_scores_is_none_and_of_better_ones_surely_some() -> None:
    generator = np.random.default_rng(1)
    labels = (np.arange(300) % 10 == 0).astype(np.int64)
    good, bad = labels + generator.normal(0, 0.3, 300), labels + generator.normal(0, 3, 300)
    assert gain_interval(labels, good, good, average_precision_score) == (0, 0, 0)
    gain, low, high = gain_interval(labels, bad, good, average_precision_score)
    assert 0 < low < gain < high
    assert gain_interval(labels, good, bad, average_precision_score)[0] == -gain


def test_the_interval_of_a_gain_is_paired_of_both_classes_and_of_19_in_20_resamples() -> None:
    labels = (np.arange(2000) < 2).astype(np.int64)
    scores = np.random.default_rng(1).normal(size=2000)

    def mean(resampled: Labels, found: Floats) -> float:
        assert set(resampled) == {0, 1}
        return float(found.mean())

    assert gain_interval(labels, scores, scores + 1, mean) == pytest.approx((1, 1, 1))
    _, low, high = gain_interval(labels, np.zeros(2000), scores, mean)
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / np.sqrt(2000), rel=0.08)


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.sampled_from([0.0, 1.0])), min_size=2))
def test_the_correlation_of_decisions_is_matthews(rows: list[tuple[int, float]]) -> None:
    labels, called = map(np.asarray, zip(*rows, strict=True))
    assert phi(labels, called) == pytest.approx(matthews_corrcoef(labels, called), abs=1e-12)


def test_limits_out_of_their_range_are_named_together() -> None:
    with pytest.raises(SettingsError, match=r"min_gain .*; max_drift .*; max_abnormal"):
        PromoteSettings(min_gain=-2, max_drift=0, max_abnormal=1.5)
