"""A real service follows a real registry, whatever becomes of that."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from serving.follower import Follower
from serving.registry import Child, answer_of, resolve_over_http
from serving.settings import MULTIPROCESS, read_settings
from serving.source import Version
from serving.state import Service
from serving.store import Store, absolute
from ssad.bundle import Bundle
from ssad.bundle.bundle import MANIFEST
from ssad.errors import BundleError, TrackingError
from ssad.model_uri import ModelUri
from tests.conftest import default_store
from tests.serving.support import (
    ALIAS,
    DAMAGES,
    MODEL,
    SECONDS,
    SECRET,
    Registry,
    Running,
    children,
    running_service,
    until,
)
from tests.ssad.workflows.support import environment, free_port, web_server

pytestmark = [
    pytest.mark.slow,
    # httpx and the servers' logs are closed by the session's end, not by a test's.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

Rows = list[dict[str, Any]]

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

ASK = Child.ask

PROMOTIONS = int(os.environ.get("SSAD_TEST_PROMOTIONS", "50"))


@pytest.fixture(autouse=True)
def first_version(request: pytest.FixtureRequest) -> None:
    """Every test that shares the service starts from the first version."""
    if "following" in request.fixturenames:
        registry, following = request.getfixturevalue("registry"), request.getfixturevalue("following")
        registry.promote("first")
        following.reload()
        until(lambda: following.version == registry.versions["first"], "the first version is served again")
        until(lambda: following.refused_version is None, "no other one is tried any more")


def assert_consistent(answer: httpx.Response, registry: Registry) -> str:
    """An answer's region and confidence are those of the version that its header names."""
    assert answer.status_code == 200, answer.text
    version = answer.headers["x-model-version"]
    bundle: Bundle = registry.bundles[version]
    predictions = answer.json()["predictions"]
    wanted = bundle.decide(np.asarray([row["score"] for row in predictions])).records()
    assert predictions == wanted
    return version


def test_promotions_under_load_lose_no_request_and_mix_no_versions(
    registry: Registry, following: Running, rows: Rows
) -> None:
    body = {"records": rows}
    over = threading.Event()

    def load() -> Counter[str]:
        seen: Counter[str] = Counter()
        with httpx.Client(base_url=following.client.base_url, timeout=SECONDS) as client:
            while not over.is_set():
                seen[assert_consistent(client.post("/v1/score", json=body), registry)] += 1
        return seen

    loaded, polled = 'ssad_model_reloads_total{result="loaded"}', 'ssad_registry_polls_total{result="ok"}'
    polls = following.metric(polled)
    until(lambda: following.metric(polled) > polls, "what was loaded before this is counted")
    before = following.metric(loaded)
    with ThreadPoolExecutor(3) as pool:
        loads = [pool.submit(load) for _ in range(3)]
        try:
            for turn in range(PROMOTIONS):
                wanted = ("second", "first")[turn % 2]
                registry.promote(wanted)
                following.reload()
                until(
                    lambda w=wanted: following.version == registry.versions[w],  # type: ignore[misc]  # mypy infers no lambda with defaults
                    f"{wanted} is served",
                )
        finally:
            over.set()
        seen = sum((done.result() for done in loads), Counter())
    assert set(seen) == {registry.versions["first"], registry.versions["second"]}
    # A version is served before it is marked on the disk and counted.
    until(lambda: following.metric(loaded) >= before + PROMOTIONS, "the last promotion is counted")
    assert following.metric(loaded) == before + PROMOTIONS


def test_the_two_versions_decide_differently(registry: Registry) -> None:
    first, second = (registry.bundles[registry.versions[name]] for name in ("first", "second"))
    assert first.curve.thresholds != second.curve.thresholds


def test_rows_are_explained_by_a_version_that_was_fetched(following: Running, rows: Rows) -> None:
    answer = following.client.post("/v1/score?explain=1", json={"records": rows})
    assert answer.status_code == 200, answer.text
    assert all(len(row["features"]) == 1 for row in answer.json()["predictions"])


@pytest.mark.every_back_end
def test_a_promotion_takes_effect_without_a_hint(registry: Registry, following: Running) -> None:
    registry.promote("second")
    until(lambda: following.version == registry.versions["second"], "the second version is served")


