"""Rows of a table of any size, read batch by batch as often as training needs them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

from ssad.bundle.bundle import file_digest
from ssad.datasets.parquet import BATCH_ROWS, parquet_files
from ssad.datasets.stamps import unchanged
from ssad.datasets.stream import suffix
from ssad.datasets.tables import PARQUET, check_shape, local_path, read_table


@dataclass(frozen=True)
class TableRows:
    """Rows of a table in memory or in Parquet files; both are read in batches, so one is trained on as the other.

    Attributes:
        columns: their names.
        read: batches of these columns of the whole table, in its order.
        total: rows of the whole table.
        chosen: which of them these are, shape (total,); None for all.
        source: SHA-256 of the files, in hexadecimal; None for a table in memory.
    """

    columns: tuple[str, ...]
    read: Callable[[Sequence[str]], Iterator[pd.DataFrame]]
    total: int
    chosen: npt.NDArray[np.bool_] | None = None
    source: Callable[[], str] | None = None

    def __len__(self) -> int:
        return self.total if self.chosen is None else int(self.chosen.sum())

    def batches(self) -> Iterator[pd.DataFrame]:
        """The rows in their order, `BATCH_ROWS` of the table at a time, indexed by their positions in the table.

        Raises:
            DatasetError: a file is damaged, or was changed since it was opened.
        """
        start = 0
        for batch in self.read(self.columns):
            stop = start + len(batch)
            rows = batch.set_axis(range(start, stop))
            rows = rows if self.chosen is None else rows[self.chosen[start:stop]]
            start = stop
            if len(rows):
                yield rows

    def at(self, positions: npt.NDArray[np.int64]) -> TableRows:
        """The rows at these ascending positions among them."""
        chosen = np.zeros(self.total, dtype=bool)
        chosen[positions if self.chosen is None else np.flatnonzero(self.chosen)[positions]] = True
        return replace(self, chosen=chosen)

    def only(self, columns: Sequence[str]) -> TableRows:
        """The same rows with these of their columns."""
        return replace(self, columns=tuple(columns))

    def head(self, rows: int) -> pd.DataFrame:
        """The first so many rows, or all there are."""
        parts, found = [], 0
        for batch in self.batches():
            parts.append(batch)
            found += len(batch)
            if found >= rows:
                break
        return pd.concat(parts, ignore_index=True).head(rows)

    def words(self) -> list[str]:
        """Names of the columns that are not numbers, truth values or moments by their type."""
        typed = (types.is_numeric_dtype, types.is_bool_dtype, types.is_datetime64_any_dtype)
        return [str(name) for name, values in self.head(1).items() if not any(is_type(values) for is_type in typed)]

    def frame(self) -> pd.DataFrame:
        """All rows in memory."""
        return self.head(len(self))

    def digest(self) -> str | None:
        """What tells these rows from all others, SHA-256 in hexadecimal; None for a table in memory."""
        if self.source is None:
            return None
        chosen = b"" if self.chosen is None else np.packbits(self.chosen).tobytes()
        return hashlib.sha256(repr((self.source(), self.columns)).encode() + chosen).hexdigest()


def frame_digest(rows: pd.DataFrame) -> str:
    """What tells rows in memory from all others, SHA-256 in hexadecimal."""
    try:
        hashes = pd.util.hash_pandas_object(rows, index=False).to_numpy()
    except TypeError:  # lists and the like have no hash
        hashes = pd.util.hash_pandas_object(rows.map(repr), index=False).to_numpy()
    return hashlib.sha256(repr(list(rows.columns)).encode() + hashes.tobytes()).hexdigest()


def table_rows(table: pd.DataFrame | TableRows) -> TableRows:
    """The rows of a table in memory; rows are what they are."""
    if isinstance(table, TableRows):
        return table

    named = table.set_axis(table.columns.map(str), axis=1)

    def read(columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        wanted = named[list(columns)]
        for start in range(0, len(named), BATCH_ROWS):
            yield wanted.iloc[start : start + BATCH_ROWS]

    return TableRows(tuple(named.columns), read, len(named))


def open_rows(location: str, words: Collection[str] = ()) -> TableRows:
    """The rows of a table on this machine, by name or path: Parquet stays in its files, what else there is is read.

    Args:
        location: where it is.
        words: names of columns that hold words, see `read_table`.

    Raises:
        DatasetError: there is no such table, it cannot be read, or it is empty.
    """
    path = local_path(location)
    if path is None or suffix(path) not in PARQUET:
        return table_rows(read_table(location, words))
    files = parquet_files(path, words)
    check_shape(path, files.rows, files.schema.names)

    @cache
    def source() -> str:
        with unchanged(files.opened):
            found = [file_digest(file.path) for file in files.files]
        folders = tuple(str(file.partition) for file in files.files)
        return hashlib.sha256(repr((found, folders)).encode()).hexdigest()

    return TableRows(tuple(files.schema.names), files.frames, files.rows, source=source)
