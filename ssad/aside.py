"""What is written aside and then renamed or removed: whole under its name after a crash and beside another process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

INCOMING = "incoming-"

ABANDONED_SECONDS = 3600.0
"""What nobody wrote to for so long is of a process that was killed."""


@contextmanager
def written_aside(folder: Path, abandoned: float = ABANDONED_SECONDS) -> Iterator[Path]:
    """An empty folder in another one, and so on its disk, to write to and rename from; gone afterwards.

    What was left in the same place by a process that was killed goes before.

    Args:
        folder: where what is written is to be.
        abandoned: seconds after which what nobody wrote to is such a process's.

    Raises:
        OSError: the folder is not there, or cannot be written.
    """
    for left in folder.glob(f"{INCOMING}*"):
        with suppress(OSError):  # another process was sooner
            if _last_written(left) < time.time() - abandoned:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=INCOMING, ignore_cleanup_errors=True) as aside:
        yield Path(aside)


@contextmanager
def fetching_folder() -> Iterator[Path]:
    """A temporary folder for what MLflow fetches; gone afterwards, at the latest when this process ends.

    A signal ends the waiting for MLflow's threads, not these: they go on to write here.
    """
    folder = Path(tempfile.mkdtemp(prefix="ssad-"))
    remove = partial(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(remove)  # called when all threads have ended
    try:
        yield folder
    finally:
        remove()
    atexit.unregister(remove)


def _last_written(folder: Path) -> float:
    """When anything in a folder changed last, seconds since 1970."""
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
