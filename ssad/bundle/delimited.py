"""What tells that delimited text was read to its end.

Arrow closes a quote at the end of the text that nobody closed before, and what follows the quote is one value.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

OTHER_SEPARATORS = (";", "\t", "|", ",")

STRADDLING = "straddl"
"""What Arrow says of a row that is longer than what it reads at once."""


def other_separator(names: Sequence[str]) -> str | None:
    """What the names of a header are separated by that was read as one name; None of any other header."""
    return next((mark for mark in OTHER_SEPARATORS if len(names) == 1 and mark in names[0]), None)


class UnclosedQuoteError(ValueError):
    """The text ends within a quoted field."""


class WithLastRow(io.RawIOBase):
    """A file of text with one more row after all others, in which no column has a value."""

    def __init__(self, file: pa.NativeFile, columns: int, separator: str = ",") -> None:
        self._file = file
        self._row = b"\n" + ((columns - 1) * separator or '""').encode() + b"\n"

    def readable(self) -> bool:
        """It can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; none at the end."""
        data: bytes = self._file.read(size if size >= 0 else None)
        if not data:
            data, self._row = self._row, b""
        return data


def without_last_row(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches of a `WithLastRow`, without that row.

    Raises:
        UnclosedQuoteError: it is not there, because a quoted field has swallowed it.
    """
    held: pa.RecordBatch | None = None
    for batch in batches:
        if batch.num_rows:
            if held is not None:
                yield held
            held = batch
    if held is None or any(column.null_count == 0 for column in held.slice(held.num_rows - 1).columns):
        raise UnclosedQuoteError
    if held.num_rows > 1:
        yield held.slice(0, held.num_rows - 1)
