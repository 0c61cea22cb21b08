"""A table of any size as a stream of Arrow record batches, in memory that does not grow with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from ssad.bundle import TableSchema
from ssad.bundle.delimited import STRADDLING, UnclosedQuoteError, WithLastRow, without_last_row
from ssad.bundle.schema import MISSING_WORDS
from ssad.datasets.parquet import BATCH_ROWS, after, parquet_files
from ssad.datasets.stamps import Stamp, stamps, unchanged
from ssad.datasets.tables import (
    FORMATS,
    PARQUET,
    SEPARATORS,
    STREAMED_COMPRESSION,
    check_separator,
    local_path,
    open_text,
    read_table,
)
from ssad.errors import DatasetError, listed, reason_of

BLOCK_BYTES = 1 << 24
"""Of text that are parsed at once: more than any row has."""

NO_NUMBER = "CSV conversion error"
"""What Arrow says of a cell that is no number to it."""

ROW = re.compile(r"(Expected \d+ columns, got \d+):.*")
"""What Arrow says of a row of text, which it then repeats: a run's tags are no place for whole rows."""


@dataclass(frozen=True)
class TableStream:
    """A table that is read batch by batch.

    Attributes:
        names: every column of the table.
        rows: how many rows there are; None where only reading them would tell.
        read: batches of the wanted columns after skipping a number of rows.
        opened: the files that are read meanwhile, as they were before anything of them was read.
    """

    names: tuple[str, ...]
    rows: int | None
    read: Callable[[int], Iterator[pa.RecordBatch]]
    opened: Mapping[Path, Stamp | None] = field(default_factory=dict)

    def batches(self, skip: int = 0) -> Iterator[pa.RecordBatch]:
        """Batches of `BATCH_ROWS` rows, the last one shorter, in the order of the table.

        Args:
            skip: rows at the start to leave out.

        Raises:
            DatasetError: a file turns out to be damaged, was changed since it was opened, or holds text that ends
                within quotes or a number that is none.
        """
        try:
            with unchanged(self.opened):
                yield from _evenly(self.read(skip))
        except (pa.ArrowException, OSError) as error:
            advice = "write it in UTF-8" if "UTF8" in str(error) else "repair it"
            advice = "close a quote that is left open" if STRADDLING in str(error) else advice
            raise DatasetError(
                f"the table cannot be read to its end ({_told(error)}); {advice} and run again."
            ) from error


def open_stream(location: str, schema: TableSchema, keep: Sequence[str] = ()) -> TableStream:
    """Open a table on this machine, by name or path, for reading the columns of a schema, and those to keep.

    Parquet (a file or a folder) and delimited text are streamed; what else `read_table` knows is read whole.

    Raises:
        DatasetError: there is no such table, it cannot be read, or a column to keep is missing.
    """
    wanted = list(dict.fromkeys([*schema.names, *keep]))
    words = {*schema.words, *keep}  # as they are written
    numbers = {column.name for column in schema.of_kind("numeric")} - words
    path = local_path(location)
    if path is None or suffix(path) not in (*PARQUET, *SEPARATORS):
        stream = _whole(location, words, wanted)
    else:
        try:
            stream = _parquet(path, words, wanted) if suffix(path) in PARQUET else _text(path, numbers, wanted)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{path} cannot be read ({_told(error)}); expected {FORMATS}.") from error
    twice = sorted(name for name, count in Counter(stream.names).items() if count > 1)
    lost = [name for name in keep if name not in stream.names]
    if twice or lost:
        problems = [f"columns of the same name ({', '.join(twice)})"] if twice else []
        problems += [f"no column {', '.join(map(repr, lost))} to keep"] if lost else []
        raise DatasetError(f"{location} has {' and '.join(problems)}; its columns are {listed(stream.names)}.")
    return stream


def _told(error: Exception) -> str:
    """What Arrow says, without the row that it is about."""
    return ROW.sub(r"\1", reason_of(error))


def suffix(path: Path) -> str:
    """The suffix that says what a file is, whatever compressed it; a folder is of Parquet."""
    if path.is_dir():
        return PARQUET[0]
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in STREAMED_COMPRESSION:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _parquet(path: Path, words: Collection[str], wanted: list[str]) -> TableStream:
    files = parquet_files(path, words)
    columns = [name for name in wanted if name in files.schema.names]
    return TableStream(tuple(files.schema.names), files.rows, lambda skip: files.read(columns, skip), files.opened)


def _text(path: Path, numbers: Collection[str], wanted: list[str]) -> TableStream:
    opened, separator = stamps([path]), SEPARATORS[suffix(path)]
    blocks = pacsv.ReadOptions(block_size=BLOCK_BYTES)
    layout = pacsv.ParseOptions(delimiter=separator, newlines_in_values=True)
    names = pacsv.open_csv(open_text(path), blocks, layout).schema.names
    check_separator(path, names)

    def rows(numbers: Collection[str], skip: int) -> Iterator[pa.RecordBatch]:
        values = pacsv.ConvertOptions(
            column_types={name: pa.float64() if name in numbers else pa.string() for name in wanted},
            include_columns=[name for name in wanted if name in names],
            null_values=MISSING_WORDS,
            strings_can_be_null=True,
        )
        text = WithLastRow(open_text(path), len(names), separator)
        return after(without_last_row(pacsv.open_csv(text, blocks, layout, values)), skip)

    def read(skip: int) -> Iterator[pa.RecordBatch]:
        try:
            try:
                for batch in rows(numbers, skip):
                    skip += len(batch)
                    yield batch
            except pa.ArrowInvalid as error:
                if NO_NUMBER not in str(error):
                    raise
                yield from rows((), skip)  # the schema reads more than Arrow does, and names what it cannot read
        except UnclosedQuoteError as error:
            raise DatasetError(
                f"{path} ends within a quoted field; close the quote, or write the file whole."
            ) from error

    return TableStream(tuple(names), None, read, opened)


def _whole(location: str, words: Collection[str], wanted: list[str]) -> TableStream:
    table = read_table(location, words)
    arrow = pa.Table.from_pandas(table[[name for name in wanted if name in table]], preserve_index=False)
    return TableStream(tuple(table.columns), len(table), lambda skip: iter(arrow.slice(skip).to_batches(BATCH_ROWS)))


def _evenly(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `BATCH_ROWS`, the last one shorter."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        # A column of numbers is words from the first batch on in which Arrow cannot read one.
        waiting = [*(before.cast(batch.schema) for before in waiting), batch]
        while sum(map(len, waiting)) >= BATCH_ROWS:
            joined = pa.concat_batches(waiting) if len(waiting) > 1 else waiting[0]
            yield joined.slice(0, BATCH_ROWS)
            waiting = [joined.slice(BATCH_ROWS)] if len(joined) > BATCH_ROWS else []
    if waiting and (rest := pa.concat_batches(waiting)).num_rows:
        yield rest
