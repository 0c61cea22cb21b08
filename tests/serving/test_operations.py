"""Real services in an unkind world: TLS, addresses in use, disks that are full, traces."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from serving.follower import Follower
from serving.main import bound_socket, listen
from serving.settings import read_settings
from serving.state import Service
from ssad.errors import SettingsError
from tests.conftest import small_disk
from tests.serving.support import SECONDS, certificate, running_service, service_environment
from tests.ssad.workflows.support import free_port, run_python, web_server

pytestmark = [
    pytest.mark.slow,
    # httpx and the servers' logs are closed by the session's end, not by a test's.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

Rows = list[dict[str, Any]]


def test_a_client_that_trusts_its_certificate_is_answered_over_tls(
    bundle_folder: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = certificate(tmp_path) | {"SSAD_SERVE_MODEL": str(bundle_folder)}
    with monkeypatch.context() as trusting:
        trusting.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))  # which httpx reads
        with running_service("", tmp_path, (), sys.executable, "https", **settings) as service:
            assert service.client.post("/v1/score", json={"records": rows}).status_code == 200
            url = service.client.base_url
            with pytest.raises(httpx.TransportError):
                httpx.get(url.copy_with(scheme="http"))
            trusting.delenv("SSL_CERT_FILE")
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                httpx.get(url)


def test_a_certificate_that_cannot_be_used_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in certificate(tmp_path).items():
        monkeypatch.setenv(name, value)
    read_settings()
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(SettingsError, match=r"SSAD_SERVE_TLS_KEY: .*must be the readable PEM key"):
        read_settings()
    (tmp_path / "certificate.pem").write_text("no certificate")
    with pytest.raises(SettingsError, match=r"SSAD_SERVE_TLS_CERTIFICATE: .*must be a readable file") as refused:
        read_settings()
    assert "TLS_KEY" not in str(refused.value)
    monkeypatch.delenv("SSAD_SERVE_TLS_CERTIFICATE")
    with pytest.raises(SettingsError, match=r"SSAD_SERVE_TLS_KEY: .*needs SSAD_SERVE_TLS_CERTIFICATE"):
        read_settings()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_address_that_is_in_use_is_told_in_a_sentence_before_anything_starts(tmp_path: Path, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        env = service_environment("http://127.0.0.1:9", tmp_path / "cache", SSAD_SERVE_WORKERS=workers)
        serve = ("-m", "ssad.cli", "serve", "--model", "models:/nothing@champion", "--port", port)
        ended = run_python(*serve, cwd=tmp_path, env=env)
    told = f"ssad: nothing can listen at 127.0.0.1, port {port} (Address already in use); choose another by"
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(told), ended.stderr
    assert ended.stderr.count("\n") == 1


def test_workers_whose_counts_find_no_room_are_told_in_a_sentence_before_anything_starts(tmp_path: Path) -> None:
    with small_disk(tmp_path, "1m") as disk:
        more = {"SSAD_SERVE_WORKERS": "2", "TMPDIR": str(disk)}
        env = service_environment("http://127.0.0.1:9", tmp_path / "cache", **more)
        ended = run_python("-m", "ssad.cli", "serve", "--port", "0", cwd=tmp_path, env=env)
        left = list(disk.iterdir())
    told = (
        "ssad: the files in which 2 workers count cannot be made in the temporary folder (No space left on device); "
        "make room for 2 MiB there, or set TMPDIR to another.\n"
    )
    assert (ended.returncode, ended.stdout, ended.stderr, left) == (2, "", told, [])


def test_an_address_that_is_taken_while_a_bundle_is_fetched_is_told_too() -> None:
    settings = read_settings(port=free_port())
    with closing(bound_socket(settings)) as first, closing(bound_socket(settings)) as second:
        listen(first, settings)
        with pytest.raises(SettingsError, match="nothing can listen at"):
            listen(second, settings)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, r"\(No space left on device\); make room in it"),
        (errno.EROFS, r"\(Read-only file system\); let the service write there"),
    ],
)
def test_a_folder_that_takes_no_bundle_is_told_in_a_sentence(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    follower = Follower(Service(read_settings(model=str(bundle_folder), cache=tmp_path)))
    monkeypatch.setattr("tempfile.mkdtemp", Mock(side_effect=OSError(number, os.strerror(number))))
    with pytest.raises(SettingsError, match=f"takes no bundle {told}, or set SSAD_SERVE_CACHE"):
        follower.load_first()


@dataclass
class Collector:
    """Takes traces by OTLP over HTTP at an address."""

    address: str = ""
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def spans(self) -> list[Any]:
        return [s for r in self.requests for of in r.resource_spans for scope in of.scope_spans for s in scope.spans]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class Export(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server calls
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with web_server(Export) as found.address:
        yield found


def test_each_request_is_a_span_that_says_nothing_of_its_rows(
    bundle_folder: Path, rows: Rows, collector: Collector, tmp_path: Path
) -> None:
    endpoint, model = f"{collector.address}/v1/traces", str(bundle_folder)
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "X-API-Key": "a secret", "User-Agent": "a client"}
    with running_service("", tmp_path, SSAD_SERVE_TRACES_ENDPOINT=endpoint, SSAD_SERVE_MODEL=model) as running:
        answer = running.client.post("/v1/score", json={"records": rows}, headers=headers)
        assert answer.status_code == 200
        assert running.client.post("/v1/score?key=a-secret", json={}).status_code == 422
        assert running.client.get("/4111-1111", headers={"tracestate": "a=secret"}).status_code == 404
        running.client.get("/livez")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(SECONDS) == 0  # what was not sent yet is sent at the end
    spans = sorted(collector.spans, key=lambda span: span.start_time_unix_nano)
    assert [span.trace_id.hex() == trace for span in spans] == [True, False, False]
    told = [[span.name, *(_value(attribute.value) for attribute in span.attributes)] for span in spans]
    assert told == [
        ["POST /v1/score", "POST", "/v1/score", 200],
        ["POST /v1/score", "POST", "/v1/score", 422],
        ["GET other", "GET", "other", 404],
    ]
    for hidden in ("secret", "client", "amount", "4111"):
        assert hidden not in str(collector.requests)


def _value(value: Any) -> Any:
    """Of an attribute, whatever its type."""
    return getattr(value, value.WhichOneof("value"))
