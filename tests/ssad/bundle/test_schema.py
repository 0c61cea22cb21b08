"""Raw values of every kind become what the scoring graph takes, or an error that names them."""

from __future__ import annotations

import json
import logging
import math
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas._libs.parsers import STR_NA_VALUES  # type: ignore[import-not-found]  # pandas-stubs leaves it out

from ssad.bundle import Column, TableSchema
from ssad.bundle.schema import MAX_REPORTED_PROBLEMS, MISSING_CATEGORY, MISSING_WORDS, Kind
from ssad.errors import RowsError, rows_from


def schema_of(kind: Kind, name: str = "x") -> TableSchema:
    categories = ("a", "b") if kind == "categorical" else ()
    return TableSchema((Column(name, kind, categories=categories),))


def numbers(kind: Kind, values: Any) -> list[float]:
    found: list[float] = schema_of(kind).inputs({"x": values}).numeric[:, 0].tolist()
    return found


def words(values: Any) -> list[str]:
    found: list[str] = schema_of("categorical").inputs({"x": values}).categorical[:, 0].tolist()
    return found


def same(found: Any, expected: Any) -> bool:
    return np.array_equal(found, expected, equal_nan=True)


NAN = math.nan
SCHEMA = TableSchema(
    (
        Column("amount", "numeric", 0.0, 9.0),
        Column("kind", "categorical", categories=("a", "b")),
        Column("paid", "boolean", 0.0, 1.0),
        Column("day", "date", 0.0, 1e9),
    ),
    {"id": "identifies rows"},
)
ROWS: dict[str, list[Any]] = {
    "amount": [1, 2.5, None],
    "kind": ["a", None, "new"],
    "paid": [True, False, None],
    "day": ["1970-01-02", "1970-01-01T00:00:01Z", None],
}


def test_the_words_for_missing_values_are_those_of_pandas_and_a_blank() -> None:
    assert set(MISSING_WORDS) == STR_NA_VALUES | {" "}


def test_each_kind_of_column_lands_in_its_place() -> None:
    inputs = SCHEMA.inputs(ROWS)
    assert SCHEMA.graph_order == ("amount", "paid", "day", "kind")
    assert same(inputs.numeric.tolist(), [[1, 1, 86_400], [2.5, 0, 1], [NAN, NAN, NAN]])
    assert inputs.categorical.tolist() == [["a"], [MISSING_CATEGORY], ["new"]]
    assert inputs.numeric.dtype == np.float64
    assert len(inputs) == 3


@pytest.mark.parametrize(
    "missing",
    [None, NAN, math.inf, -math.inf, pd.NA, pd.NaT, "", "  ", np.float64("nan"), np.datetime64("NaT", "ns")],
    ids=str,
)
def test_a_missing_or_infinite_number_is_nan(missing: Any) -> None:
    assert same(numbers("numeric", [missing, 1.5]), [NAN, 1.5])
    assert same(numbers("numeric", pd.Series([missing, 1.5], dtype=object)), [NAN, 1.5])


@pytest.mark.parametrize("kind", ["boolean", "date"])
@pytest.mark.parametrize("missing", [None, NAN, pd.NA, pd.NaT, ""], ids=str)
def test_a_missing_truth_value_or_date_is_nan(kind: Kind, missing: Any) -> None:
    assert same(numbers(kind, [missing]), [NAN])
    assert same(numbers(kind, [missing, None]), [NAN, NAN])


@pytest.mark.parametrize("missing", [None, NAN, pd.NA, pd.NaT, "", " "], ids=str)
def test_a_missing_category_has_its_own_name(missing: Any) -> None:
    assert words([missing, "a"]) == [MISSING_CATEGORY, "a"]
    assert words(pd.Series(["a", missing], dtype=object)) == ["a", MISSING_CATEGORY]


def test_a_period_is_no_word_as_files_have_a_number_for_it() -> None:
    with pytest.raises(RowsError, match="row 0, column 'x'"):
        words(pd.period_range("2024-01", periods=2, freq="M"))


