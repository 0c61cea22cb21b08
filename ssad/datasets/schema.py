"""Which columns of a table can be learned from, and as what."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from pandas.api import types

from ssad.bundle import Column, TableSchema
from ssad.bundle.schema import Kind
from ssad.errors import DatasetError

MAX_CATEGORIES = 100
"""Categories of a column that get a feature of their own; rarer ones share one with the unknown ones."""

IDENTIFIER_DISTINCT = 50
"""Text with more distinct values than this, and in more than half of the rows, identifies rows."""

IDENTIFIER_NAME = re.compile(r"(^|[_\s])(id|uuid|guid|index|row)$", re.IGNORECASE)


def infer_schema(table: pd.DataFrame) -> TableSchema:
    """Decide what each column is, from the training rows alone.

    Dropped are columns without values, with one value, and those that identify rows: a whole-number
    column without repeats that counts up by one or is named like an identifier, and text that hardly
    repeats.

    Raises:
        DatasetError: no column is left.
    """
    columns, dropped = [], {}
    for name in table.columns:
        values = table[name]
        reason = _useless(name, values)
        kind = None if reason else _kind(values)
        if kind == "categorical" and _is_text_identifier(values):
            reason = f"identifies rows: {values.nunique()} distinct values in {len(values)} rows"
        if reason or kind is None:
            dropped[name] = reason or "holds values that are neither numbers, dates nor text"
        else:
            columns.append(_column(name, kind, values))
    if not columns:
        why = "; ".join(f"{name} {reason}" for name, reason in list(dropped.items())[:10])
        raise DatasetError(
            f"no numeric or categorical column is left to learn from ({why}); bring columns whose values differ."
        )
    return TableSchema(tuple(columns), dropped)


def _useless(name: str, values: pd.Series) -> str | None:
    """Why a column cannot help to tell rows apart; None if it might."""
    known = values.dropna()
    if types.is_float_dtype(known):
        known = known[np.isfinite(known)]
    if not len(known):
        return "has no values"
    try:
        distinct = known.nunique()
    except TypeError:  # lists or dicts cannot be compared
        return "holds values that are neither numbers, dates nor text"
    if distinct == 1 and len(known) == len(values):
        return "has one value in every row"
    if distinct == len(values) > 2 and types.is_integer_dtype(values):
        steps = values.astype("int64").diff().dropna()
        if (steps == 1).all() or IDENTIFIER_NAME.search(name):
            return "identifies rows: whole numbers without repeats"
    return None


def _kind(values: pd.Series) -> Kind | None:
    if types.is_bool_dtype(values):
        return "boolean"
    if types.is_datetime64_any_dtype(values):
        return "date"
    if types.is_complex_dtype(values) or types.is_timedelta64_dtype(values):
        return None
    if types.is_numeric_dtype(values):
        return "numeric"
    known = values.dropna().astype(object)
    if known.map(lambda value: isinstance(value, bool)).all():
        return "boolean"
    known = known.astype(str)
    numbers = pd.to_numeric(known, errors="coerce")
    if numbers.notna().all():
        return "numeric" if np.isfinite(numbers).any() else None
    if (
        known.str.match(r"\d{4}-\d{2}-\d{2}").all()
        and pd.to_datetime(known, format="ISO8601", errors="coerce", utc=True).notna().all()
    ):
        return "date"
    return "categorical"


def _is_text_identifier(values: pd.Series) -> bool:
    distinct = values.nunique()
    return distinct > IDENTIFIER_DISTINCT and distinct > len(values) / 2


def _column(name: str, kind: Kind, values: pd.Series) -> Column:
    inputs = TableSchema((Column(name, kind),)).inputs({name: values})
    if kind != "categorical":
        return Column(name, kind, float(np.nanmin(inputs.numeric)), float(np.nanmax(inputs.numeric)))
    categories, counts = np.unique(inputs.categorical[:, 0].astype(str), return_counts=True)
    # Ties keep the order of the alphabet, so that the order of the rows does not matter.
    most_frequent = np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]
    return Column(name, kind, categories=tuple(categories[most_frequent].tolist()))
