"""A training that is told to end, or loses a process, says so and leaves no version."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import onnx
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus

from ssad import AnomalyDetector
from ssad.bundle.bundle import GRAPH
from ssad.workflows import tracking as tracking_module
from ssad.workflows.stopping import Stopped, stop_by_signals
from ssad.workflows.tracking import tracked_run
from ssad.workflows.tracking_store import make_database
from tests.conftest import CommandLine, small_table
from tests.ssad.workflows.support import (
    PROCESS_SECONDS,
    QUIET_LIBRARIES,
    endless,
    environment,
    free_port,
    run_python,
    sign,
)

pytestmark = [*QUIET_LIBRARIES, pytest.mark.slow]

TWO = ("--devices", "2", "--strategy", "ddp")


@contextmanager
def endless_training(table: Path, tracking: str, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A training in a group of its own that would take hours, with its run, from its first recalibration on."""
    command = [sys.executable, "-m", "ssad.cli", "train", "--dataset", str(table), "--detector", "radon", *more]
    make_database(tracking)  # or this process and that one would, at once
    process = subprocess.Popen(
        [*command, "--max-epochs", "100000", "--every-n-epochs", "50000", "--learning-rate", "1e-6"],
        cwd=table.parent,
        env=environment(tracking, PYTHONFAULTHANDLER="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process, when_trained(MlflowClient(tracking), process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def when_trained(client: MlflowClient, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + PROCESS_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None
        for run in client.search_runs(["0"]):
            if "train_loss" in run.data.metrics:
                return str(run.info.run_id)
        time.sleep(0.05)  # between two polls; the deadline decides
    raise AssertionError("training did not begin")


def left_behind(process: subprocess.Popen[str], tracking: str, run_id: str) -> tuple[str, str]:
    """What it said at its end, and the state of its run."""
    others = psutil.Process(process.pid).children(recursive=True)
    try:
        said = process.communicate(timeout=PROCESS_SECONDS)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # faulthandler says where every thread is
        process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"it did not end: {process.communicate()[1]}") from None
    assert psutil.wait_procs(others, timeout=PROCESS_SECONDS)[1] == []
    assert "Traceback" not in said, said
    client = MlflowClient(tracking)
    assert client.search_model_versions() == []
    run = client.get_run(run_id)
    assert run.data.tags.get("ssad.error", "no tag") in said, said
    return said, run.info.status


@pytest.mark.parametrize(
    ("signum", "status", "more", "send"),
    [
        pytest.param(signal.SIGTERM, 143, (), os.kill, id="SIGTERM, alone"),
        pytest.param(signal.SIGINT, 130, (), os.kill, id="SIGINT, alone"),
        pytest.param(signal.SIGINT, 130, TWO, os.killpg, id="SIGINT, to both of two processes, as a terminal does"),
        pytest.param(signal.SIGTERM, 143, TWO, os.kill, id="SIGTERM, to the first of two processes"),
    ],
)
def test_a_signal_ends_training_and_its_run_as_killed(
    small: Path,
    tracking: str,
    signum: signal.Signals,
    status: int,
    more: tuple[str, ...],
    send: Callable[[int, int], None],
) -> None:
    with endless_training(small, tracking, *more) as (process, run_id):
        send(process.pid, signum)
        said, ended_as = left_behind(process, tracking, run_id)
    assert (process.returncode, ended_as) == (status, "KILLED")
    assert f"ssad: stopped by {signum.name}; train goes on with --resume {run_id}\n" in said
    assert "Successfully terminated system metrics" in said  # and was not cut off by the thread that listens


ANNOUNCED = """
import sys
from onnxruntime import InferenceSession
from ssad import cli
run = InferenceSession.run
InferenceSession.run = lambda *arguments: (print("scores", file=sys.__stdout__, flush=True), run(*arguments))[1]
cli.main()
"""


def test_a_signal_ends_a_command_whose_graph_never_ends(
    small: Path, tracking: str, tmp_path: Path, temporary: Path
) -> None:
    folder = tmp_path / "bundle"
    AnomalyDetector("radon", max_epochs=1).fit(small_table().drop(columns="label")).save(folder)
    (folder / GRAPH).write_bytes(endless(onnx.load(folder / GRAPH).graph))
    sign(folder, GRAPH)
    make_database(tracking)
    command = [sys.executable, "-c", ANNOUNCED, "evaluate", "--model", str(folder), "--dataset", str(small)]
    pipe, env = subprocess.PIPE, environment(tracking, TMPDIR=str(temporary))
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "scores\n"
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=PROCESS_SECONDS)[1]
        finally:
            process.kill()
    (run,) = MlflowClient(tracking).search_runs(["0"])
    assert (process.returncode, run.info.status, run.data.tags["ssad.error"]) == (143, "KILLED", "stopped by SIGTERM")
    assert said.endswith("ssad: stopped by SIGTERM\n")
    assert not list(temporary.iterdir())


