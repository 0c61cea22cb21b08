"""CSV, Parquet and Arrow bodies to graph inputs, part by part; pyarrow is loaded by the first that comes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.bodies import check_names, check_rows
from serving.problems import RefusalError
from serving.settings import Settings
from ssad.bundle import TableSchema
from ssad.bundle.delimited import STRADDLING, UnclosedQuoteError, WithLastRow, other_separator, without_last_row
from ssad.bundle.schema import MAX_REPORTED_PROBLEMS, MISSING_WORDS, GraphInputs
from ssad.errors import CellProblem, RowsError, rows_from

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS = 16_384
"""Rows that are in memory as columns at once, whatever the body holds."""

CSV_BLOCK_BYTES = 2**22
"""Bytes of a CSV body that are parsed at once; a longer line is refused."""

EMPTY = "Empty CSV"
"""What Arrow says of a header that no line ends."""

UNPACKED_BYTES = 16
"""A value of a Parquet body may unpack to so many bytes, the widest number; one word alone could else be gigabytes."""

PERIOD = "pandas.period"
"""What pandas calls its periods among Arrow's types; this process may know it by the column's metadata alone."""


def csv_rows(body: bytes, schema: TableSchema, settings: Settings) -> Iterator[GraphInputs]:
    """Rows of a CSV body with a header, in UTF-8.

    Raises:
        RowsError: it is not one, or its rows do not fit the schema.
        RefusalError: there are too many.
    """
    import pyarrow as pa
    from pyarrow import csv

    names = _csv_header(body)
    if other := other_separator(names):
        raise RowsError(f"the body seems to be separated by {other!r}; separate values by commas, or send JSON.")
    check_names(names, schema)
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=MISSING_WORDS, strings_can_be_null=True
    )
    try:
        text = WithLastRow(pa.BufferReader(body), len(names))
        blocks = csv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False)
        reader = csv.open_csv(text, blocks, csv.ParseOptions(newlines_in_values=True), convert)
        if reader.schema.names != names:  # lines before the header, or one within it
            raise RowsError("the body is no CSV table with a header in UTF-8, see its header.")
        yield from _parts(without_last_row(reader), schema, settings)
    except UnclosedQuoteError as error:
        raise RowsError("the body ends within a quoted field; close the quote.") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        if EMPTY in str(error) and names:
            check_rows(0, settings)
        row = re.search(r"Row #(\d+)", str(error))
        where = f"see line {row[1]}" if row else "see its header"
        if STRADDLING in str(error):
            where = f"a row has more than {CSV_BLOCK_BYTES >> 20} MiB, as where a quote is not closed"
        raise RowsError(f"the body is no CSV table with a header in UTF-8, {where}.") from error


def _csv_header(body: bytes) -> list[str]:
    import csv

    try:
        # Bytes that are no text are told of where they are.
        text = io.BytesIO(body[:CSV_BLOCK_BYTES])
        lines = io.TextIOWrapper(text, encoding="utf-8-sig", errors="surrogateescape", newline="")
        names = next(filter(None, csv.reader(lines, strict=True)), [])
        "".join(names).encode()
        return names
    except (UnicodeError, csv.Error) as error:
        raise RowsError("the body is no CSV table with a header in UTF-8, see its header.") from error


def parquet_rows(body: bytes, schema: TableSchema, settings: Settings) -> Iterator[GraphInputs]:
    """Rows of a Parquet body.

    Raises:
        RowsError: it is not one, or its rows do not fit the schema.
        RefusalError: there are too many, or they would unpack to too much.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        metadata = parquet.read_metadata(pa.BufferReader(body))
        _check_parquet(metadata, settings)
        held = {metadata.schema.column(at).path for at in range(metadata.num_columns)}
        words = [column.name for column in schema.categorical if column.name in held]
        # Words stay as they are packed: one of a megabyte in each row would else be copied for each.
        file = parquet.ParquetFile(pa.BufferReader(body), metadata=metadata, read_dictionary=words, pre_buffer=False)
        check_names(file.schema_arrow.names, schema)
        known = [name for name in file.schema_arrow.names if name in schema.graph_order]
        yield from _parts(file.iter_batches(PART_ROWS, columns=known, use_threads=False), schema, settings)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RowsError("the body is no Parquet file, or a damaged one; write it again.") from error


def _check_parquet(metadata: Any, settings: Settings) -> None:
    check_rows(metadata.num_rows, settings)
    most = max(settings.max_body_bytes, UNPACKED_BYTES * metadata.num_rows * metadata.num_columns)
    if sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups)) > most:
        raise RefusalError(413, f"the body unpacks to more than {most} bytes; send less at a time.", "expansion")


