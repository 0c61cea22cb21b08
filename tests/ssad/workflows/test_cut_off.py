"""A run that a kill left RUNNING ends with the next command on its machine, and no other one does."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus, Run

from ssad.workflows.cut_off import PROCESS, end_cut_off, machine_name, process_name, process_of
from ssad.workflows.tracking import tracked_run
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = QUIET_LIBRARIES


def begun_run(client: MlflowClient, process: str) -> str:
    return str(client.create_run("0", tags={PROCESS: process}).info.run_id)


def status(client: MlflowClient, run_id: str) -> str:
    return str(client.get_run(run_id).info.status)


def test_the_next_run_ends_that_of_a_process_that_was_killed_with_its_models_and_no_other(tracking: str) -> None:
    client = MlflowClient(tracking)
    elsewhere, own = begun_run(client, "elsewhere 1 0"), begun_run(client, process_name(os.getpid()))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        living = begun_run(client, process_name(process.pid))
        model = client.create_logged_model("0", "model", source_run_id=living)
        with tracked_run("evaluate", system_metrics=False):
            assert [status(client, run_id) for run_id in (elsewhere, own, living)] == ["RUNNING"] * 3
        process.kill()
    with tracked_run("evaluate", system_metrics=False):
        assert [status(client, run_id) for run_id in (elsewhere, own, living)] == ["RUNNING", "RUNNING", "KILLED"]
    assert client.get_logged_model(model.model_id).status == LoggedModelStatus.FAILED


def test_a_run_that_ended_by_itself_while_another_one_looked_is_not_told_otherwise(
    tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(tracking)
    run_id = begun_run(client, f"{machine_name()} {os.getpid()} 0")  # of a process that is gone

    def ended_meanwhile(experiments: list[str], running: str) -> list[Run]:
        found = search(experiments, running)
        client.set_terminated(run_id)
        return list(found)

    search = client.search_runs
    monkeypatch.setattr(client, "search_runs", ended_meanwhile)
    end_cut_off(client, "0")
    assert status(client, run_id) == "FINISHED"


def test_a_process_is_known_though_the_clock_was_set(tracking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient(tracking)
    run_id = begun_run(client, process_name(os.getpid()))
    machine, process = psutil.boot_time, psutil.Process.create_time
    monkeypatch.setattr(psutil, "boot_time", lambda: machine() + 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: process(self) + 3600)
    assert process_of(client.get_run(run_id)) == (os.getpid(), True)


@pytest.mark.parametrize(("error", "there"), [(PermissionError, True), (ProcessLookupError, False)])
def test_a_process_that_this_account_may_not_see_is_not_taken_for_gone(
    tracking: str, monkeypatch: pytest.MonkeyPatch, error: type[OSError], there: bool
) -> None:
    client = MlflowClient(tracking)
    run_id = begun_run(client, process_name(os.getpid()))

    def hidden(pid: int) -> None:
        raise psutil.NoSuchProcess(pid)

    def asked(pid: int, signum: int) -> None:
        raise error

    monkeypatch.setattr(psutil, "Process", hidden)
    monkeypatch.setattr(os, "kill", asked)
    assert process_of(client.get_run(run_id)) == (os.getpid(), there)
