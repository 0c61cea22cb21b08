"""A run that was cut off: which process it was of, whether that is gone, and which run goes on with it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus, Run
from mlflow.exceptions import MlflowException

RESUMES, RESUMED_BY = "ssad.resumes", "ssad.resumed_by"
"""Tags that name the other run: of the one that goes on, and of the one that was cut off."""

PROCESS = "ssad.process"
"""Tag of a run that names the process that it is of."""

CLOCK_SECONDS = 2.0
"""How far two readings of when a process began may lie apart: a machine's start is known to a second."""


def machine_name() -> str:
    """Where a process is known by its number: this machine since it was started and, in a container, that one alone."""
    with suppress(OSError):  # of Linux
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()}/{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    return socket.gethostname()


def process_name(pid: int) -> str:
    """A process of this machine as no other one is named: machine, number, and when it began."""
    return f"{machine_name()} {pid} {_began(pid):.0f}"


def _began(pid: int) -> float:
    """When a process began, in seconds since the machine did: that does not change where its clock is set."""
    machine = psutil.boot_time()  # first: older psutil adds the one that it read last
    return psutil.Process(pid).create_time() - machine


def process_of(run: Run) -> tuple[int, bool] | None:
    """The number of a run's process, and whether that is there; None if it cannot be seen from here.

    A dead one that nobody asked for is gone.
    """
    name = run.data.tags.get(PROCESS, "")
    if not name.startswith(f"{machine_name()} "):
        return None
    pid, began = map(int, name.split()[1:])
    try:
        same = abs(_began(pid) - began) < CLOCK_SECONDS
        return pid, same and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return pid, _is_hidden(pid)


def _is_hidden(pid: int) -> bool:
    """Whether there is a process that this account may not look at, as where /proc is mounted with `hidepid`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return False  # it was a thread's number, or ended between the two looks


def end_cut_off(client: MlflowClient, experiment_id: str) -> None:
    """End the runs of an experiment whose process, on this machine, is gone: after `kill -9` nothing else does."""
    running = f"attributes.status = 'RUNNING' and tags.`{PROCESS}` LIKE '{machine_name()} %'"
    with suppress(MlflowException):  # this account may not write to another's, or another command was sooner
        for run in client.search_runs([experiment_id], running):
            end_if_gone(client, run)


def end_if_gone(client: MlflowClient, run: Run) -> bool:
    """End a run whose process, on this machine, is gone; whether it is."""
    found = process_of(run)
    gone = found is not None and not found[1]
    if gone:
        say_killed(client, run)
    return gone


def say_killed(client: MlflowClient, run: Run) -> None:
    """End the run of a process that is gone, unless it ended by itself: after `run` was read, too."""
    if client.get_run(run.info.run_id).info.status == "RUNNING":
        client.set_terminated(run.info.run_id, "KILLED")
        fail_models(client, run)


def fail_models(client: MlflowClient, run: Run) -> None:
    """Say that the models a run was logging when it was cut off have failed: MLflow would leave them PENDING."""
    with suppress(MlflowException):  # the run has ended, which matters more
        for model in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"):
            if model.status == LoggedModelStatus.PENDING:
                client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)


def go_on_with(client: MlflowClient, run: Run, successor_id: str) -> None:
    """Let each of two runs name the other, the second one going on with what the first one left; the first has ended.

    Args:
        client: of the store that both are in.
        run: the one that was cut off.
        successor_id: of the one that goes on.
    """
    client.set_tag(successor_id, RESUMES, run.info.run_id)
    client.set_tag(run.info.run_id, RESUMED_BY, successor_id)
    say_killed(client, run)
