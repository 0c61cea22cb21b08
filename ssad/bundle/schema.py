"""The columns a detector expects, and raw values turned into what its scoring graph takes.

NumPy alone; a table is anything that maps a column's name to a sequence of values (a dict of lists,
a pandas DataFrame).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timezone
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ssad.errors import CellProblem, RowsError, listed

logger = logging.getLogger(__name__)

Kind = Literal["numeric", "boolean", "date", "categorical"]
NUMERIC_KINDS = ("numeric", "boolean", "date")

SHOWN_REASONS = 8
"""Reasons for which columns were left out that one sentence has room for."""

MISSING_CATEGORY = ""
"""What a missing value of a categorical column is called in its list of categories."""

MISSING_WORDS = (
    "",
    " ",
    "#N/A",
    "#N/A N/A",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "-NaN",
    "-nan",
    "1.#IND",
    "1.#QNAN",
    "<NA>",
    "N/A",
    "NA",
    "NULL",
    "NaN",
    "None",
    "n/a",
    "nan",
    "null",
)
"""Words of a text file that mean a missing value: those of pandas, by which training tables are read, and a blank,
which is one in every column."""

MAX_REPORTED_PROBLEMS = 20
"""An answer about bad rows names at most so many values."""

SCANNED_ROWS = 1000
"""Rows of a column that are tried together when one value of it cannot be read, to find that one soon."""

MAX_SAID = 1000
"""Names of unknown columns that are remembered as said; clients may send ever new ones."""


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
        marks: numbers that mean missing, as -999 does.
    """

    name: str
    kind: Kind
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()
    marks: tuple[float, ...] = ()


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

    @classmethod
    def joined(cls, parts: Sequence[GraphInputs]) -> GraphInputs:
        """The rows of all parts, at least one, below each other."""
        if len(parts) == 1:
            return parts[0]
        numeric = np.concatenate([part.numeric for part in parts])
        return cls(numeric, np.concatenate([part.categorical for part in parts]))


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

    @property
    def names(self) -> list[str]:
        """Names of the columns, in order."""
        return [column.name for column in self.columns]

    def of_kind(self, *kinds: str) -> tuple[Column, ...]:
        """The columns whose kind is one of `kinds`, in order."""
        return tuple(column for column in self.columns if column.kind in kinds)

    @cached_property
    def numeric(self) -> tuple[Column, ...]:
        """Columns that enter the graph as numbers."""
        return self.of_kind(*NUMERIC_KINDS)

    @cached_property
    def categorical(self) -> tuple[Column, ...]:
        """Columns that enter the graph as strings."""
        return self.of_kind("categorical")

    @property
    def words(self) -> list[str]:
        """Names of the categorical columns: in a file of text they are read as they are written."""
        return [column.name for column in self.categorical]

    @cached_property
    def graph_order(self) -> tuple[str, ...]:
        """Names of the columns in the order of the graph: numeric ones, then categorical ones."""
        return tuple(column.name for column in (*self.numeric, *self.categorical))

    def not_in(self, other: TableSchema) -> list[Column]:
        """Columns that another schema does not have, or has of another kind: rows for that one do not fit this one."""
        known = {column.name: column.kind for column in other.columns}
        return [column for column in self.columns if known.get(column.name) != column.kind]

    @property
    def left_out(self) -> str:
        """Columns that were left out, those with the same reason together, so that none hides the reasons of others."""
        names: dict[str, list[str]] = {}
        for name, reason in self.dropped.items():
            names.setdefault(reason, []).append(name)
        together = (f"{listed(columns)} ({reason})" for reason, columns in names.items())
        return listed(together, SHOWN_REASONS, "; ")

    def to_json(self) -> dict[str, Any]:
        """The schema as plain JSON."""
        return {"columns": [asdict(column) for column in self.columns], "dropped": self.dropped}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TableSchema:
        """The inverse of `to_json`."""
        lists = ("categories", "marks")
        columns = tuple(Column(**{**column, **{n: tuple(column[n]) for n in lists}}) for column in document["columns"])
        return cls(columns, dict(document["dropped"]))

    def inputs(self, table: Table, strict: bool = False) -> GraphInputs:
        """Read a table into the arrays the scoring graph takes.

        Args:
            table: columns by name, all of one length; those training never saw are ignored, said once.
            strict: whether infinity, and the word nan, are refused; else they are missing values.

        Returns:
            The arrays; a missing or infinite number and a mark are NaN, a missing category `MISSING_CATEGORY`.

        Raises:
            RowsError: columns are missing or values cannot be read; one error names them all.
        """
        self._check_names(table)
        return self._read_columns(table, {}, strict)

    def row_inputs(self, rows: Sequence[Any], keys: dict[str, Any]) -> GraphInputs:
        """Read rows into the arrays the scoring graph takes: what strict `inputs` does, sooner for few rows.

        Args:
            rows: dicts or lists, at least one.
            keys: name of each column of the rows -> its key or index there; a dict may lack some.

        Raises:
            RowsError: as for `inputs`.
        """
        self._check_names(keys)
        names, truths, marked = self._plain
        read = _plain_numbers(rows, [keys[name] for name in names], truths)
        if read is not None:
            for at, marks in marked:
                read[:, at] = unmarked(read[:, at], marks)
        if read is not None and len(names) == len(self.columns):
            return GraphInputs(read, np.empty((len(rows), 0), dtype=object))
        done = {} if read is None else dict(zip(names, read.T, strict=True))
        rest = [column.name for column in self.columns if column.name not in done]
        return self._read_columns({name: _column_of(rows, keys[name]) for name in rest}, done, strict=True)

    def plain_values(self, inputs: GraphInputs) -> dict[str, list[Any]]:
        """Graph inputs as columns of plain JSON values, which read back as the same inputs."""
        columns: dict[str, list[Any]] = {}
        for column, values in zip(self.numeric, inputs.numeric.T, strict=True):
            if column.kind == "date":
                moments = (values * 1e6).round().astype("datetime64[us]") if len(values) else values
                columns[column.name] = [None if np.isnat(m) else str(m) for m in moments]
            else:
                plain = bool if column.kind == "boolean" else float
                columns[column.name] = [None if np.isnan(value) else plain(value) for value in values.tolist()]
        for column, words in zip(self.categorical, inputs.categorical.T, strict=True):
            columns[column.name] = [word or None for word in words.tolist()]
        return columns

    def _read_columns(self, table: Table, done: dict[str, npt.NDArray[Any]], strict: bool) -> GraphInputs:
        """Read the columns that are not `done`, and put all of them together."""
        problems: list[CellProblem] = []
        numeric, categorical = (
            [done[c.name] if c.name in done else _read(table[c.name], c, strict, problems) for c in columns]
            for columns in (self.numeric, self.categorical)
        )
        if problems:
            shown = problems[:MAX_REPORTED_PROBLEMS]
            raise RowsError.of_cells(shown, more=len(problems) > len(shown))
        lengths = {len(values) for values in numeric + categorical}
        if len(lengths) > 1:
            raise RowsError("the columns have different lengths; send one value a row in every column.")
        rows = lengths.pop()
        return GraphInputs(_stack(numeric, rows, np.dtype(np.float64)), _stack(categorical, rows, np.dtype(object)))

    @cached_property
    def _plain(self) -> tuple[list[str], list[int], list[tuple[int, tuple[float, ...]]]]:
        """Names of the columns of numbers and truth values, which of them are the latter, and which have marks."""
        plain = [column for column in self.numeric if column.kind != "date"]
        truths = [at for at, column in enumerate(plain) if column.kind == "boolean"]
        return [column.name for column in plain], truths, [(at, c.marks) for at, c in enumerate(plain) if c.marks]

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.graph_order)

    def _check_names(self, table: Table | dict[str, Any]) -> None:
        if self._names == set(table):
            return
        self.check_none_missing(table)
        known = self._names | set(self.dropped)
        extra = sorted({str(name)[:100] for name in table if name not in known} - self._said)
        if extra and len(self._said) + len(extra) <= MAX_SAID:
            self._said.update(extra)
            logger.warning("columns the detector never saw are ignored: %s", ", ".join(extra))

    def check_none_missing(self, names: Container[str]) -> None:
        """Compare the names of a table's columns with those that are scored.

        Raises:
            RowsError: some are missing; names them.
        """
        missing = [name for name in self.names if name not in names]
        if missing:
            raise RowsError(
                f"the rows lack {len(missing)} of the detector's {len(self.columns)} columns: "
                f"{', '.join(missing[:MAX_REPORTED_PROBLEMS])}; send every column it was trained on, "
                "with null where a value is missing."
            )


