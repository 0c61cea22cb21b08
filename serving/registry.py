"""Looking into the registry and fetching from it, without MLflow in the serving process.

MLflow takes a second and 150 MiB to import, and none of it is needed to score. Where the registry is a
server, its alias is read over REST; what else there is to do, a child process does: `python -m
serving.registry` reads one question a line, and answers each with a line.
"""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

from serving.checking import load_checked
from serving.settings import Settings
from serving.source import Fetched, Source, Version
from ssad.bundle.logged_model import check_registered, read_logged
from ssad.errors import BundleError, TrackingError, disk_is_full, how_it_ended, reason_of, without_secrets
from ssad.model_uri import ModelUri

CHILD_ENVIRONMENT = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""The next poll tries again: MLflow's own retries would last for minutes."""

INSTALLED_CHILD = """
import sys
sys.path = [folder for folder in sys.path if folder]
from serving.registry import serve_questions
serve_questions()
"""
"""What the child of an installed copy runs: nothing from the current folder; Python 3.10 has no `PYTHONSAFEPATH`."""

REMEDIES = {
    401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    403: "ask its administrator for the permission READ on the registered model",
}
"""What to do about a status of the registry's; about others, to see whether it runs and has the version."""


class Registry:
    """The registry that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._child = Child()
        self._over_http = urlparse(settings.registry_uri).scheme in ("http", "https")

    def resolve(self, uri: ModelUri) -> Version:
        """The version that an alias or a number means now.

        Raises:
            TrackingError: the registry does not answer, or has no such version.
        """
        if self._over_http:
            return resolve_over_http(self._settings, uri)
        # The first question waits for MLflow to be imported.
        found = self._child.ask({"do": "resolve", "uri": str(uri)}, self._settings.fetch_timeout_seconds)
        return Version(**found)

    def fetch(self, uri: str, folder: Path) -> Fetched:
        """Download the model at a URI that has no alias.

        Raises:
            BundleError: it is no model of this project.
            TrackingError: there is none, or the registry is away.
        """
        question = {"do": "fetch", "uri": uri, "folder": str(folder)}
        found = self._child.ask(question, self._settings.fetch_timeout_seconds)
        return Fetched(Source(**found["source"]), Path(found["path"]))

    def check(self, path: Path) -> None:
        """Score a bundle's golden rows in the child process: a graph that never ends is ended with it.

        Raises:
            BundleError: they cannot be scored, score differently from training time, take too long, or end the process.
        """
        seconds = self._settings.fetch_timeout_seconds
        try:
            self._child.ask({"do": "check", "uri": str(path)}, seconds)
        except TrackingError:
            raise BundleError(
                f"the process that scores the golden rows of the bundle {path} ended, or took longer than "
                f"{seconds:.0f} s; see this service's log, give it more memory, or train again."
            ) from None

    def rest(self) -> None:
        """End the child process where the next alias is read without it."""
        if self._over_http:
            self._child.stop()

    def close(self) -> None:
        """End the child process."""
        self._child.stop()


def resolve_over_http(settings: Settings, uri: ModelUri) -> Version:
    """What `Registry.resolve` does where the registry is a server."""
    import requests

    asked = {part: word for part, word in vars(uri).items() if word}
    method = "registered-models/alias" if uri.alias else "model-versions/get"
    url = f"{settings.registry_uri.rstrip('/')}/api/2.0/mlflow/{method}"
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true")
    status = 0
    try:
        answer = requests.get(
            url,
            params=asked,
            auth=(user, password) if user and password else None,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            verify=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or not insecure,
            timeout=settings.registry_timeout_seconds,
        )
        status = answer.status_code
        if answer.ok:
            return _identified(answer.json()["model_version"])
        reason = f"{status} {_message(answer)}".rstrip()
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = type(error).__name__
    raise TrackingError(
        f"the registry at {without_secrets(settings.registry_uri)} does not tell which version {uri} is "
        f"({reason[:200]}); {REMEDIES.get(status, 'check that it runs and has it')}."
    )


def _message(answer: Any) -> str:
    """What a refusal says; nothing where it is no document of MLflow's, as a login's page or a proxy's."""
    with suppress(ValueError, AttributeError):
        return str(answer.json().get("message", ""))
    return ""


def _identified(found: dict[str, Any]) -> Version:
    """A version as the registry tells it: which run logged what, and when it was registered, is no other one's."""
    told = "\n".join(str(found.get(fact)) for fact in ("run_id", "source", "creation_timestamp"))
    return Version(str(found["version"]), hashlib.sha256(told.encode()).hexdigest()[:16])


