"""JSON bodies to graph inputs. No pandas, no pyarrow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from serving.problems import RefusalError
from serving.settings import Settings
from ssad.bundle import TableSchema
from ssad.bundle.schema import MAX_REPORTED_PROBLEMS, GraphInputs
from ssad.errors import CellProblem, RowsError, listed

SCORE_LAYOUTS = 'expected {"records": [{column: value}]} or {"columns": [...], "rows": [[...]]}'
INVOCATION_KEYS = ("dataframe_split", "dataframe_records", "instances", "inputs")

Decoder = Callable[[bytes, TableSchema, Settings], list[GraphInputs] | Iterator[GraphInputs]]
"""A body to its rows, in parts that fit in memory; it raises RowsError or RefusalError."""

NESTED = "the body is nested too deeply; send a list of rows."

MOST_EXPLAINED = 9999
"""Columns that may be asked to be explained in each row: more than tables have, in four digits."""


def parse_json(body: bytes, settings: Settings) -> Any:
    """A JSON document in which no object has a key twice.

    Raises:
        RefusalError: it is not one (400), or too large for one (413).
        RowsError: a key comes twice.
    """
    if len(body) > settings.max_json_bytes:
        raise RefusalError(
            413, f"a JSON body may have {settings.max_json_bytes} bytes; send Parquet or Arrow instead.", "body_size"
        )
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _refuse_deep(error)
        place = f"line {error.lineno}, column {error.colno}"
        raise RefusalError(
            400,
            f"the body is no JSON document in UTF-8, see {place}; send null, not NaN, and no number beyond 1.8e308.",
            "json",
        ) from error
    # Every key has a colon: where there are as many as keys, none was overwritten by another.
    if body.count(b":") != _count_keys(document):
        _refuse_twice(body)
    return document


def score_rows(body: bytes, schema: TableSchema, settings: Settings) -> list[GraphInputs]:
    """Rows of a `POST /v1/score` body in JSON."""
    document = parse_json(body, settings)
    keys = set(document) if isinstance(document, dict) else set()
    if keys == {"records"}:
        return [from_records(document["records"], schema, settings)]
    if keys == {"columns", "rows"}:
        return [from_rows(document["columns"], document["rows"], schema, settings)]
    raise RowsError(f"the body has another layout; {SCORE_LAYOUTS}.")


def invocation_rows(document: Any, schema: TableSchema, settings: Settings) -> GraphInputs:
    """Rows of a `POST /invocations` document: MLflow's four JSON layouts."""
    found = [key for key in INVOCATION_KEYS if isinstance(document, dict) and key in document]
    if len(found) != 1:
        raise RowsError(f"the body must have exactly one of the keys {', '.join(INVOCATION_KEYS)}.")
    content = document[found[0]]
    if found[0] in ("instances", "inputs") and isinstance(content, dict) and list not in map(type, content.values()):
        content = [content]  # one row, by itself
    if found[0] == "dataframe_split":
        if not isinstance(content, dict) or "data" not in content:
            raise RowsError('dataframe_split must be {"columns": [...], "data": [[...]]}.')
        given = content.get("columns")
        return from_rows(schema.names if given is None else given, content["data"], schema, settings)
    if found[0] == "inputs" and isinstance(content, dict):
        return from_columns(content, schema, settings)
    if isinstance(content, list) and content and isinstance(content[0], list):
        return from_rows(schema.names, content, schema, settings)
    read = from_records if found[0] == "instances" else from_padded_records
    return read(content, schema, settings)


def explained_by(params: Any) -> int:
    """Columns to explain in each row, as the `params` of a `POST /invocations` document say: null, or an object.

    Raises:
        RowsError: they say something else.
    """
    wanted = {} if params is None else params
    if not isinstance(wanted, dict) or not wanted.keys() <= {"explain"}:
        raise RowsError('the params must be an object with the key "explain" alone; leave the others out.')
    most = wanted.get("explain", 0)
    if type(most) is not int or not 0 <= most <= MOST_EXPLAINED:
        raise RowsError(f"explain in the params must be a whole number from 0 to {MOST_EXPLAINED}.")
    return most


def ndjson_rows(body: bytes, schema: TableSchema, settings: Settings) -> list[GraphInputs]:
    """Rows of a body with a JSON object on each line."""
    if len(body) > settings.max_json_bytes:
        raise RefusalError(
            413, f"an NDJSON body may have {settings.max_json_bytes} bytes; send fewer rows.", "body_size"
        )
    lines = [line for line in body.split(b"\n") if line.strip()]
    records = []
    for row, line in enumerate(lines):
        try:
            records.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            _refuse_deep(error)
            raise RefusalError(400, f"row {row} is no JSON object in UTF-8; send one a line.", "json") from error
        if line.count(b":") != _count_keys(records[-1]):
            _refuse_twice(line, row)
    return [from_records(records, schema, settings)]