def _stack(columns: list[npt.NDArray[Any]], rows: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    # One below the other, then turned: a third of what it takes to write each across all rows.
    return np.ascontiguousarray(np.stack(columns).T) if columns else np.empty((rows, 0), dtype=dtype)


def _plain_numbers(rows: Sequence[Any], keys: list[Any], truths: list[int]) -> npt.NDArray[np.float64] | None:
    """Numbers and truth values of rows that hold nothing else, shape (n, keys); None where they do.

    Every row at once: reading each column alone costs more than scoring a row.
    """
    if not keys:
        return None
    getter = itemgetter(*keys)
    try:
        picked = [getter(row) for row in rows] if len(keys) > 1 else [(getter(row),) for row in rows]
        numbers = np.array(picked, dtype=np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if numbers.ndim != 2 or str in map(type, chain.from_iterable(picked)):
        return None  # a list in a cell, or a number as text, which Python reads in more ways than one writes it
    finite = np.isfinite(numbers)
    if not finite.all() and numbers.size - np.count_nonzero(finite) != sum(row.count(None) for row in picked):
        return None  # a word for nan or infinity
    return numbers if not truths or _are_truths(numbers[:, truths]) else None


def _column_of(rows: Sequence[Any], key: Any) -> list[Any]:
    return [row.get(key) if isinstance(row, dict) else row[key] for row in rows]


def _read(values: Any, column: Column, strict: bool, problems: list[CellProblem]) -> npt.NDArray[Any]:
    """One column's values as an array; what cannot be read is added to `problems`."""
    convert, expected = _CONVERSIONS[column.kind]
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise RowsError(f"column {column.name!r} is no list of values; send one value a row.")
    try:
        array = _objects(values) if column.kind == "categorical" else _flat(values)
        read = convert(array)
        wrong = _not_finite(array, read) if strict and column.kind == "numeric" else []
    except (TypeError, ValueError, ArithmeticError):
        read, wrong = np.empty(len(values), dtype=object), _unreadable(values, convert)
    if column.marks and not wrong:
        read = unmarked(read, column.marks)
    room = max(0, MAX_REPORTED_PROBLEMS + 1 - len(problems))
    problems.extend(CellProblem(row, column.name, expected) for row in wrong[:room])
    return read


def unmarked(numbers: npt.NDArray[np.float64], marks: Sequence[float]) -> npt.NDArray[np.float64]:
    """The numbers, shape (n,), NaN for each that is one of the marks, in whichever precision it was kept."""
    with np.errstate(over="ignore"):
        single, wanted = numbers.astype(np.float32), np.asarray(marks).astype(np.float32)
    marked = np.isin(single, wanted[np.isfinite(wanted)])
    if not np.isfinite(wanted).all():  # single precision has no such number
        marked |= np.isin(numbers, marks)
    return np.where(marked, np.nan, numbers)


def _not_finite(array: npt.NDArray[Any], read: npt.NDArray[np.float64]) -> list[int]:
    """Rows of numbers that were infinite, or a word for nan; those that were missing are not among them."""
    if array.dtype != object:
        return np.flatnonzero(np.isinf(array)).tolist() if array.dtype.kind == "f" else []
    return [row for row in np.flatnonzero(np.isnan(read)).tolist() if not _is_missing(array[row])]


def _unreadable(values: Sequence[Any], convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> list[int]:
    """The first rows that cannot be converted, at most one more than are reported."""
    wrong: list[int] = []
    listed = list(values)
    for start in range(0, len(listed), SCANNED_ROWS):
        block = listed[start : start + SCANNED_ROWS]
        if not _convert(convert, block):
            wrong += [start + at for at, value in enumerate(block) if not _convert(convert, [value])]
        if len(wrong) > MAX_REPORTED_PROBLEMS:
            break
    return wrong


def _convert(convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], values: list[Any]) -> bool:
    """Whether all of the values can be converted."""
    try:
        convert(_flat(values))
    except (TypeError, ValueError, ArithmeticError):
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
        values = np.asarray([np.nan if _is_missing(value) else _number(value) for value in values.tolist()])
    elif values.dtype.kind == "M":
        raise ValueError("a moment is no number")
    numbers = values.astype(np.float64, copy=False)
    finite = np.isfinite(numbers)
    return numbers if finite.all() else np.where(finite, numbers, np.nan)


def _number(value: Any) -> float:
    if isinstance(value, str) and "_" in value:
        raise ValueError("to Python, 1_000 is a thousand")
    return float(value)


_BOOLEAN_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


def _booleans(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if values.dtype == object:
        words: Sequence[Any] = values.tolist()
        values = np.asarray(
            [_BOOLEAN_WORDS.get(w.strip().lower(), w) if isinstance(w, str) else w for w in words],
            dtype=object,
        )
    numbers = _numbers(values)
    if not _are_truths(numbers):
        raise ValueError("neither true nor false")
    return numbers


def _are_truths(numbers: npt.NDArray[np.float64]) -> bool:
    return bool(((numbers == 0) | (numbers == 1) | np.isnan(numbers)).all())


def _seconds(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if values.dtype.kind != "M":
        values = np.asarray([_moment(value) for value in values.tolist()], dtype="datetime64[us]")
    microseconds = values.astype("datetime64[us]").astype(np.int64).astype(np.float64)
    return np.where(np.isnat(values), np.nan, microseconds / 1e6)


def _moment(value: Any) -> np.datetime64:
    """A point in time from a datetime, an ISO 8601 string or nothing."""
    if _is_missing(value):
        return np.datetime64("NaT", "us")
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
    if isinstance(value, dict | list | tuple | set | np.ndarray) or type(value).__name__ == "Period":
        raise TypeError("no single value, or one that files have as a number")
    if isinstance(value, bytes):  # text of a Parquet file that does not say so
        return value.decode()
    word = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if not word.isascii():
        word.encode()  # half of a surrogate pair is no text, and no bundle can hold it
    return word


def is_blank(value: Any) -> bool:
    """Whether a value is text of nothing but blanks, which is missing in every column."""
    return isinstance(value, str | bytes) and not value.strip()


def _is_missing(value: Any) -> bool:
    """None, NaN, NaT, pandas' NA or blank text."""
    if isinstance(value, str | bytes):
        return is_blank(value)
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


_CONVERSIONS: dict[Kind, tuple[Callable[[npt.NDArray[Any]], npt.NDArray[Any]], str]] = {
    "numeric": (_numbers, "a number or null"),
    "boolean": (_booleans, "true, false or null"),
    "date": (_seconds, "an ISO 8601 date or null"),
    "categorical": (_strings, "a string or null"),
}
