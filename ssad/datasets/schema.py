"""Which columns of a table can be learned from, and as what."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

from ssad.bundle import Column, TableSchema
from ssad.bundle.schema import MISSING_CATEGORY, GraphInputs, Kind, is_blank, unmarked
from ssad.datasets.table_rows import TableRows
from ssad.errors import DatasetError, RowsError, listed

logger = logging.getLogger(__name__)

MAX_CATEGORIES = 100
"""Categories of a column that get a feature of their own; rarer ones share one with the unknown ones."""

COUNTED_WORDS = 100_000
"""Different words of a column that are counted exactly; beyond, the rarer half is forgotten and may be counted anew,
as in lossy counting [Manku & Motwani, VLDB 2002]: what is among the most frequent stays."""

SAMPLE_ROWS = 1 << 17
"""Rows, drawn at random, that stand for all of them where quantiles and repeats are asked for: all where there are
no more. The share of rows below a quantile of the sample is then, but for one table in a thousand, off by less
than 0.006 [Dvoretzky, Kiefer & Wolfowitz 1956, with Massart's constant]."""

IDENTIFIER_DISTINCT = 50
"""Text, and whole numbers named like an identifier, with more distinct values than this, and more of them than half of
the rows, identify rows."""

LABEL_NAME = re.compile(
    r"(is_?)?(labels?|class|target|y|anomal(y|ies|ous)|outliers?|fraud(ulent)?|attack|malicious)", re.IGNORECASE
)
"""What labels are called: a column of that name is learned from like any other, but not in silence."""

IDENTIFIER_NAME = re.compile(r"(^|[_\s])(id|uuid|guid|index|row)$|(?-i:(?<=[a-z])I[dD])$", re.IGNORECASE)

MOSTLY = 0.9
"""Share of a column's words from which on they are taken for what they look like: the others are not meant."""

NUMBER = re.compile(r"[-+]?[$€£]?\s*(\d+|\d{1,3}([.,\s]\d{3})+)([.,]\d+)?(e[-+]?\d+)?\s*[%$€£]?", re.IGNORECASE)
DATE = re.compile(r"(\d{1,2}([./-])\d{1,2}\2\d{4}|\d{1,2}([/-])\d{1,2}\3\d\d|\d{4}([./-])\d{1,2}\4\d{1,2})([T\s].*)?")
"""Numbers and dates as people write them, whether they can be read or not; 16.10.11 is a version."""

MARK_SHARE = 0.005
MARK_ROWS = 5
"""Share of the rows, and number of them, from which on a far number that they share means missing, as -999 does. What
fewer have is held to a few deviations by the default's network, whose scale more would widen until it shows nothing."""

MARK_DISTANCE = 3.0
MARK_BULK = (0.05, 0.95)
"""How far such a number lies from all others, in widths of what is between these quantiles of them."""

DATE_PERIODS = (86_400.0, 604_800.0)
"""Seconds of a day and a week: a date enters by its place in both. Time itself only grows, so its value
would make every later row abnormal."""

COVERED = 6 / 7
"""Share of a period that the training rows' dates must span for it to be used, as one date a day does of a week: of
morning hours alone every afternoon would be abnormal, and of five days every weekend."""

KINDS: tuple[Kind, ...] = ("boolean", "numeric", "date", "categorical")
"""A column is of the first kind that all of its values can be read as."""


@dataclass(frozen=True)
class Survey:
    """What one pass over the training rows tells of them.

    Attributes:
        schema: the columns; their ranges are exact, and their categories but for `COUNTED_WORDS`.
        gaps: names of the numeric columns in which some row has no value.
        whole: names of the columns of integers without a gap.
        sampled: positions of up to `SAMPLE_ROWS` random rows, ascending.
        sample: those rows.
    """

    schema: TableSchema
    gaps: frozenset[str]
    whole: frozenset[str]
    sampled: npt.NDArray[np.int64]
    sample: GraphInputs


def survey_rows(rows: TableRows) -> Survey:
    """Decide what each column is, from the training rows alone, in one pass over them.

    Dropped are columns without values, with one value, dates within less than a day, and those that identify
    rows: whole numbers that count the rows of the whole table, or hardly repeat and are named like an
    identifier, and text that hardly repeats.

    Raises:
        DatasetError: no column is left.
    """
    surveys = {name: _ColumnSurvey(name) for name in rows.columns}
    sampled = _sampled_positions(len(rows))
    parts, start = [], 0
    for batch in rows.batches():
        for name, survey in surveys.items():
            survey.add(batch[name])
        first, last = np.searchsorted(sampled, [start, start + len(batch)])
        parts.append(batch.iloc[sampled[first:last] - start])
        start += len(batch)
    sample = pd.concat(parts, ignore_index=True)
    reasons = {name: survey.useless(sample[name]) for name, survey in surveys.items()}
    dropped = {name: reason for name, reason in reasons.items() if reason}
    columns = tuple(survey.column() for name, survey in surveys.items() if name not in dropped)
    if not columns:
        why = listed((f"{name} {reason}" for name, reason in dropped.items()), separator="; ")
        raise DatasetError(
            f"no numeric or categorical column is left to learn from ({why}); bring columns whose values differ."
        )
    for column in columns:
        if LABEL_NAME.fullmatch(column.name) and sample[column.name].nunique() <= MAX_CATEGORIES:
            logger.warning(
                "the column %s is learned from; if it holds labels, name it by label, or leave it out", column.name
            )
    plain = TableSchema(columns, dropped)
    inputs = plain.inputs(sample)
    schema = _marked(plain, inputs)
    inputs = inputs if schema == plain else schema.inputs(sample)
    gaps = frozenset(c.name for c in schema.numeric if surveys[c.name].numbers.missing or c.marks)
    whole = frozenset(name for name, survey in surveys.items() if survey.gapless_integers)
    return Survey(schema, gaps, whole, sampled, inputs)


def _marked(schema: TableSchema, sample: GraphInputs) -> TableSchema:
    """The schema with the numbers that mean missing; a column that has some gets the range of the sample's others."""
    values = dict(zip(schema.graph_order, sample.numeric.T, strict=False))
    columns = []
    for column in schema.columns:
        marks = missing_marks(values[column.name]) if column.kind == "numeric" else ()
        if marks:
            known = unmarked(values[column.name], marks)
            column = replace(column, minimum=float(np.nanmin(known)), maximum=float(np.nanmax(known)), marks=marks)
        columns.append(column)
    return replace(schema, columns=tuple(columns))


def periods_covered(first: float | None, last: float | None) -> list[float]:
    """The `DATE_PERIODS` that dates from the first to the last, in seconds, span enough of, see `COVERED`."""
    span = 0.0 if first is None or last is None else last - first
    return [period for period in DATE_PERIODS if span >= COVERED * period]


def missing_marks(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """The numbers that mean missing among a column's training values, shape (n,), finite or NaN.

    They are the least and the highest of them, if many rows but less than half share it, see `MARK_SHARE`, and it
    lies far from the next, see `MARK_DISTANCE`.
    """
    known, marks = values[~np.isnan(values)], []
    for mark in (known.min(), known.max()) if len(known) else ():
        others = known[known != mark]
        if max(MARK_ROWS, MARK_SHARE * len(known)) <= len(known) - len(others) < len(others):
            low, high = np.quantile(others, MARK_BULK)
            with np.errstate(over="ignore"):
                far = np.abs(others - mark).min() > MARK_DISTANCE * (high - low) > 0
            if far and not np.isnan(unmarked(others, [mark])).any():  # in single precision they are others too
                marks.append(float(mark))
    return tuple(marks)


def _sampled_positions(rows: int) -> npt.NDArray[np.int64]:
    if rows <= SAMPLE_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, SAMPLE_ROWS, replace=False))


