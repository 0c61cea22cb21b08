"""CSV, Parquet and Arrow: bodies to graph inputs, part by part, and scores to answers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from flatbuffers.table import Table

from serving.answers import Answered
from serving.bodies import check_names, check_rows
from serving.problems import RefusalError
from serving.settings import Settings
from serving.words import longest_word, shortened
from ssad.bundle import REGIONS, TableSchema
from ssad.bundle.delimited import STRADDLING, UnclosedQuoteError, WithLastRow, other_separator, without_last_row
from ssad.bundle.schema import MAX_REPORTED_PROBLEMS, MISSING_WORDS, GraphInputs, Kind
from ssad.errors import CellProblem, RowsError, rows_from

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

LONGEST_NUMBER = 2000
"""Bytes of a number, truth value or date that is text: the longest exact double has 1,077 digits."""


def csv_rows(body: bytes, schema: TableSchema, settings: Settings) -> Iterator[GraphInputs]:
    """Rows of a CSV body with a header, in UTF-8.

    Raises:
        RowsError: it is not one, or its rows do not fit the schema.
        RefusalError: there are too many.
    """
    names = _csv_header(body)
    if other := other_separator(names):
        raise RowsError(f"the body seems to be separated by {other!r}; separate values by commas, or send JSON.")
    check_names(names, schema)
    convert = pacsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=MISSING_WORDS, strings_can_be_null=True
    )
    try:
        text = WithLastRow(pa.BufferReader(body), len(names))
        blocks = pacsv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False)
        reader = pacsv.open_csv(text, blocks, pacsv.ParseOptions(newlines_in_values=True), convert)
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
    try:
        metadata = pq.read_metadata(pa.BufferReader(body))
        _check_parquet(metadata, settings)
        # Text stays as it is packed: a word of a megabyte in each row would else be copied for each.
        texts = [column.path for column in _columns(metadata) if column.physical_type == "BYTE_ARRAY"]
        file = pq.ParquetFile(pa.BufferReader(body), metadata=metadata, read_dictionary=texts, pre_buffer=False)
        check_names(file.schema_arrow.names, schema)
        _check_types(file.schema_arrow, schema, texts)
        known = [name for name in file.schema_arrow.names if name in schema.graph_order]
        yield from _parts(file.iter_batches(PART_ROWS, columns=known, use_threads=False), schema, settings)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RowsError("the body is no Parquet file, or a damaged one; write it again.") from error


def _check_parquet(metadata: Any, settings: Settings) -> None:
    check_rows(metadata.num_rows, settings)
    most = max(settings.max_body_bytes, UNPACKED_BYTES * metadata.num_rows * metadata.num_columns)
    told = sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
    fixed = metadata.num_rows * sum(column.length for column in _columns(metadata))  # in every row; 0 for other types
    if max(told, fixed) > most:
        raise RefusalError(413, f"the body unpacks to more than {most} bytes; send less at a time.", "expansion")


def _columns(metadata: Any) -> list[Any]:
    return [metadata.schema.column(at) for at in range(metadata.num_columns)]


def arrow_rows(body: bytes, schema: TableSchema, settings: Settings) -> Iterator[GraphInputs]:
    """Rows of an Arrow stream, uncompressed.

    Raises:
        RowsError: it is not one, or its rows do not fit the schema.
        RefusalError: there are too many.
    """
    try:
        _refuse_compressed(body)
        with _opened(body) as reader:
            check_names(reader.schema.names, schema)
            _check_types(reader.schema, schema)
            yield from _parts(reader, schema, settings)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise RowsError("the body is no Arrow stream, or a damaged one; write it again.") from error


def _opened(body: bytes) -> Any:
    try:
        return pa.ipc.open_stream(pa.BufferReader(body))
    except TypeError as error:  # where pandas is loaded, its intervals do not know themselves in a dictionary
        raise RowsError("the Arrow stream has a column of a type that cannot be read; send it as text.") from error


def _refuse_compressed(body: bytes) -> None:
    """Compressed Arrow buffers say nothing of their size before they are unpacked: they are not taken."""
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


def _check_types(given: pa.Schema, schema: TableSchema, texts: Sequence[str] = ()) -> None:
    """Refuse lists and the like, and text that would take its room in every row, though it is in the body once.

    Periods too: Arrow has one as a number that counts from 1970, and in training it is none.

    Args:
        given: the columns that come; one that the schema does not know is not read, whatever it is.
        schema: the columns that are known.
        texts: those that must come as dictionaries.
    """
    known = frozenset(schema.graph_order)
    for column in given:
        if column.name not in known:
            continue
        said = (column.metadata or {}).get(b"ARROW:extension:name", b"").decode()
        if PERIOD in (said, getattr(column.type, "extension_name", "")):
            raise RowsError(f"column {column.name!r} holds periods, which are numbers to others; send text or dates.")
        kind = column.type.storage_type if isinstance(column.type, pa.BaseExtensionType) else column.type
        packed = pa.types.is_dictionary(kind)
        flat = _is_flat(kind.value_type if packed else kind) and (packed or column.name not in texts)
        if not flat:
            raise _of_another_type(column.name)


def _is_flat(kind: Any) -> bool:
    """Whether each row has its own value: a word of views or run ends is in memory once, and may be every row's."""
    types = pa.types
    return _is_text(kind) or types.is_primitive(kind) or types.is_decimal(kind) or types.is_null(kind)


