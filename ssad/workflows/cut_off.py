"""A run that was cut off: which process it was of, whether that is gone, and which run goes on with it."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import psutil
from mlflow import MlflowClient
from mlflow.entities import Run

RESUMES, RESUMED_BY = "ssad.resumes", "ssad.resumed_by"
"""Tags that name the other run: of the one that goes on, and of the one that was cut off."""

PROCESS = "ssad.process"
"""Tag of a run that names the process that it is of."""

CLOCK_SECONDS = 5.0
"""How far a clock that was set moves the time at which a process began."""


def machine_name() -> str:
    """Where a process is known by its number: this machine since it was started and, in a container, that one alone."""
    with suppress(OSError):  # of Linux
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()}/{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    return socket.gethostname()


def process_name(pid: int) -> str:
    """A process of this machine as no other one is named: machine, number, and when it began, in seconds."""
    return f"{machine_name()} {pid} {psutil.Process(pid).create_time():.0f}"


def process_of(run: Run) -> tuple[int, bool] | None:
    """The number of a run's process, and whether that is there; None if it cannot be seen from here.

    A dead one that nobody asked for is gone.
    """
    name = run.data.tags.get(PROCESS, "")
    if not name.startswith(f"{machine_name()} "):
        return None
    pid, began = map(int, name.split()[1:])
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - began) < CLOCK_SECONDS
        return pid, same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return pid, False


def say_killed(client: MlflowClient, run: Run) -> None:
    """End the run of a process that is gone, unless it ended by itself."""
    if run.info.status == "RUNNING":
        client.set_terminated(run.info.run_id, "KILLED")


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