FETCHES_ON = """
import itertools, os, signal, threading
from pathlib import Path
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from ssad import cli

fetch, begun, fetched = LocalArtifactRepository._download_file, itertools.count(), threading.Semaphore(0)

def last(self, **paths):
    folder = Path(paths["local_path"]).parent
    if next(begun):
        fetch(self, **paths)
        fetched.release()
        return
    for _ in range(sum(path.is_file() for path in Path(self.artifact_dir).rglob("*")) - 1):
        fetched.acquire()
    folder.mkdir(parents=True, exist_ok=True)
    os.kill(os.getpid(), signal.SIGTERM)
    while folder.exists():
        threading.Event().wait(0.01)
    folder.mkdir(parents=True)
    fetch(self, **paths)

LocalArtifactRepository._download_file = last
cli.main()
"""
"""One of MLflow's threads writes its file when all others have, and the command that was told to end has cleared up."""


def test_a_signal_ends_a_command_whose_model_is_still_being_fetched(
    small: Path, own_store: MlflowClient, tmp_path: Path, temporary: Path
) -> None:
    command = ["evaluate", "--model", "models:/ssad/1", "--dataset", str(small)]
    env = environment(own_store._tracking_client.tracking_uri, TMPDIR=str(temporary))
    done = run_python("-c", FETCHES_ON, *command, cwd=tmp_path, env=env)
    run = own_store.search_runs(["0"], max_results=1)[0]
    assert (done.returncode, run.info.status) == (143, "KILLED"), done.stderr
    assert done.stderr.endswith("ssad: stopped by SIGTERM\n")
    assert not list(temporary.iterdir())


SENT = """
import os, signal, sys
from threading import Thread
from mlflow import MlflowClient
from ssad import cli
from ssad.workflows import stopping

stopping.PATIENCE_SECONDS = 1.0

def sends(owner, name, after, by=None):
    call = getattr(owner, name)
    def called(*arguments, **named):
        mine = by is None or sys._getframe(1).f_code.co_name == by
        if mine and not after:
            os.kill(os.getpid(), signal.SIGTERM)
        given = call(*arguments, **named)
        if mine and after:
            os.kill(os.getpid(), signal.SIGTERM)
        return given
    setattr(owner, name, called)

{}
cli.main()
"""
"""A command that is told to end before or after a call, of one function if it is named."""


@pytest.mark.parametrize(
    ("command", "when", "status", "state"),
    [
        pytest.param(
            "evaluate", 'sends(MlflowClient, "create_run", True)', 143, "KILLED", id="while its run is being opened"
        ),
        pytest.param(
            "evaluate",
            'sends(Thread, "start", True, "_adjust_thread_count")',
            143,
            "KILLED",
            id="while a pool starts a thread, which is then in no pool",
        ),
        pytest.param(
            "evaluate", 'sends(MlflowClient, "set_terminated", False)', 0, "FINISHED", id="while its run is being ended"
        ),
        pytest.param(
            "recalibrate",
            'sends(MlflowClient, "log_model_artifacts", True)',
            143,
            "KILLED",
            id="while it logs a model",
        ),
    ],
)
def test_a_signal_leaves_no_run_running_no_model_pending_and_no_process(
    small: Path,
    own_store: MlflowClient,
    tmp_path: Path,
    temporary: Path,
    command: str,
    when: str,
    status: int,
    state: str,
) -> None:
    version = own_store.get_model_version("ssad", "1")
    rows = [command, "--model", "models:/ssad/1", "--dataset", "breast-cancer"]
    env = environment(own_store._tracking_client.tracking_uri, TMPDIR=str(temporary))
    done = run_python("-c", SENT.format(when), *rows, cwd=tmp_path, env=env)
    run = own_store.search_runs(["0"], max_results=1)[0]
    assert (done.returncode, run.info.status) == (status, state), done.stderr
    assert run.info.run_id != version.run_id
    assert len(own_store.search_model_versions()) == 1
    models = own_store.search_logged_models(["0"])
    assert {model.status for model in models if model.source_run_id == run.info.run_id} <= {LoggedModelStatus.FAILED}
    assert not list(temporary.iterdir())


