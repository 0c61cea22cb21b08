"""What MLflow is told of the rows a detector takes: the types of their columns, and a few of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType
from pandas.api.types import is_integer_dtype

from ssad.bundle import Column, TableSchema

EXAMPLE_ROWS = 5

MOMENTS = pd.Timestamp.min.timestamp(), pd.Timestamp.max.timestamp()
"""The first and last that MLflow takes for one, in seconds since 1970."""

ANY = AnyType()  # type: ignore[no-untyped-call]  # MLflow does not type it


class DescribedRows(NamedTuple):
    """Columns as a signature's input, and rows of these types as its example."""

    types: Schema
    example: pd.DataFrame


def describe_rows(schema: TableSchema, rows: pd.DataFrame, whole: Collection[str] | None = None) -> DescribedRows:
    """Types by which MLflow lets the table pass that the rows are of, and those with the fewest gaps as plain values.

    Args:
        schema: the columns that are scored.
        rows: some rows of the table, as they were read.
        whole: names of the columns that are of integers, without a gap, in all of the table; None: in these rows.
    """
    names = schema.names
    if whole is None:
        whole = [name for name in names if is_integer_dtype(rows[name])]
    types = [_type(column, rows[column.name], column.name in whole) for column in schema.columns]
    gaps = rows[names].isna().sum(axis=1).sort_values(kind="stable")
    raw = rows.loc[gaps.index[:EXAMPLE_ROWS], names].reset_index(drop=True)
    plain = schema.plain_values(schema.inputs(raw))
    example = {name: _cells(plain[name], raw[name], kind) for name, kind in zip(names, types, strict=True)}
    return DescribedRows(Schema([ColSpec(*column) for column in zip(types, names, strict=True)]), pd.DataFrame(example))


def _type(column: Column, values: pd.Series, whole: bool) -> DataType | AnyType:
    """The type of a column; any, where MLflow would let its values pass by no other.

    A type lets no other text pass than text, a moment neither with a time zone nor outside of `MOMENTS`, and an integer
    of 64 bits for no double, nor for an integer if it has no sign. A truth value that is missing it makes false.
    """
    if column.kind == "categorical" or any(isinstance(value, str) for value in values):
        return DataType.string
    if column.kind == "boolean":
        return ANY
    if column.kind == "date":
        zoned = isinstance(values.dtype, pd.DatetimeTZDtype)
        held = all(end is not None and MOMENTS[0] <= end <= MOMENTS[1] for end in (column.minimum, column.maximum))
        return DataType.datetime if held and not zoned else ANY
    if not whole:
        return DataType.double
    return ANY if values.dtype == np.uint64 else DataType.long


def _cells(plain: list[Any], raw: pd.Series, kind: DataType | AnyType) -> pd.Series:
    """Cells of the example from a column's plain values; from the raw ones for integers, which a double may round."""
    if is_integer_dtype(raw) and kind != DataType.double:
        return raw
    if kind == DataType.double:
        return pd.Series(plain, dtype="float64")
    if kind == DataType.datetime:
        return pd.Series(np.asarray(plain, dtype="datetime64[us]"))
    return pd.Series([value if value is None or isinstance(value, bool) else str(value) for value in plain])