def test_half_of_a_surrogate_pair_is_no_word() -> None:
    assert words(["\U0001f600"]) == ["\U0001f600"]
    with pytest.raises(RowsError, match="row 1, column 'x'"):
        words(["a", "\ud83d"])


@pytest.mark.parametrize("kind", ["numeric", "boolean", "date"])
def test_a_column_without_any_value_is_all_nan(kind: Kind) -> None:
    for values in ([None, None], pd.Series([NAN, NAN]), pd.Series([None, None], dtype=object)):
        assert same(numbers(kind, values), [NAN, NAN])


@pytest.mark.parametrize(
    "values",
    [
        [1, 2],
        ["1", " 2.0 "],
        [True, 2],
        np.asarray([1, 2], dtype=np.int8),
        pd.Series([1, 2], dtype="Int64"),
        pd.Series([1, 2], dtype="Float32"),
        pd.Series(["1", "2"]),
        pd.Series([1, 2], dtype="category"),
        (1, 2),
    ],
    ids=str,
)
def test_numbers_are_read_however_they_come(values: Any) -> None:
    assert numbers("numeric", values) == [1, 2]


def test_nullable_integers_keep_their_gaps() -> None:
    assert same(numbers("numeric", pd.Series([1, None], dtype="Int64")), [1, NAN])
    assert same(numbers("boolean", pd.Series([True, None], dtype="boolean")), [1, NAN])


@pytest.mark.parametrize(
    "values",
    [[True, False], ["true", "FALSE"], ["Yes", " no "], [1, 0], ["1", "0"], [1.0, "no"], np.asarray([True, False])],
    ids=str,
)
def test_truth_values_are_read_however_they_come(values: Any) -> None:
    assert numbers("boolean", values) == [1, 0]


@pytest.mark.parametrize(
    "value",
    [
        "1970-01-02",
        "1970-01-02 00:00:00",
        "1970-01-02T00:00:00",
        "1970-01-02T00:00:00Z",
        "1970-01-02T02:00:00+02:00",
        "1970-01-01T22:00:00.000-02:00",
        " 1970-01-02 ",
        datetime(1970, 1, 2),
        datetime(1970, 1, 2, tzinfo=timezone.utc),
        datetime(1970, 1, 1, 19, tzinfo=timezone(timedelta(hours=-5))),
        date(1970, 1, 2),
        pd.Timestamp("1970-01-02"),
        pd.Timestamp("1970-01-02T01:00", tz="Europe/Paris"),
        np.datetime64("1970-01-02"),
    ],
    ids=str,
)
def test_a_date_is_seconds_since_1970_in_utc(value: Any) -> None:
    assert numbers("date", [value]) == [86_400]
    assert same(numbers("date", [value, None]), [86_400, NAN])
    assert numbers("date", pd.Series([value])) == [86_400]


def test_fractions_of_a_second_are_kept() -> None:
    assert numbers("date", ["1970-01-01T00:00:00.250"]) == [0.25]


def test_dates_before_1970_are_negative() -> None:
    assert numbers("date", [datetime(1969, 12, 31)]) == [-86_400]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_unit_of_a_datetime_column_does_not_matter(unit: str) -> None:
    assert same(numbers("date", np.asarray(["1970-01-02", "NaT"], dtype=f"datetime64[{unit}]")), [86_400, NAN])


@pytest.mark.parametrize("value", [1_577_836_800, 1.5, True, "soon", "2020-13-01", [1]], ids=str)
def test_what_is_no_date_is_refused_and_not_guessed_at(value: Any) -> None:
    with pytest.raises(RowsError, match="row 1, column 'x': expected an ISO 8601 date or null"):
        numbers("date", ["2020-01-01", value, None])


@pytest.mark.parametrize(
    "value", ["many", "1_000", {}, [1.0], 10**400, 1j, Decimal("sNaN"), datetime(2020, 1, 1)], ids=str
)
def test_what_is_no_number_is_refused(value: Any) -> None:
    column = pd.Series([1.0, value, None], dtype=object)
    with pytest.raises(RowsError, match="row 1, column 'x': expected a number or null"):
        numbers("numeric", column)