@pytest.mark.parametrize("damage", sorted(DAMAGES.keys() - {"no-end"}))
def test_a_damaged_version_is_refused_and_the_old_one_kept(
    registry: Registry, following: Running, rows: Rows, damage: str
) -> None:
    refused = 'ssad_model_reloads_total{result="refused"}'
    before = following.metric(refused)
    registry.promote(damage)
    until(lambda: following.metric(refused) > before, "the version is refused")
    answer = following.client.post("/v1/score", json={"records": rows})
    assert assert_consistent(answer, registry) == registry.versions["first"]
    assert following.client.get("/readyz").status_code == 200
    assert following.refused_version == registry.versions[damage]
    assert following.client.get("/v1/model").json()["refused_version"] == registry.versions[damage]


@pytest.mark.parametrize("then", ["first", "second"])
def test_a_version_is_no_longer_told_as_refused_once_the_alias_stands_elsewhere(
    registry: Registry, following: Running, then: str
) -> None:
    registry.promote("truncated")
    until(lambda: following.refused_version == registry.versions["truncated"], "the version is refused")
    registry.promote(then)
    until(lambda: following.refused_version is None, "it is not told any more")
    until(lambda: following.version == registry.versions[then], "the version that is there now is served")


def test_an_alias_that_is_deleted_makes_the_served_version_stale(registry: Registry, following: Running) -> None:
    until(lambda: not following.client.get("/readyz").json()["stale"], "the registry answers")
    registry.client.delete_registered_model_alias(MODEL, ALIAS)
    until(lambda: following.client.get("/readyz").json()["stale"], "the registry tells no version")
    assert following.version == registry.versions["first"]


def test_the_model_page_tells_what_is_served(registry: Registry, following: Running) -> None:
    until(lambda: not following.client.get("/v1/model").json()["stale"], "the registry answers")
    model = following.client.get("/v1/model").json()
    assert (model["name"], model["version"], model["alias"]) == (MODEL, registry.versions["first"], "champion")
    assert model["metrics"] == {"test_auroc": 0.5}
    assert model["trained_at"] <= model["loaded_at"]
    assert model["run_id"]


def test_the_registrys_webhook_shortens_the_wait(registry: Registry, rows: Rows, tmp_path: Path) -> None:
    registry.promote("first")
    with running_service(registry.uri, tmp_path, SSAD_SERVE_POLL_SECONDS="3600") as running:
        url = str(running.client.base_url.join("/hooks/mlflow"))
        event: Any = "model_version_alias.created"
        hook = registry.client.create_webhook(name="promotions", url=url, events=[event], secret=SECRET)
        try:
            registry.promote("second")
            until(lambda: running.version == registry.versions["second"], "the hook is heeded")
        finally:
            registry.client.delete_webhook(hook.webhook_id)
        registry.promote("truncated")
        for times in (1, 2):  # it would be tried again in an hour
            running.reload()
            until(
                lambda n=times: running.metric('ssad_model_reloads_total{result="refused"}') >= n,  # type: ignore[misc]  # mypy infers no lambda with defaults
                "it is tried",
            )


@dataclass
class Between:
    """Stands between a service and the registry, and can fail in the registry's place."""

    uri: str = ""
    mode: str = "pass"


