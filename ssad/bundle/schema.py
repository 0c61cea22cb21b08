"""The columns a detector expects, and raw values turned into what its scoring graph takes.

NumPy alone; a table is anything that maps a column's name to a sequence of values (a dict of lists,
a pandas DataFrame).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timezone
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ssad.errors import RowsError

logger = logging.getLogger(__name__)

Kind = Literal["numeric", "boolean", "date", "categorical"]
NUMERIC_KINDS = ("numeric", "boolean", "date")

MISSING_CATEGORY = ""
"""What a missing value of a categorical column is called in its list of categories."""

MAX_REPORTED_PROBLEMS = 20
"""An answer about bad rows names at most so many; the rest are counted."""


class Table(Protocol):
    """Columns by name; a dict of lists and a DataFrame both are one."""

    def __contains__(self, name: Any, /) -> bool: ...
    def __getitem__(self, name: Any, /) -> Any: ...
    def __iter__(self) -> Any: ...


@dataclass(frozen=True)
class Column:
    """One column as training saw it.

    Attributes:
        name: the column's name.
        kind: how its values are read; dates become seconds since 1970 (UTC).
        minimum: the lowest finite training value; None for a categorical column.
        maximum: the highest finite training value; None for a categorical column.
        categories: known values of a categorical column, most frequent first.
    """

    name: str
    kind: Kind
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class GraphInputs:
    """What a scoring graph takes.

    Attributes:
        numeric: numeric, boolean and date columns in schema order, shape (n, p), float64, NaN missing.
        categorical: categorical columns in schema order, shape (n, q), strings.
    """

    numeric: npt.NDArray[np.float64]
    categorical: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.numeric)

    def __getitem__(self, rows: slice | npt.NDArray[Any]) -> GraphInputs:
        return GraphInputs(self.numeric[rows], self.categorical[rows])


@dataclass
class TableSchema:
    """The columns of a table in order, and why others were left out of it.

    Attributes:
        columns: what is scored.
        dropped: name of a column left out -> reason, for people to read.
    """

    columns: tuple[Column, ...]
    dropped: dict[str, str] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set, repr=False, compare=False)

    def of_kind(self, *kinds: str) -> tuple[Column, ...]:
        """The columns whose kind is one of `kinds`, in order."""
        return tuple(column for column in self.columns if column.kind in kinds)

    @property
    def numeric(self) -> tuple[Column, ...]:
        """Columns that enter the graph as numbers."""
        return self.of_kind(*NUMERIC_KINDS)

    @property
    def categorical(self) -> tuple[Column, ...]:
        """Columns that enter the graph as strings."""
        return self.of_kind("categorical")

    @property
    def graph_order(self) -> tuple[str, ...]:
        """Names of the columns in the order of the graph: numeric ones, then categorical ones."""
        return tuple(column.name for column in (*self.numeric, *self.categorical))

    def to_json(self) -> dict[str, Any]:
        """The schema as plain JSON."""
        return {"columns": [asdict(column) for column in self.columns], "dropped": self.dropped}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TableSchema:
        """The inverse of `to_json`."""
        columns = tuple(
            Column(**{**column, "categories": tuple(column["categories"])}) for column in document["columns"]
        )
        return cls(columns, dict(document["dropped"]))

    def inputs(self, table: Table) -> GraphInputs:
        """Read a table into the arrays the scoring graph takes.

        Args:
            table: columns by name, all of one length; those training never saw are ignored, said once.

        Returns:
            The arrays; a missing or infinite number is NaN, a missing category `MISSING_CATEGORY`.

        Raises:
            RowsError: columns are missing or values cannot be read; one error names them all.
        """
        self._check_names(table)
        problems: list[str] = []
        numeric = [_read(table, column, problems) for column in self.numeric]
        categorical = [_read(table, column, problems) for column in self.categorical]
        if problems:
            shown = "; ".join(problems[:MAX_REPORTED_PROBLEMS])
            more = len(problems) - MAX_REPORTED_PROBLEMS
            raise RowsError(f"{shown}{f'; and {more} more' if more > 0 else ''}.")
        lengths = {len(values) for values in numeric + categorical}
        if len(lengths) > 1:
            raise RowsError("the columns have different lengths; send one value a row in every column.")
        rows = lengths.pop()
        return GraphInputs(_stack(numeric, rows, np.dtype(np.float64)), _stack(categorical, rows, np.dtype(object)))

    def _check_names(self, table: Table) -> None:
        missing = [column.name for column in self.columns if column.name not in table]
        if missing:
            raise RowsError(
                f"the rows lack {len(missing)} of the detector's {len(self.columns)} columns: "
                f"{', '.join(missing[:MAX_REPORTED_PROBLEMS])}; send every column it was trained on, "
                "with null where a value is missing."
            )
        known = {column.name for column in self.columns} | set(self.dropped) | self._said
        extra = [str(name) for name in table if name not in known]
        if extra:
            self._said.update(extra)
            logger.warning("columns the detector never saw are ignored: %s", ", ".join(extra))


def _stack(columns: list[npt.NDArray[Any]], rows: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.stack(columns, axis=1) if columns else np.empty((rows, 0), dtype=dtype)


def _read(table: Table, column: Column, problems: list[str]) -> npt.NDArray[Any]:
    """One column's values as an array; what cannot be read is added to `problems`."""
    values = table[column.name]
    convert, expected = _CONVERSIONS[column.kind]
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise RowsError(f"column {column.name!r} is no list of values; send one value a row.")
    try:
        return convert(_objects(values) if column.kind == "categorical" else _flat(values))
    except (TypeError, ValueError, OverflowError):
        rows = [row for row, value in enumerate(values) if not _converts(convert, value)]
        problems.extend(f"row {row}, column {column.name!r}: expected {expected}" for row in rows)
        return np.empty(len(values), dtype=object)


