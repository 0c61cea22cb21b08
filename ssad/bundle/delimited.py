"""What tells that delimited text was read to its end.

Arrow closes a quote at the end of the text that nobody closed before, and what follows the quote is one value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


class UnclosedQuoteError(ValueError):
    """The text ends within a quoted field."""


def last_row(columns: int, separator: str = ",") -> bytes:
    """A row without a value, to be read after all others."""
    return b"\n" + ((columns - 1) * separator or '""').encode() + b"\n"


def without_last_row(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches without the row that `last_row` made, in which no column has a value.

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