@pytest.fixture
def between(registry: Registry) -> Iterator[Between]:
    found = Between()

    class Relay(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            if found.mode == "500":
                self.send_error(500)
                return
            if found.mode == "slow":
                until(lambda: found.mode != "slow", "the registry is fast again")
            if found.mode == "nonsense":
                answer = httpx.Response(200, content=b"<html>not the registry</html>")
            else:
                answer = httpx.get(registry.uri + self.path, timeout=SECONDS)
            with contextlib.suppress(OSError):  # the service has stopped waiting
                self.send_response(answer.status_code)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

        do_POST = do_GET  # noqa: N815 - likewise

        def log_message(self, *_: object) -> None:
            pass

    registry.promote("first")
    with web_server(Relay) as found.uri:
        yield found
        found.mode = "pass"


def test_a_registry_that_fails_is_survived_and_followed_again_when_it_is_back(
    registry: Registry, between: Between, rows: Rows, tmp_path: Path
) -> None:
    body = {"records": rows}
    with running_service(between.uri, tmp_path) as running:
        for mode in ("500", "slow", "nonsense"):
            failed = running.metric('ssad_registry_polls_total{result="failed"}')
            between.mode = mode
            until(
                lambda f=failed: running.metric('ssad_registry_polls_total{result="failed"}') > f,  # type: ignore[misc]  # mypy infers no lambda with defaults
                mode,
            )
            assert_consistent(running.client.post("/v1/score", json=body), registry)
            assert running.client.get("/readyz").status_code == 200
            between.mode = "pass"
        between.mode = "500"
        until(lambda: running.client.get("/readyz").json()["stale"], "it says that it is stale")
        between.mode = "pass"
        registry.promote("second")
        until(lambda: running.version == registry.versions["second"], "the registry is followed again")
        until(lambda: not running.client.get("/readyz").json()["stale"], "it is no longer stale")


def test_a_registry_that_is_killed_is_survived_and_followed_again_without_a_secret_or_a_row_in_the_log(
    registry: Registry, rows: Rows, tmp_path: Path
) -> None:
    registry.promote("first")
    other = replace(registry, port=free_port())
    uri = other.uri.replace("://", "://somebody:hunter2@")
    with other.running() as process, running_service(uri, tmp_path) as running:
        os.killpg(process.pid, signal.SIGKILL)
        until(lambda: running.client.get("/readyz").json()["stale"], "it says that it is stale")
        until(lambda: running.metric('ssad_registry_polls_total{result="failed"}') > 0, "that is counted")
        answer = running.client.post("/v1/score", json={"records": rows})
        assert (answer.status_code, answer.headers["x-model-version"]) == (200, registry.versions["first"])
        bad = {"records": [{**rows[0], "amount": "4111-1111"}]}
        headers = {"X-API-Key": "open sesame"}
        assert running.client.post("/v1/score?key=open-sesame", json=bad, headers=headers).status_code == 422
        with other.running():
            other.promote("second")
            until(lambda: running.version == registry.versions["second"], "the registry is followed again")
            until(lambda: not running.client.get("/readyz").json()["stale"], "it is no longer stale")
    (log,) = tmp_path.glob("server-*.log")
    said = log.read_text()
    assert "does not tell which version" in said
    assert '"path":"/v1/score","status":422' in said
    for hidden in ("hunter2", "4111-1111", "sesame", "transfer"):
        assert hidden not in said


@pytest.mark.skipif(not FAKETIME.exists(), reason="only libfaketime makes another process's clock jump")
@pytest.mark.parametrize("jump", ["+3000d", "-3000d"])
def test_a_clock_that_jumps_stops_nothing(registry: Registry, rows: Rows, tmp_path: Path, jump: str) -> None:
    registry.promote("first")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    fake["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"  # no system lets that one jump
    with running_service(registry.uri, tmp_path, (), sys.executable, "http", **fake) as running:
        loaded = running.client.get("/v1/model").json()["loaded_at"]
        clock.write_text(jump)
        registry.promote("second")
        until(lambda: running.version == registry.versions["second"], "the second version is served")
        assert abs(int(running.client.get("/v1/model").json()["loaded_at"][:4]) - int(loaded[:4])) >= 8
        assert running.client.post("/v1/score", json={"records": rows}).status_code == 200
        until(lambda: not running.client.get("/readyz").json()["stale"], "the registry is still asked")


def test_it_starts_from_its_last_good_bundle_when_the_registry_is_down(
    registry: Registry, between: Between, rows: Rows, tmp_path: Path
) -> None:
    with running_service(between.uri, tmp_path) as running:
        assert running.version == registry.versions["first"]
        running.process.kill()  # kill -9: nothing is tidied up
    between.mode = "500"
    with running_service(between.uri, tmp_path) as running:
        ready = running.client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["stale"] is True
        answer = running.client.post("/v1/score", json={"records": rows})
        assert assert_consistent(answer, registry) == registry.versions["first"]
        between.mode = "pass"
        until(lambda: not running.client.get("/readyz").json()["stale"], "the registry is back")


def test_a_version_that_is_named_starts_without_the_registry_too(
    registry: Registry, between: Between, tmp_path: Path
) -> None:
    named = f"models:/{MODEL}/{registry.versions['second']}"
    for between.mode in ("pass", "500"):
        with running_service(between.uri, tmp_path, SSAD_SERVE_MODEL=named) as running:
            assert running.version == registry.versions["second"]
            assert running.client.get("/readyz").json()["stale"] is False


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("damaged", ["detector.onnx", "source.json"])
def test_a_last_good_bundle_that_was_damaged_is_fetched_again(registry: Registry, tmp_path: Path, damaged: str) -> None:
    registry.promote("first")
    uri = f"models:/{MODEL}@{ALIAS}"
    with follower_of(uri, tmp_path):
        pass
    (file,) = tmp_path.glob(f"**/{damaged}")
    whole = file.read_bytes()
    file.write_bytes(whole[:10])
    with follower_of(uri, tmp_path) as (service, _):
        assert service.current().source.version == registry.versions["first"]
        assert file.read_bytes() == whole


def test_it_starts_from_the_version_before_where_another_service_removed_the_last_good_one(
    registry: Registry, between: Between, rows: Rows, tmp_path: Path
) -> None:
    with running_service(between.uri, tmp_path) as running:
        registry.promote("second")
        until(lambda: running.version == registry.versions["second"], "the second version is served")
        (marked,) = running.cache.rglob("last-good.json")
        until(lambda: len(json.loads(marked.read_text())) == 2, "it is marked as good, after the first one")
        running.process.kill()
    last_good, _ = json.loads(marked.read_text())
    shutil.rmtree(marked.with_name(last_good))  # as one that shares the cache does with what it has not marked
    with running_service(between.uri, tmp_path) as running:
        assert running.version == registry.versions["second"]  # fetched again
    shutil.rmtree(marked.with_name(last_good))
    between.mode = "500"
    with running_service(between.uri, tmp_path) as running:
        assert running.client.get("/readyz").json()["stale"] is True
        answer = running.client.post("/v1/score", json={"records": rows})
        assert assert_consistent(answer, registry) == registry.versions["first"]
        between.mode = "pass"
        until(lambda: running.version == registry.versions["second"], "the registry is back")


@pytest.mark.usefixtures("in_process")
def test_what_a_killed_process_had_half_fetched_is_removed(registry: Registry, tmp_path: Path) -> None:
    registry.promote("first")
    with follower_of(f"models:/{MODEL}@{ALIAS}", tmp_path) as (service, follower):
        (kept,) = tmp_path.rglob("last-good.json")
        abandoned, fetching = kept.with_name("incoming-abandoned"), kept.with_name("incoming-fetching")
        abandoned.mkdir()
        fetching.mkdir()
        os.utime(abandoned, (0, 0))
        registry.promote("second")
        follower.wake()
        until(lambda: service.current().source.version == registry.versions["second"], "the second version is served")
        assert not abandoned.exists()
        assert fetching.exists()


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "file:mlruns", "file://./mlruns", "./mlruns", ""])
def test_what_is_kept_of_a_relative_registry_is_that_of_its_folder(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for folder in ("one", "other", "one"):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        Store(read_settings(cache=tmp_path / "cache"))
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    "uri", ["https://registry/x", "postgresql://u:p@h/db", "sqlite:////data/mlflow.db", "file:///r"]
)
def test_what_is_kept_of_any_other_registry_is_the_same_from_every_folder(uri: str) -> None:
    assert absolute(uri) == uri


