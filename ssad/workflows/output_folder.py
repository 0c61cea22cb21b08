"""A folder of Parquet that appears under its name when it is complete; until then, what the same job goes on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ssad.bundle import REGIONS
from ssad.errors import SettingsError, reason_of
from ssad.workflows.cut_off import go_on_with, say_killed
from ssad.workflows.stopping import too_late_to_stop

SUCCESS = "_SUCCESS"
"""The file that says a folder is complete: Hadoop's and Spark's own."""

JOB = "_job.json"
"""What a half-finished folder is the beginning of; another job does not go on with it."""

RUN = "run"
"""In that file: the run that writes the folder."""

NEW_JOB = "_job.json.new"
"""It, while it is written."""

LOCK = "_lock"
"""What one process at a time holds of a half-finished folder."""

PARTS = "part-*.parquet"


@contextmanager
def writing_to(output: Path) -> Iterator[None]:
    """Say of a failure to write where it was to be; what a full disk cut off goes on later.

    Raises:
        SettingsError: the output cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"{output.absolute()} cannot be written ({error.strerror or reason_of(error)}); make room or name another "
            "output, and run again."
        ) from error


def check_free(output: Path) -> None:
    """Refuse to write over anything.

    Raises:
        SettingsError: there is a file or folder of that name.
    """
    if output.exists():
        raise SettingsError(f"{output.absolute()} exists already; name another output, or delete it first.")


def region_counts(output: Path) -> dict[str, int]:
    """Rows of each region in a folder that is complete."""
    regions = pads.dataset(output, format=pads.ParquetFileFormat(dictionary_columns={"region"}))
    counts = dict.fromkeys(REGIONS, 0)
    for batch in regions.to_batches(columns=["region"]):
        for found in batch.column("region").value_counts().to_pylist():
            counts[found["values"]] += found["counts"]
    return counts


@contextmanager
def partial_folder(output: Path, job: dict[str, Any], run_id: str | None) -> Iterator[Path]:
    """The folder that becomes the output, for this process alone: what the same job left in it before, or nothing.

    Args:
        output: what it becomes.
        job: what decides every byte of it.
        run_id: of the run that writes it; None for none. Who wrote to it before has ended, as nobody holds its lock:
            that run does not stay RUNNING.

    Raises:
        SettingsError: another process writes to it, it holds something else, or the output is there by now.
    """
    partial = output.with_name(f"{output.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    if _left_in(partial) and not (partial / JOB).is_file():
        raise SettingsError(
            f"{partial} exists and is not what an interrupted scoring left; move it away, or name another output."
        )
    try:
        with FileLock(partial / LOCK, blocking=False):
            try:
                check_free(output)  # another process may have ended since it was looked at
                before = _read_job(partial)
                left_by = before.pop(RUN, None)
                if before != job:
                    _empty(partial)
                _end(left_by, run_id, goes_on=any(partial.glob(PARTS)))
                _write_job(partial, job | {RUN: run_id})
                yield partial
            finally:
                if not any(partial.glob(PARTS)):  # nothing to go on with
                    with suppress(OSError):
                        _empty(partial)
                    shutil.rmtree(partial, ignore_errors=True)
    except Timeout as error:
        raise SettingsError(
            f"another process is scoring to {output} at this moment; wait for its end, or name another output."
        ) from error


def _left_in(partial: Path) -> list[Path]:
    return [path for path in partial.iterdir() if path.name not in (LOCK, NEW_JOB)]


def _empty(partial: Path) -> None:
    """Delete what is of no use; cut off on the way, the rest is no job's, and goes the next time."""
    (partial / JOB).write_text("", encoding="utf-8")
    for path in _left_in(partial):
        if path.name != JOB:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read_job(partial: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((partial / JOB).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _write_job(partial: Path, job: dict[str, Any]) -> None:
    """Write it whole or not at all, for what is there would be no job's then."""
    (partial / NEW_JOB).write_text(json.dumps(job), encoding="utf-8")
    (partial / NEW_JOB).replace(partial / JOB)


def _end(left_by: str | None, run_id: str | None, goes_on: bool) -> None:
    """Say of the run that wrote to a folder before that it has ended, and of both that one goes on with the other."""
    if left_by is None or run_id is None:
        return
    client = MlflowClient()
    with suppress(MlflowException):  # it is in another store, or was deleted
        run = client.get_run(left_by)
        if goes_on:
            go_on_with(client, run, run_id)
        else:
            say_killed(client, run)


def finish(partial: Path, output: Path) -> None:
    """Give a folder whose parts are all there its name.

    Raises:
        SettingsError: something else has it by now.
    """
    check_free(output)
    too_late_to_stop()
    (partial / SUCCESS).touch()
    partial.rename(output)  # what fails until here leaves what the same job goes on with
    for name in (JOB, LOCK):
        (output / name).unlink(missing_ok=True)
