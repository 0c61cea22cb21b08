"""Parquet files as one table: the columns of all of them, read row group by row group."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType, LocalFileSystem

from ssad.datasets.stamps import Stamp, stamps, unchanged
from ssad.errors import DatasetError, listed, reason_of

logger = logging.getLogger(__name__)

BATCH_ROWS = 65_536
"""Rows of every batch but the last: 15 MiB of thirty numbers, small beside a row group's million rows."""

NO_NAME = re.compile(r"__index_level_\d+__")
"""What pandas calls a column that it makes of an index without a name."""

PERIOD: str = pa.array(pd.PeriodIndex([], freq="D")).type.extension_name
"""The name of pandas' periods among Arrow's types, which pandas registers as soon as it makes one. They are stored as
numbers that count from 1970 in days or months, and would be taken for such."""

BUFFER_BYTES = 1 << 16
"""Of a column that are read at once. A scan of the data set has a whole row group in memory: getting that from the
system takes as long as reading it."""


@dataclass(frozen=True)
class Fragment:
    """One file of a table.

    Attributes:
        path: where it is.
        groups: rows of each of its row groups.
        partition: what the names of its folders say.
    """

    path: Path
    groups: tuple[int, ...]
    partition: pads.Expression

    def read(self, schema: pa.Schema, skip: int) -> Iterator[pa.RecordBatch]:
        """Batches of these columns, after skipping a number of rows."""
        with pq.ParquetFile(self.path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
            for group, rows in enumerate(self.groups):
                if skip < rows:  # one at a time: what Arrow reads of several it keeps to the end
                    batches = file.iter_batches(BATCH_ROWS, row_groups=[group], columns=schema.names)
                    yield from after((self._as(schema, batch) for batch in batches), skip)
                skip = max(0, skip - rows)

    def _as(self, schema: pa.Schema, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with every column of a schema."""
        held, said = dict(zip(batch.schema.names, batch.columns, strict=True)), pads.get_partition_keys(self.partition)
        columns = [
            held[field.name].cast(field.type)
            if field.name in held and field.name not in said
            else pa.repeat(pa.scalar(said.get(field.name), field.type), len(batch))
            for field in schema
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema) if columns else batch.select([])


@dataclass(frozen=True)
class ParquetFiles:
    """A Parquet file, or those of a folder in the order of their names.

    Attributes:
        schema: the columns of all files, those of a `name=value` folder among them; a file without one has gaps there.
            An index without a name that pandas wrote along is none of them.
        files: in the order of their names.
        opened: what they were before anything of them was read.
    """

    schema: pa.Schema
    files: tuple[Fragment, ...]
    opened: Mapping[Path, Stamp | None]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(sum(file.groups) for file in self.files)

    @property
    def paths(self) -> list[Path]:
        """Where the files are."""
        return [file.path for file in self.files]

    def read(self, columns: Sequence[str], skip: int = 0) -> Iterator[pa.RecordBatch]:
        """Batches of `BATCH_ROWS` rows at most, after skipping a number of rows.

        Raises:
            DatasetError: a file turns out to be damaged.
        """
        schema = pa.schema([self.schema.field(name) for name in columns])
        for file in self.files:
            rows = sum(file.groups)
            if skip < rows:
                try:
                    yield from file.read(schema, skip)
                except (pa.ArrowException, OSError) as error:
                    raise DatasetError(
                        f"{file.path} cannot be read to its end ({reason_of(error)}); repair it and run again."
                    ) from error
            skip = max(0, skip - rows)

    def frames(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Batches as pandas has them.

        Raises:
            DatasetError: a file turns out to be damaged, or was changed since it was opened, or holds values that
                pandas has not.
        """
        with unchanged(self.opened):
            for batch in self.read(columns):
                yield self._pandas(batch)

    def frame(self) -> pd.DataFrame:
        """All of the table in memory; raises as `frames` does."""
        with unchanged(self.opened):
            return self._pandas(pa.Table.from_batches(self.read(self.schema.names), self.schema))

    def _pandas(self, rows: pa.RecordBatch | pa.Table) -> pd.DataFrame:
        try:
            frame: pd.DataFrame = rows.to_pandas(ignore_metadata=True)
        except (pa.ArrowException, ValueError, OverflowError, KeyError) as error:  # the last one: of a zone, by pytz
            if len(rows.schema) > 1:  # of one column alone it is told which
                for name in rows.schema.names:
                    self._pandas(rows.select([name]))
            where = self.paths[0] if len(self.paths) == 1 else "the table"
            raise DatasetError(
                f"{where}: the column {', '.join(rows.schema.names)} "
                f"holds values that pandas does not have ({reason_of(error)}); write it as text, or leave it out."
            ) from error
        return frame


def after(batches: Iterator[pa.RecordBatch], skip: int) -> Iterator[pa.RecordBatch]:
    """The batches without their first `skip` rows."""
    for batch in batches:
        if skip < len(batch):
            yield batch.slice(skip)
        skip = max(0, skip - len(batch))


def parquet_files(path: Path, words: Collection[str] = ()) -> ParquetFiles:
    """Open a Parquet file or a folder of them; reads what they say of themselves, no rows.

    Args:
        path: the file or folder.
        words: names of columns that hold words: of a folder `zone=007` they have 007 then.

    Raises:
        DatasetError: a file is damaged, or a column is not of one type in all of them.
    """
    try:
        before = stamps(_paths(path))
        dataset = _dataset(path, words)
        files = sorted(dataset.get_fragments(), key=lambda fragment: fragment.path)
        schema = _joined_schema(dataset.schema, files)
        _tell_of_gaps(schema, files)
        groups = [tuple(group.num_rows for group in file.row_groups) for file in files]
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{path} cannot be read ({reason_of(error)}); expected a Parquet file, or a folder with nothing else."
        ) from error
    return ParquetFiles(
        schema,
        tuple(
            Fragment(Path(file.path), rows, file.partition_expression) for file, rows in zip(files, groups, strict=True)
        ),
        {Path(file.path): before.get(Path(file.path)) for file in files},
    )


def _paths(path: Path) -> list[Path]:
    """All files that a table may be of."""
    if path.is_file():
        return [path]
    found = LocalFileSystem().get_file_info(FileSelector(str(path), recursive=True))
    return [Path(one.path) for one in found if one.type == FileType.File]


def _dataset(path: Path, words: Collection[str]) -> pads.Dataset:
    if not path.is_dir():
        return pads.dataset(path, format="parquet")
    dataset = pads.dataset(path, format="parquet", partitioning="hive")
    names = {name for file in dataset.get_fragments() for name in pads.get_partition_keys(file.partition_expression)}
    if not names.intersection(words):
        return dataset
    fields = [pa.field(n, pa.string()) if n in words else dataset.schema.field(n) for n in sorted(names)]
    return pads.dataset(path, format="parquet", partitioning=pads.partitioning(pa.schema(fields), flavor="hive"))


def _joined_schema(first: pa.Schema, files: Sequence[pads.ParquetFileFragment]) -> pa.Schema:
    """The columns of all files, each of a type that holds what any of them has there.

    A file in which a column has no value, or whole numbers alone, does not say what the others hold.
    """
    joined = known = _plain(first)
    for file in files:
        found = _plain(file.physical_schema)
        if found.equals(known):
            continue
        known = found
        try:
            joined = pa.unify_schemas([joined, found], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            raise DatasetError(
                f"{file.path} has columns of another type than the files before it ({reason_of(error)}); "
                "write all files with the same types and run again."
            ) from error
    return joined


def _tell_of_gaps(schema: pa.Schema, files: Sequence[pads.ParquetFileFragment]) -> None:
    """Warn of columns that neither some file nor the names of its folders have."""
    held = [{*file.physical_schema.names, *pads.get_partition_keys(file.partition_expression)} for file in files]
    missing = [name for name in schema.names if any(name not in names for names in held)]
    if missing:
        first = next(file.path for file, names in zip(files, held, strict=True) if not names.issuperset(missing))
        told = "not every file has the columns %s (the first without: %s): they have gaps there"
        logger.warning(told, listed(missing), first)


def _plain(schema: pa.Schema) -> pa.Schema:
    """The columns but an index without a name that pandas wrote along, each of the type that its values are of."""
    return pa.schema(field.with_type(_plain_type(field.type)) for field in schema if not NO_NAME.fullmatch(field.name))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Of words that are stored once and numbered that of the words, of an extension type what it is stored as."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    stored = isinstance(kind, pa.BaseExtensionType) and kind.extension_name != PERIOD
    return kind.storage_type if stored else kind