@dataclass
class _Numbers:
    """Range of a column's numbers, and how many rows have none."""

    low: float = np.inf
    high: float = -np.inf
    missing: int = 0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        known = values[~np.isnan(values)]
        self.missing += len(values) - len(known)
        if len(known):
            self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))


class _ColumnSurvey:
    """One column, batch by batch."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kinds = KINDS
        self.words: Counter[str] = Counter()
        self.rows = 0
        self.gapless_integers = self.whole_numbers = self.counts_rows = True
        self._first_row: np.float64 | None = None
        self._numbers: defaultdict[Kind, _Numbers] = defaultdict(_Numbers)

    @property
    def numbers(self) -> _Numbers:
        """Those of the kind that the column is."""
        return self._numbers[self.kinds[0]]

    def add(self, values: pd.Series) -> None:
        """Take in the next rows, indexed by their positions in the whole table."""
        self.rows += len(values)
        self.gapless_integers = self.gapless_integers and types.is_integer_dtype(values) and not values.isna().any()
        found = _kinds(values)
        self.kinds = tuple(kind for kind in self.kinds if kind in found and self._reads(values, kind))

    def _reads(self, values: pd.Series, kind: Kind) -> bool:
        """Take in what the values are if they are of this kind; say whether they can be read so."""
        try:
            inputs = TableSchema((Column(self.name, kind),)).inputs({self.name: values})
        except RowsError:
            return False
        if kind != "categorical":
            self._numbers[kind].add(inputs.numeric[:, 0])
            if kind == "numeric":
                self._add_whole_numbers(inputs.numeric[:, 0], values.index.to_numpy())
            return True
        # NumPy's own counting would give each word the room of the longest. Sorted: ties go by the alphabet.
        self.words.update(dict(sorted(Counter(inputs.categorical[:, 0].tolist()).items())))
        if len(self.words) > COUNTED_WORDS:
            self.words = Counter(dict(self.words.most_common(COUNTED_WORDS // 2)))
        return True

    def _add_whole_numbers(self, values: npt.NDArray[np.float64], positions: npt.NDArray[np.int64]) -> None:
        known = ~np.isnan(values)
        self.whole_numbers = self.whole_numbers and bool((values[known] % 1 == 0).all())
        if self.whole_numbers and self.counts_rows and known.any():
            # Not from each to the next: rows that are held out for test leave gaps.
            first_row = values[known] - positions[known]
            self._first_row = first_row[0] if self._first_row is None else self._first_row
            self.counts_rows = bool((first_row == self._first_row).all())

    def useless(self, sample: pd.Series) -> str | None:
        """Why the column cannot help to tell rows apart; None if it might. `sample` holds random rows of it."""
        if not self.name:
            return "has no name"  # as an index that pandas wrote to CSV, in which it is refused
        if isinstance(sample.dtype, pd.PeriodDtype):
            return "holds periods: write each as text or as its first day"
        if types.is_timedelta64_dtype(sample):
            return "holds lengths of time: write each as a number, such as its seconds"
        if not self.kinds:
            return "holds values that are neither numbers, dates nor text"
        if self.kinds[0] == "categorical":
            known, one = len(self.words) > (MISSING_CATEGORY in self.words), len(self.words) == 1
        else:
            known = self.numbers.low <= self.numbers.high
            one = self.numbers.low == self.numbers.high and not self.numbers.missing
        if not known:
            return "has no values"
        if one:  # numbers that differ by less than double precision tells are one
            return "has one value in every row" + (" in double precision" if _known(sample).nunique() > 1 else "")
        is_short = self.kinds[0] == "date" and not periods_covered(self.numbers.low, self.numbers.high)
        if is_short and not self.numbers.missing:
            return "spans less than a day: another time of day would be told from these rows by that alone"
        return self._identifies(sample)

    def _identifies(self, sample: pd.Series) -> str | None:
        is_whole = self.kinds[0] == "numeric" and self.whole_numbers and self.rows - self.numbers.missing > 2
        if is_whole and self.counts_rows:
            return "identifies rows: whole numbers without repeats"
        if is_whole and IDENTIFIER_NAME.search(self.name):
            return _identifying_numbers(_known(sample))
        if self.kinds[0] == "categorical":
            words = _known(sample).astype(str).str.strip().value_counts()
            distinct = len(words)
            if (dates := _share(words, DATE)) > MOSTLY:
                return f"holds words, but {dates:.1%} of its values are dates: write each as 2024-12-31 or empty"
            if distinct > IDENTIFIER_DISTINCT and (numbers := _share(words, NUMBER)) > MOSTLY:
                return f"holds words, but {numbers:.1%} of its values are numbers: write each as 1234.5 or empty"
            return _identifying(distinct, len(sample))
        return None

    def column(self) -> Column:
        """What the column is."""
        kind = self.kinds[0]
        if kind != "categorical":
            return Column(self.name, kind, self.numbers.low, self.numbers.high)
        # Ties keep the order of the alphabet, so that the order of the rows does not matter.
        by_count = sorted(self.words, key=lambda word: (-self.words[word], word))
        return Column(self.name, kind, categories=tuple(by_count[:MAX_CATEGORIES]))


def _identifying_numbers(known: pd.Series) -> str | None:
    """Why whole numbers with an identifier's name identify rows, if they do: of few of them, as all differ."""
    distinct = known.nunique()
    if distinct == len(known):
        return "identifies rows: whole numbers without repeats"
    return _identifying(distinct, len(known))