def from_records(records: Any, schema: TableSchema, settings: Settings) -> GraphInputs:
    """Graph inputs of a list of objects, each with every column's key.

    Raises:
        RowsError: it is no list of objects, or an empty one, or one lacks a column or does not fit the schema.
        RefusalError: there are too many.
    """
    keys = _keys_of(records, settings)
    _check_complete(records, keys, schema)
    return schema.row_inputs(records, keys)


def from_padded_records(records: Any, schema: TableSchema, settings: Settings) -> GraphInputs:
    """What `from_records` does, but as MLflow has it: a column that only some records lack is missing there."""
    return schema.row_inputs(records, _keys_of(records, settings))


def _keys_of(records: Any, settings: Settings) -> dict[str, str]:
    """Every key that a record has."""
    if not isinstance(records, list) or not set(map(type, records)) <= {dict}:
        raise RowsError("the records must be a list of objects, one a row.")
    check_rows(len(records), settings)
    names = records[0] if len(records) == 1 else set().union(*records)
    return {name: name for name in names}


def _check_complete(records: list[dict[str, Any]], keys: dict[str, str], schema: TableSchema) -> None:
    """Refuse the first record that lacks a column; looked for only where one has fewer keys than there are."""
    if min(map(len, records)) == len(keys):
        return
    schema.check_none_missing(keys)
    needed = set(schema.graph_order)
    for row, record in enumerate(records):
        if not needed <= record.keys():
            lacking = [column.name for column in schema.columns if column.name not in record]
            shown = lacking[:MAX_REPORTED_PROBLEMS]
            raise RowsError(
                f"row {row} lacks {len(lacking)} of the detector's {len(schema.columns)} columns: {', '.join(shown)}; "
                "send every column in every row, with null where a value is missing.",
                [CellProblem(row, name, "a value or null") for name in shown],
            )


def from_rows(names: Any, rows: Any, schema: TableSchema, settings: Settings) -> GraphInputs:
    """Graph inputs of a list of names and a list of rows.

    Raises:
        RowsError: names or rows are no lists, differ in length, there are none, or they do not fit the schema.
        RefusalError: there are too many.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RowsError("the columns must be a list of names.")
    check_names(names, schema)
    if not isinstance(rows, list) or not set(map(type, rows)) <= {list}:
        raise RowsError("the rows must be a list of lists, one a row.")
    check_rows(len(rows), settings)
    width = len(names)
    uneven = [row for row, values in enumerate(rows) if len(values) != width]
    if uneven:
        raise RowsError(f"expected {width} values a row, got another number in row {listed(uneven)}.")
    return schema.row_inputs(rows, {name: at for at, name in enumerate(names)})


def from_columns(columns: dict[str, Any], schema: TableSchema, settings: Settings) -> GraphInputs:
    """Graph inputs of a list of values for each column.

    Raises:
        RowsError: a column is no list, there are no rows, or they do not fit the schema.
        RefusalError: there are too many.
    """
    if not columns or not all(isinstance(values, list) and values for values in columns.values()):
        raise RowsError("the columns must each be a list with a value a row.")
    check_rows(max(map(len, columns.values())), settings)
    return schema.inputs(columns, strict=True)


def check_rows(rows: int, settings: Settings) -> None:
    """Refuse no rows (422) and too many (413)."""
    if not rows:
        raise RowsError("there are no rows; send at least one.")
    if rows > settings.max_rows:
        raise RefusalError(413, f"a body may have {settings.max_rows} rows; send fewer at a time.", "rows")


def check_names(names: list[str], schema: TableSchema) -> None:
    """Refuse names that come twice; one that the model does not know may be a value, where a header was left out."""
    if len(set(names)) < len(names):
        twice = [name for name, times in Counter(names).items() if times > 1 and name in schema.graph_order]
        named = listed(twice) or "another column"
        raise RowsError(f"the columns name {named} more than once; send each column once, with its name.")


def _count_keys(document: Any) -> int:
    """Keys of a document's objects, two levels deep: as deep as rows lie."""
    if not isinstance(document, dict):
        return 0
    keys = len(document)
    for value in document.values():
        if isinstance(value, dict):
            keys += len(value)
        elif isinstance(value, list):
            keys += sum([len(item) for item in value if isinstance(item, dict)])
    return keys


def _refuse_twice(body: bytes, row: int | None = None) -> None:
    """Look at every key of a document, which takes a slower parser; refuse one that comes twice."""
    where = "" if row is None else f" in row {row}"

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            raise RowsError(f"an object{where} has a key more than once; send each column once.")

    try:
        json.loads(body, object_pairs_hook=check)
    except RecursionError as error:
        raise RefusalError(400, NESTED, "json") from error


def _refuse_deep(error: orjson.JSONDecodeError) -> None:
    """Refuse a document that is nested too deeply, if that is what was wrong with it."""
    if "limit" in error.msg:
        raise RefusalError(400, NESTED, "json") from error