def arrow_rows(body: bytes, schema: TableSchema, settings: Settings) -> Iterator[GraphInputs]:
    """Rows of an Arrow stream, uncompressed.

    Raises:
        RowsError: it is not one, or its rows do not fit the schema.
        RefusalError: there are too many.
    """
    import pyarrow as pa

    try:
        _refuse_compressed(body)
        with _opened(body) as reader:
            check_names(reader.schema.names, schema)
            yield from _parts(reader, schema, settings)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise RowsError("the body is no Arrow stream, or a damaged one; write it again.") from error


def _opened(body: bytes) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(pa.BufferReader(body))
    except TypeError as error:  # where pandas is loaded, its intervals do not know themselves in a dictionary
        raise RowsError("the Arrow stream has a column of a type that cannot be read; send it as text.") from error


def _refuse_compressed(body: bytes) -> None:
    """Compressed Arrow buffers say nothing of their size before they are unpacked: they are not taken."""
    import pyarrow as pa
    from flatbuffers.table import Table

    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(body)):
        if message.type not in ("record batch", "dictionary"):
            continue
        metadata = bytearray(message.metadata.to_pybytes())
        root = Table(metadata, int.from_bytes(metadata[:4], "little"))
        header = Table(metadata, root.Indirect(root.Offset(8) + root.Pos))
        if message.type == "dictionary":
            header = Table(metadata, header.Indirect(header.Offset(6) + header.Pos))
        if header.Offset(10):
            raise RefusalError(415, "the Arrow stream is compressed; send it uncompressed, or Parquet.", "compressed")


def _parts(batches: Any, schema: TableSchema, settings: Settings) -> Iterator[GraphInputs]:
    """Graph inputs of record batches, `PART_ROWS` rows at most in each."""
    done = 0
    for whole in batches:
        check_rows(max(1, done + whole.num_rows), settings)
        whole.validate(full=True)
        for start in range(0, whole.num_rows, PART_ROWS):
            part = whole.slice(start, PART_ROWS)
            with rows_from(done):
                inputs = _inputs(part, schema)
            yield inputs
            done += part.num_rows
    check_rows(done, settings)


def _inputs(batch: pa.RecordBatch, schema: TableSchema) -> GraphInputs:
    kinds = {column.name: column.kind for column in schema.columns}
    _refuse_periods(batch.schema.field(at) for at, name in enumerate(batch.schema.names) if name in kinds)
    table = {
        name: _values(batch.column(at), kinds[name], name) if name in kinds else ()
        for at, name in enumerate(batch.schema.names)
    }
    return schema.inputs(table, strict=True)


def _refuse_periods(fields: Iterator[pa.Field]) -> None:
    """Arrow has a period as a number that counts from 1970, in training it is none."""
    for field in fields:
        said = (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()
        if PERIOD in (said, getattr(field.type, "extension_name", "")):
            raise RowsError(f"column {field.name!r} holds periods, which are numbers to others; send text or dates.")


def _values(array: Any, kind: str, name: str) -> Any:
    """One column as an array where its type says what it holds; else as the values it holds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.ExtensionArray):
        array = array.storage  # as in training
    if kind == "categorical":
        return _words(array, name)
    if pa.types.is_temporal(array.type) != (kind == "date"):
        if pa.types.is_floating(array.type):
            _refuse_nan(pc.is_nan(array), name)
        return _listed(array, name)
    try:
        read = array.cast(pa.timestamp("us") if kind == "date" else pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _listed(array, name)
    if kind != "date":
        _refuse_nan(pc.is_nan(read), name)  # a word for it too
    return read.to_numpy(zero_copy_only=False)


def _words(array: Any, name: str) -> Any:
    import pyarrow as pa

    if not pa.types.is_dictionary(array.type):
        return _listed(array, name)
    words = np.asarray([*_listed(array.dictionary, name), None], dtype=object)
    places = array.indices.fill_null(len(words) - 1) if array.indices.null_count else array.indices
    return words[places.to_numpy(zero_copy_only=False)]


def _listed(array: Any, name: str) -> list[Any]:
    """The values as Python has them; not every moment or text that Arrow can hold is one."""
    import pyarrow as pa

    try:
        values: list[Any] = array.to_pylist()
    except (OverflowError, ValueError, pa.ArrowException) as error:
        raise RowsError(f"column {name!r} holds values of another type; see /docs for the columns.") from error
    return values


def _refuse_nan(is_nan: Any, name: str) -> None:
    rows = np.flatnonzero(is_nan.fill_null(False).to_numpy(zero_copy_only=False)).tolist()
    if rows:
        cells = [CellProblem(row, name, "a number or null") for row in rows[:MAX_REPORTED_PROBLEMS]]
        raise RowsError.of_cells(cells, more=len(rows) > len(cells))