def _converts(convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], value: Any) -> bool:
    try:
        convert(_flat([value]))
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _flat(values: Any) -> npt.NDArray[Any]:
    """One column as a flat array: of numbers or moments where it is one already, else of objects."""
    array = np.asarray(values)
    if array.dtype.kind not in "biufM":
        return _objects(values)  # NumPy makes strings of what stands beside one
    if array.ndim != 1:
        raise ValueError("expected one value a row")
    return array


def _objects(values: Any) -> npt.NDArray[np.object_]:
    """One column as an array of objects: each value is what it is, whatever stands beside it."""
    array = np.asarray(values, dtype=object)
    if array.ndim != 1:
        raise ValueError("expected one value a row")
    return array


def _numbers(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if values.dtype == object:
        values = np.asarray([np.nan if _is_missing(value) else float(value) for value in values.tolist()])
    elif values.dtype.kind == "M":
        raise ValueError("a moment is no number")
    numbers = values.astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


_BOOLEAN_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


def _booleans(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if values.dtype == object:
        words: Sequence[Any] = values.tolist()
        values = np.asarray(
            [_BOOLEAN_WORDS.get(w.strip().lower(), w) if isinstance(w, str) else w for w in words],
            dtype=object,
        )
    numbers = _numbers(values)
    if not np.isin(numbers[~np.isnan(numbers)], (0.0, 1.0)).all():
        raise ValueError("neither true nor false")
    return numbers


def _seconds(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if values.dtype.kind != "M":
        values = np.asarray([_moment(value) for value in values.tolist()], dtype="datetime64[us]")
    microseconds = values.astype("datetime64[us]").astype(np.int64).astype(np.float64)
    return np.where(np.isnat(values), np.nan, microseconds / 1e6)


def _moment(value: Any) -> np.datetime64:
    """A point in time from a datetime, an ISO 8601 string or nothing."""
    if _is_missing(value):
        return np.datetime64("NaT")
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(timezone.utc).replace(tzinfo=None)
    if not isinstance(value, date | np.datetime64):
        raise TypeError("no moment")
    moment: np.datetime64 = np.datetime64(value).astype("datetime64[us]")
    return moment


def _strings(values: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
    strings = np.empty(len(values), dtype=object)
    strings[:] = [MISSING_CATEGORY if _is_missing(value) else _word(value) for value in values.tolist()]
    return strings


def _word(value: Any) -> str:
    """A category as text; a whole number is the same one whether its column was of integers or not."""
    if isinstance(value, dict | list | tuple | set | np.ndarray):
        raise TypeError("no single value")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_missing(value: Any) -> bool:
    """None, NaN, NaT, pandas' NA or a blank string."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


_CONVERSIONS: dict[Kind, tuple[Callable[[npt.NDArray[Any]], npt.NDArray[Any]], str]] = {
    "numeric": (_numbers, "a number or null"),
    "boolean": (_booleans, "true, false or null"),
    "date": (_seconds, "an ISO 8601 date or null"),
    "categorical": (_strings, "a string or null"),
}
