"""Parquet files as one table: the columns of all of them, read row group by row group."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads

from ssad.errors import DatasetError, reason_of

logger = logging.getLogger(__name__)

BATCH_ROWS = 65_536
"""Rows of every batch but the last: 15 MiB of thirty numbers, small beside a row group's million rows."""

SHOWN_COLUMNS = 20

NO_NAME = re.compile(r"__index_level_\d+__")
"""What pandas calls a column that it makes of an index without a name."""

READ_AHEAD = 1
"""Batches that are read while one is used. Of Arrow's own sixteen each costs three times the processor time, most of it
for memory that another thread had."""


@dataclass(frozen=True)
class ParquetFiles:
    """A Parquet file, or those of a folder in the order of their names.

    Attributes:
        schema: the columns of all files, those of a `name=value` folder among them; a file without one has gaps there.
            An index without a name that pandas wrote along is none of them.
        groups: the row groups, each with its number of rows.
        paths: the files.
        partitions: for each file what the names of its folders say.
    """

    schema: pa.Schema
    groups: tuple[tuple[pads.ParquetFileFragment, int], ...]
    paths: tuple[Path, ...]
    partitions: tuple[str, ...]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(rows for _, rows in self.groups)

    def read(self, columns: Sequence[str], skip: int = 0) -> Iterator[pa.RecordBatch]:
        """Batches of `BATCH_ROWS` rows at most, after skipping a number of rows.

        Raises:
            DatasetError: a file turns out to be damaged.
        """
        for group, rows in self.groups:
            if skip < rows:
                batches = group.to_batches(
                    self.schema,
                    columns=list(columns),
                    batch_size=BATCH_ROWS,
                    batch_readahead=READ_AHEAD,
                    memory_pool=pa.system_memory_pool(),  # Arrow's own takes half a second to get its first memory
                )
                try:
                    yield from after(batches, skip)
                except (pa.ArrowException, OSError) as error:
                    raise DatasetError(
                        f"{group.path} cannot be read to its end ({reason_of(error)}); repair it and run again."
                    ) from error
            skip = max(0, skip - rows)

    def frame(self) -> pd.DataFrame:
        """All of the table in memory.

        Raises:
            DatasetError: a file turns out to be damaged.
        """
        frame: pd.DataFrame = pa.Table.from_batches(self.read(self.columns), self.schema).to_pandas()
        return frame

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        names: list[str] = self.schema.names
        return names


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
        dataset = _dataset(path, words)
        files = sorted(dataset.get_fragments(), key=lambda fragment: fragment.path)
        groups = [group for file in files for group in file.split_by_row_group()]
        schema = _joined_schema(dataset.schema, files)
        _tell_of_gaps(schema, files)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{path} cannot be read ({reason_of(error)}); expected a Parquet file, or a folder with nothing else."
        ) from error
    lengths = [group.row_groups[0].num_rows for group in groups]
    return ParquetFiles(
        schema,
        tuple(zip(groups, lengths, strict=True)),
        tuple(Path(file.path) for file in files),
        tuple(str(file.partition_expression) for file in files),
    )


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
        shown = ", ".join(missing[:SHOWN_COLUMNS]) + (", ..." if len(missing) > SHOWN_COLUMNS else "")
        logger.warning("not every file has the columns %s (the first without: %s): they have gaps there", shown, first)


def _plain(schema: pa.Schema) -> pa.Schema:
    """The columns but an index without a name that pandas wrote along, each of the type that its values are of."""
    return pa.schema(field.with_type(_plain_type(field.type)) for field in schema if not NO_NAME.fullmatch(field.name))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Of words that are stored once and numbered that of the words, of an extension type what it is stored as."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return kind.storage_type if isinstance(kind, pa.ExtensionType | pa.BaseExtensionType) else kind
