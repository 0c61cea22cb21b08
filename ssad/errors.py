"""Every mistake a user can mend, as one tree. A leaf: it imports nothing of this project.

The message of each is one sentence: what came, what was expected, what to do.
"""

from __future__ import annotations

import errno
import re
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

USER_MISTAKE = 2
"""Exit status of a mistake the user can mend: argparse's and click's own."""


class SsadError(Exception):
    """A mistake the user can mend; entry points print its message and exit with status `USER_MISTAKE`."""


class SettingsError(SsadError, ValueError):
    """A parameter has a value that cannot be used."""


def check_settings(problems: Sequence[str]) -> None:
    """Report every setting that cannot be used, together.

    Raises:
        SettingsError: there are problems.
    """
    if problems:
        raise SettingsError("; ".join(problems) + ".")


class DatasetError(SsadError, ValueError):
    """A table cannot be read, or cannot be used for what was asked."""


@dataclass(frozen=True)
class CellProblem:
    """A value that cannot be read; what it was is not told.

    Attributes:
        row: its row, from 0.
        column: its column.
        expected: what it should have been.
    """

    row: int
    column: str
    expected: str

    def __str__(self) -> str:
        return f"row {self.row}, column {self.column!r}: expected {self.expected}"


class RowsError(DatasetError):
    """Rows to score do not fit the columns the detector was trained on.

    Attributes:
        cells: the values at fault, as far as they are known.
        more: whether there are others.
    """

    def __init__(self, message: str, cells: Iterable[CellProblem] = (), more: bool = False) -> None:
        super().__init__(message)
        self.cells = tuple(cells)
        self.more = more

    @classmethod
    def of_cells(cls, cells: Sequence[CellProblem], more: bool = False) -> RowsError:
        """The error that names these values; `more` says that there are others."""
        return cls(f"{'; '.join(map(str, cells))}{'; and more' if more else ''}.", cells, more)

    def moved(self, rows: int) -> RowsError:
        """The same error of rows that stand so many rows further down."""
        if not self.cells:
            return self
        return self.of_cells([replace(cell, row=cell.row + rows) for cell in self.cells], self.more)


@contextmanager
def rows_from(start: int) -> Iterator[None]:
    """Name rows that do not fit by their places in a table of which those inside begin at row `start`."""
    try:
        yield
    except RowsError as error:
        raise error.moved(start) from error


class TrainingError(SsadError, RuntimeError):
    """Training cannot go on."""


class BundleError(SsadError):
    """A bundle is incomplete, damaged or of a version this code does not read."""


class RefusedError(SsadError):
    """A change to the registry was asked for that its checks do not let pass; nothing was changed."""


class TrackingError(SsadError):
    """The tracking server or the registry cannot do what was asked."""


SHOWN = 20
"""Names that one sentence has room for."""


def listed(names: Iterable[object], most: int = SHOWN, separator: str = ", ") -> str:
    """Names for a sentence, and how many more there are than it has room for."""
    words = [str(name) for name in names]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return separator.join(words[:most]) + more


REASON_LENGTH = 200
"""Characters of another library's words that one sentence has room for."""


def reason_of(error: Exception, length: int = REASON_LENGTH) -> str:
    """What an exception of another library says, on one line; words beyond so many characters are left out."""
    words = " ".join(str(error).split())
    if len(words) <= length:
        return words
    whole, _, begun = words[:length].rpartition(" ")
    return f"{whole or begun} …"


def name_problem(name: str) -> str | None:
    """What is wrong with a name of other bytes than this locale's text; None if nothing is."""
    if any("\ud800" <= letter <= "\udfff" for letter in name):  # what Python makes of them
        return f"the name of {name!a} is not UTF-8; rename it, or set a UTF-8 locale."
    return None


def how_it_ended(status: int) -> str:
    """How a process came to its end, for a sentence, by its status as `subprocess` has it."""
    if status >= 0:
        return f"ended with status {status}"
    names = {each.value: each.name for each in signal.Signals}  # of those for real time two alone have one
    return f"was ended by {names.get(-status, f'signal {-status}')}"


FULL_DISK = ("disk is full", "No space left")
"""What SQLite and the system say of it, where another library repeats their words alone."""


A_FILE = 1 << 20
"""Bytes without which a disk counts as full: it has no room for another file."""


def disk_is_full(error: BaseException | None, folder: str | Path | None = None) -> bool:
    """Whether an exception of another library, or what it came from, says that a disk is full.

    Args:
        error: the exception.
        folder: where it failed to write, if it is there: MLflow does not say why a download failed.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if getattr(error, "errno", None) == errno.ENOSPC or any(words in str(error) for words in FULL_DISK):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    if folder is None or not Path(folder).is_dir():
        return False
    disk = shutil.disk_usage(folder)
    return disk.free < min(A_FILE, disk.total / 100)  # some file systems tell nothing, which is 0


USER = re.compile(r"//(?:[^/?#;\s]*|[^/?#;:\s]*:(?!\d{1,5}[/?#;])[^@\s]*)@")
"""User and password of a URI, as far as it may have one; or, as SQLAlchemy reads it, a password with any sign but @."""

QUERY = re.compile(r"(://[^\s?#;]*)(?:[?#]|;(?=\w))\S*?(?=[)\].,;:'\"]*(?:\s|$))")
"""What follows a URI's path up to the end of the word, without the sentence's own signs there."""


def without_secrets(words: str) -> str:
    """Words that may be logged: of every URI in them user, password and what follows its path are left out."""
    return QUERY.sub(r"\1", USER.sub("//", words))


def on_one_line(words: str) -> str:
    """Words for a terminal or a log: signs that either obeys, as a column's name may hold, as Python writes them."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in words)


def nearest(name: str, known: Iterable[str]) -> str:
    """A closing clause for an unknown name: the nearest known one, in letters of any case, and the whole list."""
    known = sorted(known)
    as_lower = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), as_lower, n=1)
    return (f"did you mean {as_lower[close[0]]!r}? " if close else "") + f"known: {', '.join(known)}"