class Child:
    """The process that has MLflow; started by the first question."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._asking = threading.RLock()

    def ask(self, question: dict[str, Any], seconds: float) -> Any:
        """Send a question and wait for its answer.

        Raises:
            BundleError: what was fetched cannot be served.
            TrackingError: it is an error, does not come in time, or the process cannot be started, or ends.
        """
        with self._asking:
            process = self._running()
            line = _line_of(process, question, seconds)
        if not line:
            self.stop()
            if line is None:
                raise TrackingError(f"the registry did not answer within {seconds:.0f} s; check that it runs.")
            raise TrackingError(
                f"the process that asks the registry {how_it_ended(process.wait())}; see what it said in this "
                "service's log, and give it more memory where it said nothing."
            )
        answer = json.loads(line)
        if "refused" in answer:
            raise BundleError(answer["refused"])
        if "error" in answer:
            raise TrackingError(answer["error"])
        return answer["found"]

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with self._asking:  # who waits for its answer sees its end, but not that of a pipe closed under them
                process.communicate()

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None or process.poll() is not None:
            # Of a copy that is not installed the current folder is where this process and the child find it.
            started = ["-m", "serving.registry"] if str(Path.cwd()) in sys.path else ["-c", INSTALLED_CHILD]
            command, pipe, environment = [sys.executable, *started], subprocess.PIPE, CHILD_ENVIRONMENT | os.environ
            try:
                process = self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
            except OSError as error:
                raise TrackingError(
                    f"the process that asks the registry cannot be started ({error.strerror}); give this service more "
                    "processes, files and memory."
                ) from error
        return process


def _line_of(process: subprocess.Popen[bytes], question: dict[str, Any], seconds: float) -> bytes | None:
    """The line that it answers; empty where it ends, None where none comes in time."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        return _read_line(process.stdout, seconds)
    except OSError:  # it has ended
        return b""


def _read_line(stream: IO[bytes], seconds: float) -> bytes | None:
    """One line; empty where the stream ends, None where it does not come in time."""
    deadline, line = time.monotonic() + seconds, b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            part = os.read(stream.fileno(), 65536)
            if not part:
                return b""
            line += part
    return line


def answer_of(question: dict[str, Any]) -> Any:
    """What the child does with a question."""
    if question["do"] == "check":
        load_checked(Path(question["uri"]))
        return None
    from mlflow import MlflowClient

    if question["do"] == "resolve":
        asked = ModelUri.of(question["uri"])
        assert asked is not None
        return asdict(_identified(dict(asked.find(MlflowClient()))))
    return _fetch(question["uri"], Path(question["folder"]))


def _fetch(uri: str, folder: Path) -> dict[str, Any]:
    import mlflow
    from mlflow import MlflowClient

    client, name, version, run_id, pinned, tags = MlflowClient(), None, None, None, uri, {}
    registered = ModelUri.of(uri)
    if registered is not None:
        found = registered.find(client)
        name, version, run_id, tags = found.name, str(found.version), found.run_id, found.tags
        pinned = str(ModelUri(name, version=version))
    local = Path(mlflow.artifacts.download_artifacts(artifact_uri=pinned, dst_path=str(folder)))
    logged = read_logged(local, uri)
    check_registered(logged.bundle, tags, uri)
    run_id = run_id or logged.run_id
    source = Source(uri, name, version, None, run_id, **_run_facts(client, run_id))
    return {"source": asdict(source), "path": str(logged.bundle)}


def _run_facts(client: Any, run_id: str | None) -> dict[str, Any]:
    """When training began and its metrics, and when the last recalibration since did, if the run is one.

    What is gone is not told: the model does not need it.
    """
    try:
        run = client.get_run(run_id)
    except Exception:
        return {}
    parent = run.data.tags.get("model_id")  # a training has none
    if parent is not None:
        return _run_facts(client, _run_of(client, parent)) | {"recalibrated_at": run.info.start_time}
    metrics = {k: v for k, v in run.data.metrics.items() if not k.startswith("system/")}
    return {"trained_at": run.info.start_time, "metrics": metrics}


def _run_of(client: Any, model_id: str) -> str | None:
    """The run that logged a model; None where that is gone, or was a folder of its own."""
    try:
        found: str | None = client.get_logged_model(model_id).source_run_id
    except Exception:
        return None
    return found


def serve_questions() -> None:
    """Answer a question a line, until there are none: what the child does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the parent ends this process
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = {"found": answer_of(question)}
        except BundleError as error:
            answer = {"refused": str(error)}
        except Exception as error:  # whatever MLflow raises; the parent makes one sentence of it
            full = disk_is_full(error)
            advice = "make room for its cache" if full else "train first, or name a version that is there"
            reason = "the disk is full" if full else without_secrets(reason_of(error, 300))
            answer = {"error": f"{without_secrets(question['uri'])} cannot be loaded ({reason}); {advice}."}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve_questions()
