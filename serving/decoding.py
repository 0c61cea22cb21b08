"""Request bodies to columns of values. No pandas on the JSON path."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import orjson

from ssad.bundle import TableSchema
from ssad.errors import RowsError

Columns = dict[str, Sequence[Any]]

SCORE_LAYOUTS = 'expected {"records": [{column: value}]} or {"columns": [...], "rows": [[...]]}'
INVOCATION_KEYS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def parse_json(body: bytes) -> Any:
    """A JSON document.

    Raises:
        RowsError: it is not one.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RowsError(f"the body is not valid JSON ({error}); send one JSON document in UTF-8.") from error


def score_columns(body: bytes, schema: TableSchema) -> Columns:
    """Columns of a `POST /v1/score` body.

    Raises:
        RowsError: it is of neither layout, or holds no rows.
    """
    document = parse_json(body)
    if isinstance(document, dict) and set(document) == {"records"}:
        return from_records(document["records"], schema)
    if isinstance(document, dict) and set(document) == {"columns", "rows"}:
        return from_rows(document["columns"], document["rows"])
    raise RowsError(f"the body has another layout; {SCORE_LAYOUTS}.")


def invocation_columns(body: bytes, content_type: str, schema: TableSchema) -> Columns:
    """Columns of a `POST /invocations` body: MLflow's four JSON layouts, or CSV.

    Raises:
        RowsError: it is of none of them, or holds no rows.
    """
    if content_type.startswith("text/csv"):
        return _from_csv(body)
    document = parse_json(body)
    keys = [key for key in INVOCATION_KEYS if isinstance(document, dict) and key in document]
    if len(keys) != 1:
        raise RowsError(f"the body must have exactly one of the keys {', '.join(INVOCATION_KEYS)}.")
    content = document[keys[0]]
    if keys[0] == "dataframe_split":
        if not isinstance(content, dict) or "data" not in content:
            raise RowsError('dataframe_split must be {"columns": [...], "data": [[...]]}.')
        names = content.get("columns") or [column.name for column in schema.columns]
        return from_rows(names, content["data"])
    if keys[0] == "inputs" and isinstance(content, dict):
        return _from_columns(content)
    if isinstance(content, list) and content and isinstance(content[0], list):
        return from_rows([column.name for column in schema.columns], content)
    return from_records(content, schema)


def from_records(records: Any, schema: TableSchema) -> Columns:
    """Columns of a list of objects; a column that only some records lack is missing there.

    Raises:
        RowsError: it is no list of objects, or an empty one.
    """
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise RowsError("the records must be a list of objects, one a row.")
    if not records:
        raise RowsError("there are no rows; send at least one.")
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


def from_rows(names: Any, rows: Any) -> Columns:
    """Columns of a list of names and a list of rows.

    Raises:
        RowsError: names or rows are no lists, differ in length, or there are none.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RowsError("the columns must be a list of names.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RowsError(f"the columns name {', '.join(twice[:20])} more than once; send each column once.")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise RowsError("the rows must be a list of lists, one a row.")
    if not rows:
        raise RowsError("there are no rows; send at least one.")
    uneven = [str(row) for row, values in enumerate(rows) if len(values) != len(names)]
    if uneven:
        raise RowsError(f"expected {len(names)} values a row, got another number in row {', '.join(uneven[:20])}.")
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def _from_columns(columns: dict[str, Any]) -> Columns:
    if not columns or not all(isinstance(values, list) and values for values in columns.values()):
        raise RowsError("inputs must map each column to a list with a value a row.")
    return dict(columns)


def _from_csv(body: bytes) -> Columns:
    import pandas as pd  # loaded by the first request that needs it

    try:
        table = pd.read_csv(io.BytesIO(body))
    except (ValueError, UnicodeDecodeError) as error:
        raise RowsError("the body is not a CSV table with a header in UTF-8.") from error
    if not len(table):
        raise RowsError("there are no rows; send at least one.")
    return {str(name): table[name].astype(object).where(table[name].notna(), None).tolist() for name in table}
