"""A folder of Parquet that appears under its name when it is complete; until then, what the same job goes on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
from filelock import FileLock, Timeout

from ssad.bundle import REGIONS
from ssad.errors import SettingsError, reason_of

SUCCESS = "_SUCCESS"
"""The file that says a folder is complete: Hadoop's and Spark's own."""

JOB = "_job.json"
"""What a half-finished folder is the beginning of; another job does not go on with it."""

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
def partial_folder(output: Path, job: dict[str, Any]) -> Iterator[Path]:
    """The folder that becomes the output, for this process alone: what the same job left in it before, or nothing.

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
                if _read_job(partial) != job:
                    for path in _left_in(partial):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                (partial / JOB).write_text(json.dumps(job), encoding="utf-8")
                yield partial
            finally:
                if not any(partial.glob(PARTS)):  # nothing to go on with
                    shutil.rmtree(partial, ignore_errors=True)
    except Timeout as error:
        raise SettingsError(
            f"another process is scoring to {output} at this moment; wait for its end, or name another output."
        ) from error


def _left_in(partial: Path) -> list[Path]:
    return [path for path in partial.iterdir() if path.name != LOCK]


def _read_job(partial: Path) -> Any:
    try:
        return json.loads((partial / JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def finish(partial: Path, output: Path) -> None:
    """Give a folder whose parts are all there its name.

    Raises:
        SettingsError: something else has it by now.
    """
    check_free(output)
    (partial / SUCCESS).touch()
    partial.rename(output)  # what fails until here leaves what the same job goes on with
    for name in (JOB, LOCK):
        (output / name).unlink(missing_ok=True)