@pytest.fixture
def in_process(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry is this process's default, and here is answered what a child would: its MLflow is loaded already."""
    monkeypatch.setattr(Child, "ask", lambda _, question, seconds: json.loads(json.dumps(answer_of(question))))
    with default_store(registry.uri):
        yield


@contextmanager
def follower_of(uri: str, cache: Path, **more: Any) -> Iterator[tuple[Service, Follower]]:
    patient = {"poll_seconds": 0.05, "registry_timeout_seconds": SECONDS}
    service = Service(read_settings(model=uri, cache=cache, **patient, **more))
    follower = Follower(service)
    follower.load_first()
    follower.start()
    try:
        yield service, follower
    finally:
        follower.stop()
        service.pool.shutdown()


def make_anew(registry: Registry, name: str, purpose: str) -> None:
    """Delete a registered model and register another one, whose version has the number 1 again."""
    client = registry.client
    with contextlib.suppress(MlflowException):
        client.delete_registered_model(name)
    client.create_registered_model(name)
    like = client.get_model_version(MODEL, registry.versions[purpose])
    assert str(client.create_model_version(name, str(like.source), like.run_id).version) == "1"
    client.set_registered_model_alias(name, ALIAS, "1")


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("uri", [f"models:/again@{ALIAS}", "models:/again/1"])
def test_a_model_made_anew_is_served_though_its_version_has_the_number_of_the_old_one(
    registry: Registry, uri: str, tmp_path: Path
) -> None:
    first, second = (registry.bundles[registry.versions[name]].curve.thresholds for name in ("first", "second"))
    make_anew(registry, "again", "first")
    with follower_of(uri, tmp_path) as (service, follower):
        assert service.current().bundle.curve.thresholds == first
        make_anew(registry, "again", "second")
        follower.wake()
        until(lambda: service.current().bundle.curve.thresholds == second, "the new version 1 is served")
    make_anew(registry, "again", "other-columns")
    with follower_of(uri, tmp_path) as (service, _):
        until(lambda: "colour" in service.current().bundle.schema.graph_order, "the new one's own columns are served")
        assert service.current().source.version == "1"


@pytest.mark.usefixtures("in_process")
def test_a_version_is_the_same_whether_a_server_or_mlflow_is_asked(registry: Registry) -> None:
    registry.promote("first")
    first, second = (ModelUri(MODEL, version=registry.versions[name]) for name in ("first", "second"))
    told = [resolve_over_http(read_settings(), uri) for uri in (first, second, ModelUri(MODEL, alias=ALIAS))]
    assert told == [Version(**answer_of({"do": "resolve", "uri": str(uri)})) for uri in (first, second, first)]
    assert told[0].identity != told[1].identity


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, r"\(401\); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"),
        (403, r"\(403\); ask its administrator for the permission READ on the registered model\.$"),
        (502, r"\(502\); check that it runs and has it\.$"),
    ],
)
def test_a_refusal_in_plain_words_is_told_by_its_status_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, status: int, sentence: str
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"You are not authenticated.")  # as MLflow's basic-auth app does: no JSON

        def log_message(self, *_: object) -> None:
            """Nothing on the way to standard error."""

    with web_server(Refusing) as address:
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", address)
        with pytest.raises(TrackingError, match=sentence):
            resolve_over_http(read_settings(), ModelUri(MODEL, alias=ALIAS))