def test_a_signal_while_runs_that_were_cut_off_are_looked_for_leaves_no_run_running(
    tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(client: MlflowClient, experiment_id: str) -> None:
        database = sqlite3.connect(tracking.removeprefix("sqlite:///"))
        rows = database.execute("SELECT * FROM tags")
        next(rows)  # which locks the database until the others are read
        os.kill(os.getpid(), signal.SIGINT)
        database.close()

    monkeypatch.setattr(tracking_module, "end_cut_off", look)
    stop_by_signals()
    with pytest.raises(Stopped), tracked_run("evaluate"):
        pass
    (run,) = MlflowClient(tracking).search_runs(["0"])
    assert run.info.status == "KILLED"


WHERE_NO_EXCEPTION_GOES_FURTHER = """
import signal
from ssad.workflows.stopping import stop_by_signals
stop_by_signals()

class Connection:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

Connection()
signal.pause()
"""


def test_a_signal_is_heard_though_it_came_where_no_exception_goes_further(tmp_path: Path) -> None:
    done = run_python("-c", WHERE_NO_EXCEPTION_GOES_FURTHER, cwd=tmp_path, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")


def test_a_process_that_dies_ends_training_in_one_sentence(small: Path, tracking: str) -> None:
    with endless_training(small, tracking, *TWO) as (process, run_id):
        (other,) = [child for child in psutil.Process(process.pid).children() if "train" in child.cmdline()]
        other.kill()
        said, ended_as = left_behind(process, tracking, run_id)
    assert (process.returncode, ended_as) == (2, "FAILED")
    assert f"trains along was ended by SIGKILL; see what it said, and go on with --resume {run_id}." in said


STARTS = "import subprocess, sys; process = subprocess.Popen(sys.argv[1:]); print(process.pid, flush=True); input()"


def test_a_process_that_trains_along_ends_when_the_first_one_is_killed_before_it_has_joined(
    small: Path, tracking: str
) -> None:
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    train = [sys.executable, "-m", "ssad.cli", "train", "--dataset", str(small), "--detector", "radon", *TWO]
    env, pipe = environment(tracking, **meeting), subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", STARTS, *train], env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stderr is not None
        other = psutil.Process(int(first.stdout.readline()))
        try:
            assert any("GLOBAL_RANK: 1" in line for line in first.stderr)  # it waits for the first one
            first.kill()
            assert psutil.wait_procs([other], timeout=60)[1] == []  # and not for half an hour
        finally:
            with suppress(psutil.NoSuchProcess):
                other.kill()


def test_a_process_that_ends_before_it_joins_ends_training_in_one_sentence(
    small: Path, tracking: str, command_line: CommandLine
) -> None:
    # As if the table had been moved away between the first process's reading and the second's.
    (small.parent / "mine.py").write_text(
        "import os, sys\nfrom ssad.detectors import PRESETS\nRADON = PRESETS['radon']\n"
        "if os.environ.get('LOCAL_RANK') == '1': sys.exit(3)"
    )
    done = command_line("train", "--dataset", str(small), "--detector", "mine:RADON", "--max-epochs", "3", *TWO)
    (run,) = MlflowClient(tracking).search_runs(["0"])
    assert (done.returncode, run.info.status) == (2, "FAILED"), done.stderr
    sentence = f"ended with status 3; see what it said, and go on with --resume {run.info.run_id}."
    assert sentence in done.stderr
    assert sentence in run.data.tags["ssad.error"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_ends_a_process_that_waits_for_another_machine(
    small: Path, tracking: str, temporary: Path, times: int
) -> None:
    port = free_port()
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    make_database(tracking)
    command = [sys.executable, "-m", "ssad.cli", "train", "--dataset", str(small), "--detector", "radon"]
    process = subprocess.Popen(
        [*command, "--num-nodes", "2", "--strategy", "ddp"],
        env=environment(tracking, TMPDIR=str(temporary), **meeting),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        when_listening(process, port)
        for _ in range(times):
            process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=PROCESS_SECONDS)[1]
    finally:
        process.kill()
        process.communicate()
    (run,) = MlflowClient(tracking).search_runs(["0"])
    assert (process.returncode, run.info.status) == (143, "KILLED"), said
    assert f"ssad: stopped by SIGTERM; train goes on with --resume {run.info.run_id}\n" in said
    assert not list(temporary.iterdir())


def when_listening(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + PROCESS_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None
        for connection in psutil.Process(process.pid).net_connections():
            if (connection.laddr.port, connection.status) == (port, psutil.CONN_LISTEN):
                return
        time.sleep(0.05)  # between two polls; the deadline decides
    raise AssertionError("it did not wait for another machine")
