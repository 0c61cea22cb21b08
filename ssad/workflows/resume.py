"""Going on with a training that was cut off, from the checkpoints it left in its run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from ssad.errors import DatasetError, SettingsError, TrackingError, disk_is_full, reason_of, without_secrets
from ssad.loggers.mlflow_logger import CHECKPOINT_FOLDER, CHECKPOINTS
from ssad.workflows.cut_off import RESUMED_BY, RESUMES, go_on_with, process_of
from ssad.workflows.stopping import Stopped
from ssad.workflows.tracking_store import FAILURES, explained

HEARTBEAT = "system/cpu_utilization_percentage"
"""A metric that MLflow logs every second while a run trains."""

SILENT_SECONDS = 30.0
"""A run of a process that cannot be seen, which logged nothing for so long, is taken for one that was cut off."""


def how_to_go_on(run_id: str) -> str:
    """What is said of a run that is cut off."""
    return f"train goes on with --resume {run_id}"


@contextmanager
def resumable(run: Run) -> Iterator[None]:
    """Say of a training that a signal ends, or a store or disk that fails, how to go on with it.

    Raises:
        TrackingError: a store or disk failed.
    """
    advice = how_to_go_on(run.info.run_id)
    try:
        yield
    except Stopped as stop:
        stop.advice = advice
        raise
    except (TrackingError, *FAILURES) as error:
        told = error if isinstance(error, TrackingError) else explained(error)
        raise TrackingError(f"{str(told).rstrip('.')}; {advice}.") from error


def take_over(run_id: str, successor: Run) -> None:
    """Let a run go on where another was cut off: each names the other, and the old one is no longer RUNNING.

    Args:
        run_id: the run that was cut off.
        successor: the active run, its plan and its data sets already logged.

    Raises:
        SettingsError: there is no such run, it came to its end, it is training, another goes on with it, it trained by
            another plan, or it is the active one.
        DatasetError: it trained on other rows.
    """
    if run_id == successor.info.run_id:
        raise SettingsError(f"run {run_id} cannot go on in itself; unset MLFLOW_RUN_ID, and it goes on in a new run.")
    client = MlflowClient()
    run, successor = _run(client, run_id), client.get_run(successor.info.run_id)
    if run.info.status == "FINISHED":
        raise SettingsError(f"run {run_id} came to its end, there is nothing to resume; train without resume.")
    _check_left(client, run)
    if run.info.status == "RUNNING":
        _check_cut_off(client, run)
    _check_plan(run, successor)
    if _training_digest(run) != _training_digest(successor):
        raise DatasetError(
            f"run {run_id} trained on other rows than these; resume with the dataset, label, contamination and seed "
            "it had, or train without resume."
        )
    go_on_with(client, run, successor.info.run_id)


def _check_left(client: MlflowClient, run: Run) -> None:
    """Refuse a run that another has gone on with, unless that one failed too."""
    name = run.data.tags.get(RESUMED_BY)
    status = client.get_run(name).info.status if name else ""
    if status in ("FINISHED", "RUNNING"):
        raise SettingsError(
            f"run {run.info.run_id} goes on in run {name}, which is {status}; "
            + ("there is nothing to resume." if status == "FINISHED" else "resume that one if it was cut off.")
        )


def _check_cut_off(client: MlflowClient, run: Run) -> None:
    """Refuse a run that is training at this moment: of a process of this machine that can be seen.

    Raises:
        SettingsError: it is.
    """
    if found := process_of(run):
        number, there = found
        if there and number != os.getpid():
            raise SettingsError(
                f"run {run.info.run_id} is training in process {number}; end that one first, or name a run that was "
                "cut off."
            )
        return
    beats = client.get_metric_history(run.info.run_id, HEARTBEAT)
    silent = max(0.0, time.time() - max((beat.timestamp for beat in beats), default=0) / 1000)
    if silent < SILENT_SECONDS:
        raise SettingsError(
            f"run {run.info.run_id} logged something {silent:.0f} s ago, from a process that cannot be seen here; name "
            f"a run that was cut off, or if this one was, resume it in {SILENT_SECONDS:.0f} s."
        )


def newest_checkpoint(run_id: str, folder: Path) -> Path | None:
    """The last whole checkpoint of a run or of those it goes on with, fetched into a folder; None: it starts anew.

    Raises:
        TrackingError: the run's artifacts cannot be had.
    """
    client = MlflowClient()
    epochs = {}
    for path in _fetched_checkpoints(client, run_id, folder):
        try:
            epochs[path] = torch.load(path, map_location="cpu", weights_only=True)["epoch"]
        except Exception:  # cut off while it was written, of which torch says many things
            continue
    if not epochs and (before := client.get_run(run_id).data.tags.get(RESUMES)):
        return newest_checkpoint(before, folder)  # it went on with that one, and was cut off before it got further
    return max(epochs, key=epochs.__getitem__, default=None)


def _fetched_checkpoints(client: MlflowClient, run_id: str, folder: Path) -> list[Path]:
    try:
        there = {file.path for file in client.list_artifacts(run_id, CHECKPOINT_FOLDER)}
        return [Path(client.download_artifacts(run_id, name, str(folder))) for name in CHECKPOINTS if name in there]
    except Exception as error:  # each store has exceptions of its own
        if disk_is_full(error, folder):
            raise TrackingError(f"the disk of {folder} is full; make room and resume again.") from error
        raise TrackingError(
            f"the checkpoints of run {run_id} cannot be fetched ({without_secrets(reason_of(error))}); see whether the "
            "artifact store answers, and resume again."
        ) from error


def _run(client: MlflowClient, run_id: str) -> Run:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        raise SettingsError(
            f"there is no run {run_id!r} at {without_secrets(mlflow.get_tracking_uri())} to resume."
        ) from error


def _plan(run: Run) -> dict[str, str]:
    return {name: value for name, value in run.data.params.items() if name.startswith("plan.") or name == "precision"}


def _check_plan(run: Run, successor: Run) -> None:
    before, now = _plan(run), _plan(successor)
    if not before:
        raise SettingsError(f"run {run.info.run_id} did not begin to train; train without resume.")
    names = {**now, **before}
    differing = [
        f"{name} was {before.get(name)}, is {now.get(name)}" for name in names if before.get(name) != now.get(name)
    ]
    if differing:
        raise SettingsError(
            f"run {run.info.run_id} trained by another plan ({'; '.join(differing)}); resume with the settings it had."
        )


def _training_digest(run: Run) -> str | None:
    for entry in run.inputs.dataset_inputs if run.inputs else ():
        if any(tag.key == "mlflow.data.context" and tag.value == "training" for tag in entry.tags):
            return str(entry.dataset.digest)
    return None