@pytest.mark.usefixtures("in_process")
def test_a_version_that_was_served_comes_back_whatever_columns_it_needs(registry: Registry, tmp_path: Path) -> None:
    registry.promote("other-columns")
    more = registry.versions["other-columns"]
    uri = f"models:/{MODEL}@{ALIAS}"
    with follower_of(uri, tmp_path, allow_new_columns=True) as (service, follower):
        registry.promote("first")
        follower.wake()
        until(lambda: service.current().source.version == registry.versions["first"], "other columns are served")
    with follower_of(uri, tmp_path) as (service, follower):  # after a restart, from the disk
        assert service.current().source.version == registry.versions["first"]
        registry.promote("other-columns")
        follower.wake()
        until(lambda: service.current().source.version == more, "the version before is served again")


@pytest.mark.usefixtures("in_process")
def test_a_version_that_another_service_keeps_in_the_same_cache_must_need_no_new_columns_here(
    registry: Registry, tmp_path: Path
) -> None:
    registry.promote("first")
    more = registry.versions["other-columns"]
    uri = f"models:/{MODEL}@{ALIAS}"
    with follower_of(uri, tmp_path, allow_new_columns=True) as (other, other_follower):
        service = Service(read_settings(model=uri, cache=tmp_path, poll_seconds=0.05))
        follower = Follower(service)
        follower.load_first()
        registry.promote("other-columns")
        other_follower.wake()
        until(lambda: other.current().source.version == more, "the one that may serves it")
        (kept,) = tmp_path.glob(f"*/v{more}-*")
        follower.start()
        refused = b'ssad_model_reloads_total{result="refused"} 1.0'
        until(lambda: refused in service.metrics.exposition(), "the other one refuses it")
        follower.stop()
        assert service.current().source.version == registry.versions["first"]
        assert kept.exists()