def _is_text(kind: Any) -> bool:
    types = pa.types
    of_any_length = types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind)
    return bool(of_any_length or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _parts(batches: Any, schema: TableSchema, settings: Settings) -> Iterator[GraphInputs]:
    """Graph inputs of record batches, `PART_ROWS` rows at most in each."""
    kinds, longest, done = {column.name: column.kind for column in schema.columns}, longest_word(schema), 0
    for whole in batches:
        check_rows(max(1, done + whole.num_rows), settings)
        whole.validate()
        whole.select([name for name in whole.schema.names if name in kinds]).validate(full=True)
        for start in range(0, whole.num_rows, PART_ROWS):
            part = whole.slice(start, PART_ROWS)
            with rows_from(done):
                inputs = schema.inputs(_columns_of(part, kinds, longest), strict=True)
            yield inputs
            done += part.num_rows
    check_rows(done, settings)


def _columns_of(batch: pa.RecordBatch, kinds: dict[str, Kind], longest: int) -> dict[str, Any]:
    """Columns by name; of one that is not known the name alone."""
    return {
        name: _values(batch.column(at), kinds[name], name, longest) if name in kinds else ()
        for at, name in enumerate(batch.schema.names)
    }


def _values(array: Any, kind: str, name: str, longest: int) -> Any:
    """One column as an array: of numbers or moments where its type, or all of its text, says so, else of objects.

    What a dictionary holds is read once, however many rows have it.
    """
    if isinstance(array, pa.ExtensionArray):
        array = array.storage  # as in training
    places: Any = slice(None)
    if pa.types.is_dictionary(array.type):
        used = array.indices.dictionary_encode("encode")  # of a large dictionary only what is used here
        array, places = array.dictionary.take(used.dictionary), used.indices.to_numpy()
    if kind == "categorical":
        return _words(array, name, longest)[places]
    read = _cast(array, kind)
    known = array if read is None else read
    if pa.types.is_floating(known.type):
        _refuse(pc.is_nan(known), places, name, "a number or null")  # a word for it too
    if read is not None:
        return read.to_numpy(zero_copy_only=False)[places]
    if _is_text(array.type):
        _refuse(
            pc.greater(pc.binary_length(array), LONGEST_NUMBER), places, name, f"{LONGEST_NUMBER} bytes of text at most"
        )
    return _objects(array, name)[places]


def _cast(array: Any, kind: str) -> Any:
    """Numbers, or moments of a date; None where there is anything else."""
    if pa.types.is_temporal(array.type) != (kind == "date"):
        return None
    try:
        return array.cast(pa.timestamp("us") if kind == "date" else pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _words(array: Any, name: str, longest: int) -> Any:
    """Categories; one longer than any that is known is cut: each row's is copied into the graph."""
    words = _objects(array, name)
    if _is_text(array.type) and (pc.max(pc.binary_length(array)).as_py() or 0) > longest:
        words[:] = [shortened(word, longest) for word in words]
    return words


def _objects(array: Any, name: str) -> Any:
    """The values as Python has them; not every moment or text that Arrow can hold is one."""
    try:
        return np.asarray(array.to_pylist(), dtype=object)
    except (OverflowError, ValueError, pa.ArrowException) as error:
        raise _of_another_type(name) from error


def _of_another_type(name: str) -> RowsError:
    return RowsError(f"column {name!r} holds values of another type; see /docs for the columns.")


def _refuse(wrong: Any, places: Any, name: str, expected: str) -> None:
    """Refuse the rows whose values are wrong."""
    rows = np.flatnonzero(wrong.fill_null(False).to_numpy(zero_copy_only=False)[places]).tolist()
    if rows:
        cells = [CellProblem(row, name, expected) for row in rows[:MAX_REPORTED_PROBLEMS]]
        raise RowsError.of_cells(cells, more=len(rows) > len(cells))


def write_csv(answered: Answered) -> bytes:
    """The answer as CSV."""
    sink = pa.BufferOutputStream()
    pacsv.write_csv(_table(answered), sink, pacsv.WriteOptions(quoting_style="none"))
    return bytes(sink.getvalue())


def write_arrow(answered: Answered) -> bytes:
    """The answer as an Arrow stream."""
    sink, table = pa.BufferOutputStream(), _table(answered)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def write_parquet(answered: Answered) -> bytes:
    """The answer as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(_table(answered), sink)
    return bytes(sink.getvalue())


def _table(answered: Answered) -> pa.Table:
    scores = answered.scores
    region = pa.DictionaryArray.from_arrays(pa.array(scores.codes), pa.array(REGIONS)).cast(pa.string())
    return pa.table({"score": scores.score, "confidence": scores.confidence, "region": region})