def test_a_mark_is_missing_however_it_comes() -> None:
    marked = TableSchema(
        (Column("x", "numeric", 0, 1, marks=(float(np.float32(-999.9)), 1e300)), Column("y", "numeric"))
    )
    marked = TableSchema.from_json(json.loads(json.dumps(marked.to_json())))
    rows = [[-999.9, -999.9], [0.5, 1e300], [1e300, 1.0], [None, 2.0]]
    columns: dict[str, Any] = dict(zip("xy", zip(*rows, strict=True), strict=True))
    expected = [[NAN, -999.9], [0.5, 1e300], [NAN, 1.0], [NAN, 2.0]]
    for found in (marked.row_inputs(rows, {"x": 0, "y": 1}), marked.inputs(columns)):
        assert np.array_equal(found.numeric, np.asarray(expected), equal_nan=True)
    single = np.asarray([-999.9, 0.5], np.float32)
    assert np.isnan(marked.inputs({"x": single, "y": single}).numeric).tolist() == [[True, False], [False, False]]
    assert single[0] < 0  # the caller's own


def test_text_of_a_number_is_read_in_rows_as_it_is_in_columns() -> None:
    schema = TableSchema((Column("x", "numeric"), Column("y", "numeric")))
    assert schema.row_inputs([{"x": " 1.5", "y": 2}], {"x": "x", "y": "y"}).numeric.tolist() == [[1.5, 2.0]]
    with pytest.raises(RowsError, match="row 0, column 'x': expected a number or null"):
        schema.row_inputs([{"x": "1_000", "y": 2}], {"x": "x", "y": "y"})


@pytest.mark.parametrize("value", ["maybe", {}, 7, -1, 0.5], ids=str)
def test_what_is_neither_true_nor_false_is_refused(value: Any) -> None:
    with pytest.raises(RowsError, match="row 1, column 'x': expected true, false or null"):
        numbers("boolean", pd.Series([True, value], dtype=object))


def test_every_bad_value_is_named_in_one_error_with_its_row_and_column() -> None:
    rows = ROWS | {"amount": [1, "x", "y"], "day": ["1970-01-01", "never", None]}
    with pytest.raises(RowsError) as raised:
        SCHEMA.inputs(rows)
    assert str(raised.value) == (
        "row 1, column 'amount': expected a number or null; row 2, column 'amount': expected a number or null; "
        "row 1, column 'day': expected an ISO 8601 date or null."
    )


@pytest.mark.parametrize(("bad", "more"), [(MAX_REPORTED_PROBLEMS, None), (MAX_REPORTED_PROBLEMS + 7, "and more")])
def test_a_long_list_of_bad_values_is_capped(bad: int, more: str | None) -> None:
    with pytest.raises(RowsError) as raised:
        numbers("numeric", ["x"] * bad)
    assert str(raised.value).count("row ") == MAX_REPORTED_PROBLEMS
    assert ("more" in str(raised.value)) == (more is not None)
    assert (more or "") in str(raised.value)


@pytest.mark.parametrize("bad", [1, MAX_REPORTED_PROBLEMS + 7])
def test_rows_further_down_a_table_are_named_by_their_places_and_no_others_are_made_up(bad: int) -> None:
    with pytest.raises(RowsError) as raised, rows_from(100):
        schema_of("numeric", "x; and more").inputs({"x; and more": ["x"] * bad})
    assert str(raised.value).startswith("row 100, column 'x; and more': expected a number or null")
    assert str(raised.value).endswith("; and more.") == (bad > 1)


def test_missing_columns_are_all_named_in_one_error() -> None:
    with pytest.raises(RowsError, match=r"lack 2 of the detector's 4 columns: kind, paid; send every column"):
        SCHEMA.inputs({"amount": [1], "day": [None]})


@pytest.mark.parametrize("short", ["amount", "kind"])
def test_columns_of_different_lengths_are_refused(short: str) -> None:
    with pytest.raises(RowsError, match="different lengths"):
        SCHEMA.inputs(ROWS | {short: ROWS[short][:1]})