@pytest.mark.usefixtures("in_process")
def test_a_version_whose_rows_are_scored_without_end_is_refused(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.promote("first")
    uri = f"models:/{MODEL}@{ALIAS}"
    # The first version is kept by another one: a check of it could take longer than the time that there is from now on.
    with follower_of(uri, tmp_path):
        pass
    answered_here = Child.ask

    def ask(child: Child, question: dict[str, Any], seconds: float) -> Any:
        return (ASK if question["do"] == "check" else answered_here)(child, question, seconds)

    monkeypatch.setattr(Child, "ask", ask)
    with follower_of(uri, tmp_path, fetch_timeout_seconds=2) as (service, follower):
        registry.promote("no-end")
        follower.wake()
        refused = until(lambda: service.refused, "the version is refused")
        assert refused.number == registry.versions["no-end"]
        assert service.current().source.version == registry.versions["first"]


@pytest.mark.usefixtures("in_process")
def test_latest_is_the_newest_version(registry: Registry, tmp_path: Path) -> None:
    make_anew(registry, "newest", "first")
    like = registry.client.get_model_version(MODEL, registry.versions["second"])
    registry.client.create_model_version("newest", str(like.source), like.run_id)
    with follower_of("models:/newest/latest", tmp_path) as (service, _):
        assert service.current().source.version == "2"


def test_a_bundles_folder_is_served_as_it_is_at_the_start(bundle_folder: Path, tmp_path: Path) -> None:
    with follower_of(str(bundle_folder), tmp_path) as (service, _):
        served = service.current()
        assert (served.source.name, served.source.version) == (None, None)
        assert served.bundle.curve.to_json() == Bundle(bundle_folder).curve.to_json()


def test_what_is_wrong_with_a_bundle_is_said_by_the_name_it_was_given(bundle_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(bundle_folder, tmp_path / "other")
    (other / MANIFEST).write_text('{"format_version": 99}')
    follower = Follower(Service(read_settings(model=str(other), cache=tmp_path / "cache")))
    with pytest.raises(BundleError, match=f"^the bundle {other} has format version 99"):
        follower.load_first()


def test_every_request_is_answered_while_it_drains(registry: Registry, rows: Rows, tmp_path: Path) -> None:
    registry.promote("first")
    body = {"records": rows}

    def load(url: httpx.URL) -> int:
        """Send until the service asks to close the connection."""
        with httpx.Client(base_url=url, timeout=SECONDS) as client:
            for answered in range(1, 1_000_000):
                answer = client.post("/v1/score", json=body)
                assert_consistent(answer, registry)
                if answer.headers.get("connection") == "close":
                    return answered
        raise AssertionError("the service never asked to close")

    with (
        running_service(registry.uri, tmp_path, SSAD_SERVE_DRAIN_SECONDS="3600") as running,
        ThreadPoolExecutor(4) as pool,
    ):
        loads = [pool.submit(load, running.client.base_url) for _ in range(4)]
        scored = 'http_request_duration_seconds_count{handler="/v1/score"}'
        until(lambda: running.metric(scored) > 20, "there is load")
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.client.get("/readyz").status_code == 503, "it says that it drains")
        assert sum(done.result() for done in loads) > 20
        running.process.send_signal(signal.SIGTERM)  # who sends it again does not wait for the pause to end
        assert running.process.wait(SECONDS) == 0


def begun(running: Running, path: str = "/v1/score") -> socket.socket:
    """A connection with a request whose body does not end."""
    url = running.client.base_url
    assert url.port is not None
    connection = socket.create_connection((url.host, url.port), timeout=SECONDS)
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{".encode())
    return connection


def test_a_request_that_is_cut_off_at_the_end_is_told_to_ask_again(registry: Registry, tmp_path: Path) -> None:
    registry.promote("first")
    with running_service(registry.uri, tmp_path, SSAD_SERVE_SHUTDOWN_SECONDS="0") as running:
        with begun(running) as connection:
            until(lambda: running.metric("http_requests_in_progress") == 2, "it is being answered, beside the scrape")
            running.process.send_signal(signal.SIGTERM)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert running.process.wait(SECONDS) == 0
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in head
    assert json.loads(body)["detail"] == "the service ends before this is answered; ask again."
    (log,) = tmp_path.glob("server-*.log")
    assert '"path":"/v1/score","status":503' in log.read_text()


def worker_processes(running: Running) -> list[int]:
    """The workers of a service that has several."""
    found = []
    for child in children(running.process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def answers(running: Running) -> bool:
    """Whether a service answers who has not asked before."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(running.client.base_url.join("/readyz"), timeout=SECONDS).status_code == 200
    return False


def test_two_workers_answer_and_count_together(registry: Registry, rows: Rows, tmp_path: Path) -> None:
    registry.promote("first")
    with running_service(registry.uri, tmp_path, SSAD_SERVE_WORKERS="2") as running:
        answers = []
        for _ in range(20):  # a new connection each, so that both workers get some
            url = running.client.base_url.join("/v1/score")
            answers.append(httpx.post(url, json={"records": rows}, timeout=SECONDS))
        assert {assert_consistent(answer, registry) for answer in answers} == {registry.versions["first"]}
        scored = "ssad_predictions_total"
        until(lambda: running.metric(scored) == 20 * len(rows), "both workers' rows are counted")
        registry.promote("second")
        until(lambda: running.metric('ssad_model_reloads_total{result="loaded"}') == 2, "both workers have followed")
        until(lambda: running.metric("ssad_model_info") == 1, "the first version is no longer told")
        workers = children(running.process.pid)
        os.kill(workers[-1], signal.SIGKILL)
        # A new connection: a kept one may have been the killed worker's.
        assert_consistent(httpx.post(url, json={"records": rows}, timeout=SECONDS), registry)


def test_what_a_worker_that_died_was_answering_is_no_longer_in_progress(registry: Registry, tmp_path: Path) -> None:
    registry.promote("first")
    with running_service(registry.uri, tmp_path, SSAD_SERVE_WORKERS="2") as running, begun(running):
        until(lambda: running.metric("http_requests_in_progress") >= 2, "it is being answered, beside the scrape")
        for worker in worker_processes(running):
            os.kill(worker, signal.SIGKILL)
        # Kept connections were the killed ones'.
        with httpx.Client(base_url=running.client.base_url, timeout=SECONDS) as running.client:
            until(lambda: running.metric("http_requests_in_progress") == 1, "nothing is, but the scrape")


def test_workers_that_die_leave_no_more_files_and_lose_no_count(registry: Registry, rows: Rows, tmp_path: Path) -> None:
    registry.promote("first")
    settings = {"SSAD_SERVE_WORKERS": "2", "TMPDIR": str(tmp_path), MULTIPROCESS: str(tmp_path / "another program's")}
    with running_service(registry.uri, tmp_path, (), sys.executable, "http", **settings) as running:
        died: set[int] = set()
        for scored in (1, 2, 3):
            httpx.post(running.client.base_url.join("/v1/score"), json={"records": rows}, timeout=SECONDS)
            # Kept connections were the killed ones'.
            with httpx.Client(base_url=running.client.base_url, timeout=SECONDS) as running.client:
                until(lambda n=scored: running.metric("ssad_predictions_total") == n * len(rows), "all are counted")  # type: ignore[misc]  # mypy infers no lambda with defaults
            died.update(worker_processes(running))
            for worker in died.intersection(worker_processes(running)):
                os.kill(worker, signal.SIGKILL)
            until(lambda: len(set(worker_processes(running)) - died) == 2, "they are replaced")
            until(lambda: answers(running), "the new ones answer")
        files = list(tmp_path.glob("ssad-metrics-*/gauge_mostrecent_*.db"))
    assert len(died) == 6
    assert 2 <= len(files) <= 3, files  # 3: a place that is just being looked at is not taken


def test_workers_end_with_their_parent_and_give_the_port_back(registry: Registry, tmp_path: Path) -> None:
    registry.promote("first")
    with running_service(registry.uri, tmp_path, SSAD_SERVE_WORKERS="2") as running:
        address = "127.0.0.1", running.client.base_url.port
        running.process.kill()  # as a system that is out of memory may: it is told nothing

        def free() -> bool:
            with closing(socket.socket()) as own, contextlib.suppress(OSError):
                own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                own.bind(address)
                return True
            return False

        until(free, "a supervisor can start it again")


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


def fill(path: Path) -> None:
    """Write a file until its disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


@pytest.mark.skipif(not can_mount(), reason="a small disk can only be made where namespaces are allowed")
def test_a_full_disk_keeps_the_old_version(registry: Registry, rows: Rows, tmp_path: Path) -> None:
    registry.promote("first")
    (tmp_path / "cache").mkdir()
    script = 'mount -t tmpfs -o size=1500k none "$SSAD_SERVE_CACHE" && exec "$@"'
    wrap = ("unshare", "-rm", "bash", "-c", script, "bash")
    with running_service(registry.uri, tmp_path, wrap) as running:
        disk = Path(f"/proc/{running.process.pid}/root{running.cache}")
        filler = disk / "filler"
        fill(filler)
        failed = 'ssad_model_reloads_total{result="failed"}'
        registry.promote("second")
        until(lambda: running.metric(failed) >= 1, "the version cannot be kept")
        assert_consistent(running.client.post("/v1/score", json={"records": rows}), registry)
        assert running.version == registry.versions["first"]
        filler.unlink()
        until(lambda: running.version == registry.versions["second"], "there is room again")


@pytest.mark.skipif(not can_mount(), reason="a small disk can only be made where namespaces are allowed")
def test_a_disk_of_temporary_files_that_fills_ends_no_worker(registry: Registry, rows: Rows, tmp_path: Path) -> None:
    registry.promote("first")
    (tmp_path / "temporary").mkdir()
    settings = {"SSAD_SERVE_WORKERS": "2", "TMPDIR": str(tmp_path / "temporary")}
    wrap = ("unshare", "-rm", "bash", "-c", 'mount -t tmpfs -o size=4m none "$TMPDIR" && exec "$@"', "bash")
    with running_service(registry.uri, tmp_path, wrap, sys.executable, "http", **settings) as running:
        fill(Path(f"/proc/{running.process.pid}/root{settings['TMPDIR']}") / "filler")
        killed, *kept = worker_processes(running)
        os.kill(killed, signal.SIGKILL)  # its successor counts on in its files
        until(lambda: len(set(worker_processes(running)) - {killed}) == 2, "it is replaced")
        until(lambda: answers(running), "the others answer")
        workers = worker_processes(running)
        for path in ("/v1/score", "/invocations", "/v1/drift", "/v1/model", "/docs", *map(str, range(100))):
            for method in ("GET", "POST", "PUT"):  # each is counted apart
                url = running.client.base_url.join(path)
                httpx.request(method, url, json={"records": 100 * rows}, timeout=SECONDS)
        until(lambda: worker_processes(running) == workers and answers(running), "they answer")
        # Kept connections were the killed one's.
        with httpx.Client(base_url=running.client.base_url, timeout=SECONDS) as running.client:
            counted = 100 * len(rows)
            until(lambda: running.metric("ssad_predictions_total") == counted, "all are counted")
        assert set(kept) < set(worker_processes(running)) == set(workers)


def test_a_child_is_ended_once_whoever_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    child, together, pipe = Child(), threading.Barrier(5), subprocess.PIPE
    silent = [sys.executable, "-c", "import signal; signal.pause()"]
    process = child._process = subprocess.Popen(silent, stdin=pipe, stdout=pipe)

    def ask() -> None:
        together.wait(SECONDS)
        child.ask({"do": "resolve", "uri": "models:/none/1"}, SECONDS)

    def stop() -> None:
        together.wait(SECONDS)
        child.stop()

    with ThreadPoolExecutor(5) as pool:
        asking, stopping = pool.submit(ask), [pool.submit(stop) for _ in range(4)]
        assert [one.result(SECONDS) for one in stopping] == 4 * [None]
        with pytest.raises(TrackingError):
            asking.result(SECONDS)
    child.stop()
    assert process.wait(SECONDS) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("sys.stdin.readline(); sys.exit(3)", "asks the registry ended with status 3; see what it said"),
        ("sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL; .*give it more memory"),
        ("signal.pause()", "did not answer within 0 s; check that it runs"),
    ],
)
def test_a_child_that_ends_is_not_told_as_a_registry_that_is_silent(does: str, told: str) -> None:
    child, pipe = Child(), subprocess.PIPE
    command = [sys.executable, "-c", f"import os, signal, sys; {does}"]
    child._process = subprocess.Popen(command, stdin=pipe, stdout=pipe)
    with pytest.raises(TrackingError, match=told):
        child.ask({"do": "resolve", "uri": "models:/none/1"}, 0.1 if "pause" in does else SECONDS)


def test_a_child_that_cannot_be_started_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(TrackingError, match=r"cannot be started \(No such file or directory\); give this service more"):
        Child().ask({"do": "resolve", "uri": "models:/none/1"}, SECONDS)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 looks for modules where it starts")
def test_the_child_takes_no_module_of_the_folder_it_starts_in(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('this is not NumPy')")
    monkeypatch.chdir(tmp_path)
    child = Child()
    try:
        assert child.ask({"do": "check", "uri": str(bundle_folder)}, SECONDS) is None
    finally:
        child.stop()


def test_the_child_that_has_mlflow_ends_with_its_parent(registry: Registry) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "serving.registry"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment(registry.uri)) as child:
        answer, _ = child.communicate(b'{"do": "resolve", "uri": "models:/payments@nobody"}\n', timeout=SECONDS)
        assert "nobody cannot be loaded" in json.loads(answer)["error"]
        assert child.wait(SECONDS) == 0


def test_the_child_that_has_mlflow_leaves_ctrl_c_to_its_parent(registry: Registry) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "serving.registry"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment(registry.uri)) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(2):
            child.stdin.write(b'{"do": "resolve", "uri": "models:/payments@nobody"}\n')
            child.stdin.flush()
            assert child.stdout.readline()
            child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=SECONDS)
        assert (child.returncode, b"Traceback" in said) == (0, False)
