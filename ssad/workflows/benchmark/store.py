"""Where measurements are kept: a file for each, whole or absent, so that a benchmark can go on where it stopped."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from ssad.aside import written_aside
from ssad.bundle.bundle import file_digest
from ssad.errors import SettingsError
from ssad.workflows.output_folder import writing_to

DATA = "data.sha256"
"""The file that says which content the measurements beside it are of: another folder may have a set of that name."""

Record = TypeVar("Record")


def keep(record: object, path: Path) -> None:
    """Write a dataclass of arrays, numbers and text; a process killed meanwhile leaves nothing.

    Raises:
        SettingsError: the folder cannot be written.
    """
    with _whole(path) as aside:
        np.savez_compressed(aside, **vars(record))


def kept(path: Path, kind: Callable[..., Record]) -> Record | None:
    """The inverse of `keep`; None if the file is not there or not whole, as after a loss of power."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return kind(**{name: array if array.ndim else array.item() for name, array in arrays.items()})
    except (FileNotFoundError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error):
        return None


def kept_or_made(path: Path, kind: Callable[..., Record], make: Callable[[], Record]) -> Record:
    """What is kept in a file; else it is made now, and kept there.

    Raises:
        SettingsError: the file cannot be written.
    """
    record = kept(path, kind)
    if record is None:
        record = make()
        keep(record, path)
    return record


def check_same_data(folder: Path, files: Sequence[Path]) -> None:
    """Refuse to take what was measured on one data set for what another one of its name would give.

    Nothing is asked where a file is gone: nothing new is measured then, and what is kept can still be compared.

    Args:
        folder: where measurements of the set are kept, or will be.
        files: what the set is read from.

    Raises:
        SettingsError: those there are of other files' content, or the folder cannot be written.
    """
    if not all(file.is_file() for file in files):
        return
    digests, note = "\n".join(map(file_digest, files)), folder / DATA
    if not (note.exists() and any(folder.glob("*.npz"))):  # a set that could not be used may have been mended
        with _whole(note) as aside:
            aside.write_text(digests, encoding="ascii")
    elif note.read_bytes() != digests.encode():
        raise SettingsError(
            f"{folder} holds measurements of another data set of this name; name another folder as results, or delete "
            "that one."
        )


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write, which has its name once it is whole."""
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path.parent) as folder:
            yield folder / path.name
            (folder / path.name).replace(path)
