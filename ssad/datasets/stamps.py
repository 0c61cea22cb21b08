"""Files that must not change while they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ssad.errors import DatasetError, listed

Stamp = tuple[int, int]
"""Size and time of the last change of a file."""


def stamps(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """Size and time of the last change of each file that is there."""
    found = {}
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.stat()
            found[path] = (status.st_size, status.st_mtime_ns)
    return found


@contextmanager
def unchanged(opened: Mapping[Path, Stamp | None]) -> Iterator[None]:
    """Read files, and refuse to mix rows from before and after a change.

    Raises:
        DatasetError: a file is not as it was when it was opened.
    """
    try:
        yield
    except Exception:
        _check_unchanged(opened)  # which says more than what is wrong with it now
        raise
    _check_unchanged(opened)


def _check_unchanged(opened: Mapping[Path, Stamp | None]) -> None:
    now = stamps(opened)
    changed = [path for path in opened if now.get(path) != opened[path]]
    if changed:
        raise DatasetError(
            f"{listed(changed)} changed while it was being read; wait until it is written, and run again."
        )