def _identifying(distinct: int, rows: int) -> str | None:
    """Why a column with so many distinct values in so many rows identifies rows, if it does."""
    if distinct > max(IDENTIFIER_DISTINCT, rows / 2):
        return f"identifies rows: {distinct} distinct values in {rows} rows"
    return None


def _kinds(values: pd.Series) -> tuple[Kind, ...]:
    """What some of a column's values can be read as; text may fit several, an empty column fits all."""
    if types.is_bool_dtype(values):
        return ("boolean",)
    if types.is_datetime64_any_dtype(values):
        return ("date",)
    if types.is_complex_dtype(values) or types.is_timedelta64_dtype(values) or isinstance(values.dtype, pd.PeriodDtype):
        return ()
    if types.is_numeric_dtype(values):
        return ("numeric",)
    known = _known(values)
    if not len(known):
        return KINDS
    if known.map(lambda value: isinstance(value, bool | np.bool_)).all():
        return ("boolean", "categorical")
    try:
        words = known.astype(str)
    except UnicodeError:  # half of a surrogate pair, or bytes that are no text
        return ()
    if pd.to_numeric(words, errors="coerce").notna().all():
        return ("numeric", "categorical")
    return ("date", "categorical") if _are_dates(words) else ("categorical",)


def _known(values: pd.Series) -> pd.Series:
    """The values that are not missing, as objects."""
    known = values.dropna().astype(object)
    return known[[not is_blank(value) for value in known]]


def _share(words: pd.Series, form: re.Pattern[str]) -> float:
    """Share of the rows whose word has a form, from the rows of each word."""
    fitting = sum(rows for word, rows in words.items() if form.fullmatch(str(word)))
    return float(fitting / max(words.sum(), 1))


def _are_dates(words: pd.Series) -> bool:
    return bool(
        words.str.match(r"\d{4}-\d{2}-\d{2}").all()
        and pd.to_datetime(words, format="ISO8601", errors="coerce", utc=True).notna().all()
    )