@pytest.mark.parametrize("column", [3, 3.5, None, "12", [[1], [2], [3]]], ids=str)
@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_a_column_that_is_no_list_of_values_is_refused(kind: Kind, column: Any) -> None:
    with pytest.raises(RowsError):
        schema_of(kind).inputs({"x": column})


def test_columns_never_seen_are_ignored_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    schema = TableSchema.from_json(SCHEMA.to_json())
    with caplog.at_level(logging.WARNING, logger="ssad.bundle.schema"):
        for _ in range(3):
            schema.inputs(ROWS | {"colour": ["red"] * 3, "id": [1, 2, 3]})
        schema.inputs(ROWS | {"size": [1] * 3, "colour": ["red"] * 3})
        for _ in range(2):
            schema.inputs({**ROWS, 7: [1] * 3, "long" * 50: [1] * 3})
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        "colour",
        "size",
        f"7, {'long' * 25}",
    ]


def test_an_unseen_category_is_kept_as_it_is() -> None:
    assert words(["never seen", "a"]) == ["never seen", "a"]


def test_a_category_that_is_a_number_is_the_same_word_in_a_list_and_in_a_frame() -> None:
    values = [1, "a", 2.5, True]
    assert words(values) == words(pd.Series(values, dtype=object)) == ["1", "a", "2.5", "True"]


def test_no_rows_have_arrays_without_rows() -> None:
    inputs = SCHEMA.inputs({name: [] for name in ROWS})
    assert inputs.numeric.shape == (0, 3)
    assert inputs.categorical.shape == (0, 1)


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_a_schema_of_one_kind_has_an_empty_array_for_the_other(kind: Kind) -> None:
    inputs = schema_of(kind).inputs({"x": ["1", "2"]})
    assert {inputs.numeric.shape, inputs.categorical.shape} == {(2, 1), (2, 0)}


CELLS: dict[Kind, st.SearchStrategy[Any]] = {
    "numeric": st.none() | st.floats() | st.integers(-(10**18), 10**18) | st.sampled_from(["1", "2.5", ""]),
    "boolean": st.none() | st.booleans() | st.just(NAN) | st.sampled_from(["true", "No"]),
    "date": st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)) | st.sampled_from(["2020-01-01", ""]),
    "categorical": st.none() | st.sampled_from(["a", "b", "zzz", "", NAN]) | st.integers(0, 3),
}


@pytest.mark.parametrize("kind", CELLS)
@given(data=st.data())
def test_a_dict_of_lists_and_a_frame_give_the_same_inputs(kind: Kind, data: st.DataObject) -> None:
    values = data.draw(st.lists(CELLS[kind], min_size=1, max_size=6))
    schema = schema_of(kind)
    listed, framed = schema.inputs({"x": values}), schema.inputs(pd.DataFrame({"x": pd.Series(values, dtype=object)}))
    assert np.array_equal(listed.numeric, framed.numeric, equal_nan=True)
    assert listed.categorical.tolist() == framed.categorical.tolist()


def test_a_nan_among_words_is_missing_in_a_list_as_in_a_frame() -> None:
    assert words([NAN, "a"]) == [MISSING_CATEGORY, "a"]
    assert same(numbers("date", [NAN, "1970-01-02"]), [NAN, 86_400])


def test_rows_are_read_alone_as_they_are_together() -> None:
    together = SCHEMA.inputs(ROWS)
    for row in range(3):
        alone = SCHEMA.inputs({name: [values[row]] for name, values in ROWS.items()})
        assert np.array_equal(alone.numeric[0], together.numeric[row], equal_nan=True)
        assert alone.categorical[0].tolist() == together.categorical[row].tolist()


def test_a_schema_survives_json() -> None:
    document = json.loads(json.dumps(SCHEMA.to_json(), allow_nan=False))
    assert TableSchema.from_json(document) == SCHEMA


def test_text_that_its_file_calls_bytes_is_text() -> None:
    schema = TableSchema((Column("kind", "categorical", categories=("tcp",)),))
    assert schema.inputs({"kind": [b"tcp", "tcp"]}).categorical.tolist() == [["tcp"], ["tcp"]]
    with pytest.raises(RowsError):
        schema.inputs({"kind": [b"\xff"]})
