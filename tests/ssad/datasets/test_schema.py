"""What a column is, decided from the training rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssad.bundle import Column
from ssad.datasets.schema import IDENTIFIER_DISTINCT, MAX_CATEGORIES, survey_rows
from ssad.datasets.table_rows import table_rows
from ssad.errors import DatasetError

KEEP = [0.5, 1.5, 1.5, 9.0]


def column(values: Any, name: str = "x") -> Column | None:
    """What `values` are inferred to be, beside a column that is kept; None if they are dropped."""
    keep = np.resize(KEEP, len(values))
    schema = survey_rows(table_rows(pd.DataFrame({name: values, "keep": keep}))).schema
    found = [c for c in schema.columns if c.name == name]
    assert bool(found) == (name not in schema.dropped)
    return found[0] if found else None


def kind(values: Any, name: str = "x") -> str | None:
    found = column(values, name)
    return found.kind if found else None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.5, 2.5, 0.0], "numeric"),
        ([3, 1, 3, 1], "numeric"),
        ([None, 1.0, 2.0, 1.0], "numeric"),
        (["1", "2.5", "1", None], "numeric"),
        (["1", "", "2.5", " "], "numeric"),
        (["2020-01-01", "", "2020-02-01", "\t"], "date"),
        (pd.Series([True, "", False, None], dtype=object), "boolean"),
        (pd.Series([1, None, 2, 2], dtype="Int64"), "numeric"),
        (pd.Series([1, 2, 2, 1], dtype="category"), "numeric"),
        ([True, False, True, True], "boolean"),
        ([True, None, False, True], "boolean"),
        ([np.True_, None, np.False_, True], "boolean"),
        (pd.Series([True, None, False, True], dtype="boolean"), "boolean"),
        (["a", "b", "a", None], "categorical"),
        (["1", "2", "x", "1"], "categorical"),
        (pd.Series(["a", "b", "a", None], dtype="category"), "categorical"),
        (["2020-01-01", "2020-02-01", "2020-01-01", None], "date"),
        (["2020-01-01T10:00:00Z", "2020-02-01T11:00:00+01:00", None, None], "date"),
        (pd.to_datetime(pd.Series(["2020-01-01", "2021-01-01", None, None])), "date"),
        (pd.to_datetime(pd.Series(["2020-01-01", "2021-01-01", None, None]), utc=True), "date"),
        (["20200101", "20200102", "20200101", "20200101"], "numeric"),
        (["2020-01-01", "soon", "2020-01-01", "2020-01-01"], "categorical"),
    ],
    ids=str,
)
def test_a_column_is_what_its_values_are(values: Any, expected: str) -> None:
    assert kind(values) == expected


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([7.0] * 4, id="a constant"),
        pytest.param(["a"] * 4, id="a constant word"),
        pytest.param([None] * 4, id="nothing"),
        pytest.param([np.nan] * 4, id="NaN"),
        pytest.param([np.inf, -np.inf, np.nan, np.inf], id="infinities"),
        pytest.param([3, 4, 5, 6], id="counting up"),
        pytest.param([3.0, 4.0, 5.0, 6.0], id="counting up in floating point"),
        pytest.param(["03", "04", "05", "06"], id="counting up in words"),
        pytest.param([3, None, 5, 6], id="counting up with a gap"),
        pytest.param([[1], [2], [1], [3]], id="lists"),
        pytest.param([{"a": 1}, {}, {}, {}], id="dicts"),
        pytest.param([1j, 2j, 1j, 1j], id="complex numbers"),
        pytest.param(pd.to_timedelta([1, 2, 1, 1], unit="h"), id="time spans"),
        pytest.param(pd.PeriodIndex(["2024-01", "2024-02", "2024-01", None], freq="M"), id="periods"),
        pytest.param([f"user-{i}" for i in range(IDENTIFIER_DISTINCT + 10)], id="names of rows"),
    ],
)
def test_a_column_that_tells_no_rows_apart_or_names_each_is_dropped(values: Any) -> None:
    assert column(values) is None


@pytest.mark.parametrize(
    ("name", "dropped"), [("id", True), ("user_id", True), ("Row", True), ("valid", False), ("idle", False)]
)
def test_whole_numbers_without_repeats_are_dropped_if_they_are_named_like_an_identifier(
    name: str, dropped: bool
) -> None:
    assert (column([907, 13, 542, 88], name) is None) == dropped


@pytest.mark.parametrize("name", ["id", "ticketId"])
def test_an_identifier_is_one_though_rows_came_twice(name: str) -> None:
    numbers = np.random.default_rng(0).permutation(10_000)[:1000]
    assert column(np.repeat(numbers, [2] * 300 + [1] * 700), name) is None
    assert column(np.repeat(numbers, 2), name) is not None  # customers, say, each with two rows
    assert column(np.repeat(numbers, [2] * 300 + [1] * 700), "bytes") is not None


@pytest.mark.parametrize(
    "values",
    [
        ["907", "0013", "542", "88"],
        ["907", "0013", "542", "88", "", ""],
        [907.0, 13.0, 542.0, 88.0],
        [907, None, 542, 88],
        [2**60, 2**60 + 1, 7, 9],
    ],
)
def test_an_identifier_is_one_however_it_is_written(values: list[Any]) -> None:
    assert column(pd.Series(values), "account_id") is None


def test_numbers_that_are_not_whole_identify_nothing() -> None:
    assert kind([9.5, 1.25, 5.0, 8.0], "id") == "numeric"


@pytest.mark.parametrize("name", ["Class", "is_fraud", "attack", "label", "y", "Anomaly"])
def test_a_column_with_the_name_of_labels_is_not_learned_from_in_silence(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert kind([0, 1, 0, 0], name) == "numeric"
    assert f"the column {name} is learned from; if it holds labels" in caplog.text
    caplog.clear()
    assert kind(np.linspace(0, 1, MAX_CATEGORIES + 1), name) == "numeric"
    assert kind([0, 1, 0, 0], f"{name}ified") == "numeric"
    assert not caplog.text


def test_whole_numbers_that_repeat_are_kept_whatever_their_name() -> None:
    assert kind([907, 13, 13, 88], "id") == "numeric"


def test_a_constant_with_gaps_or_infinities_is_kept_for_them() -> None:
    assert kind([7.0, None, 7.0, 7.0]) == "numeric"
    assert kind([7.0, np.inf, 7.0, 7.0]) == "numeric"


@pytest.mark.parametrize("values", [["a", None, "a", "a"], [True, None, True, True], ["2020-01-01", None, None, None]])
@pytest.mark.parametrize("dtype", ["object", "category"])
def test_one_value_with_gaps_is_kept_whatever_its_type(values: list[Any], dtype: str) -> None:
    assert column(pd.Series(values, dtype=dtype)) is not None


def test_a_dropped_column_has_its_reason() -> None:
    table = pd.DataFrame({"": KEEP, "none": [None] * 4, "one": [1] * 4, "row": [0, 1, 2, 3], "x": KEEP})
    assert survey_rows(table_rows(table)).schema.dropped == {
        "": "has no name",
        "none": "has no values",
        "one": "has one value in every row",
        "row": "identifies rows: whole numbers without repeats",
    }


def test_whole_numbers_that_are_one_in_double_precision_are_left_out_for_that() -> None:
    table = pd.DataFrame({"count": [2**53, 2**53 + 1, 2**53, 2**53], "x": KEEP})
    assert survey_rows(table_rows(table)).schema.dropped == {"count": "has one value in every row in double precision"}


AMOUNTS = np.random.default_rng(0).integers(0, 1500, 99)


@pytest.mark.parametrize(
    "written",
    [
        [str(amount) for amount in AMOUNTS],
        [f"{amount / 7:.4f}".replace(".", ",") for amount in AMOUNTS],
        [f"$ {1000 * amount:,}" for amount in AMOUNTS],
        [f"{amount / 1500:.1%}" for amount in AMOUNTS],
    ],
    ids=["plain", "decimal commas", "money", "percent"],
)
@pytest.mark.parametrize("times", [1, 20])
def test_numbers_with_a_word_among_them_or_written_otherwise_are_dropped_for_that_reason(
    written: list[str], times: int
) -> None:
    values = [*written, "?"] * times
    schema = survey_rows(table_rows(pd.DataFrame({"x": values, "keep": np.resize(KEEP, len(values))}))).schema
    reason = "holds words, but 99.0% of its values are numbers: write each as 1234.5 or empty"
    assert schema.dropped == {"x": reason}


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%m/%d/%y", "%Y-%m-%d", "%Y/%m/%d %H:%M", "%d-%m-%Y 10:00 UTC"])
def test_dates_with_a_word_among_them_or_written_otherwise_are_dropped_for_that_reason(form: str) -> None:
    days = pd.date_range("2024-01-01", periods=33).strftime(form).tolist()
    values = [*days * 3, "unknown"]
    schema = survey_rows(table_rows(pd.DataFrame({"x": values, "keep": np.resize(KEEP, 100)}))).schema
    assert schema.dropped == {"x": "holds words, but 99.0% of its values are dates: write each as 2024-12-31 or empty"}


@pytest.mark.parametrize("word", ["10.0.{}.7", "16.10.{}", "v1.{}", "{}kg", "A{}", "{}-01", "2024-W{}"])
def test_words_with_digits_in_them_are_words(word: str) -> None:
    values = [word.format(at % 100) for at in range(1000)]
    schema = survey_rows(table_rows(pd.DataFrame({"x": values, "keep": np.resize(KEEP, 1000)}))).schema
    assert [column.kind for column in schema.columns] == ["categorical", "numeric"]


@pytest.mark.parametrize("value", ["\ud83d", b"\xff\x00"], ids=["half a sign", "bytes"])
def test_what_is_no_text_cannot_be_learned_from(value: Any) -> None:
    values = pd.Series([*"abab", value], dtype=object)
    schema = survey_rows(table_rows(pd.DataFrame({"x": values, "keep": np.resize(KEEP, 5)}))).schema
    assert list(schema.dropped) == ["x"]


def test_the_range_is_that_of_the_finite_values() -> None:
    found = column([3.0, np.nan, -1.5, np.inf])
    assert found is not None
    assert (found.minimum, found.maximum) == (-1.5, 3.0)


def test_the_range_of_dates_is_in_seconds_since_1970() -> None:
    found = column(["1970-01-01", "1970-01-02", "1970-01-02", "1970-01-01"])
    assert found is not None
    assert (found.minimum, found.maximum) == (0, 86_400)


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ([*range(100), *[-999.0] * 5], (-999.0,)),
        ([*range(100), *[9999.0] * 40], (9999.0,)),
        ([*range(100), *[-999.0] * 5, *[99999.0] * 5], (-999.0, 99999.0)),
        ([*np.linspace(0, 1, 100, dtype=np.float32), *[np.float32(-999.9)] * 5], (float(np.float32(-999.9)),)),
    ],
    ids=["least", "highest", "both", "single precision"],
)
def test_far_numbers_that_many_rows_share_mean_missing_and_are_in_no_range(
    values: list[float], marks: tuple[float, ...]
) -> None:
    found = column(values)
    assert found is not None
    others = [value for value in values if float(value) not in marks]
    assert (found.marks, found.minimum, found.maximum) == (marks, min(others), max(others))
    survey = survey_rows(table_rows(pd.DataFrame({"x": values})))
    assert survey.gaps == {"x"}
    assert int(np.isnan(survey.sample.numeric).sum()) == len(values) - len(others)


NO_MARKS: dict[str, list[float]] = {
    "two values": [0.0] * 90 + [1.0] * 10,
    "too few share it": [*range(100), *[-999.0] * 4],
    "too small a share": [*range(2000), *[-99999.0] * 9],
    "most rows share it": [*range(50), *[900.0] * 60],
    "not far from the others": [*range(100), *[-200.0] * 5],
    "the end of a scale": [*range(100), *[99.0] * 10],
    "each has its own": [*range(210), *(1e9 + np.arange(90) % 30)],
    "beyond single precision": [*np.linspace(-9e150, 8e150, 60), *[9e150] * 30],
    "no other in single precision": [*(1e9 + np.arange(100) / 100), *[1e9 + 10] * 5],
}


@pytest.mark.parametrize("name", NO_MARKS)
def test_other_numbers_do_not_mean_missing(name: str) -> None:
    found = column(NO_MARKS[name])
    assert found is not None
    assert found.marks == ()
    assert (found.minimum, found.maximum) == (min(NO_MARKS[name]), max(NO_MARKS[name]))


def test_categories_come_most_frequent_first_and_ties_by_the_alphabet() -> None:
    found = column(["c", "b", "a", "b", None, "c", "d", "c"])
    assert found is not None
    assert found.categories == ("c", "b", "", "a", "d")


@given(st.permutations(["c", "b", "a", "b", "", "c", "d", "c"]))
def test_categories_do_not_depend_on_the_order_of_the_rows(values: list[str]) -> None:
    assert column(values) == column(["c", "b", "a", "b", "", "c", "d", "c"])


def test_the_rarest_categories_beyond_the_cap_are_left_out() -> None:
    names = [f"{i:03}x" for i in range(MAX_CATEGORIES + 5)]
    found = column(names * 2 + names[:MAX_CATEGORIES])
    assert found is not None
    assert set(found.categories) == set(names[:MAX_CATEGORIES])


def test_dates_of_a_part_of_a_day_are_dropped_as_every_later_one_would_be_another() -> None:
    hours = pd.Series(pd.date_range("2024-01-01 08:00", periods=500, freq="min"))
    assert column(hours) is None
    assert kind(hours.dt.floor("h") + pd.to_timedelta(hours.index % 2, unit="D")) == "date"
    assert kind(hours.where(hours.index > 0)) == "date"  # whether there is one may tell something


def test_text_that_repeats_is_no_identifier_however_many_values_it_has() -> None:
    assert kind([f"{i}x" for i in range(IDENTIFIER_DISTINCT + 10)] * 3) == "categorical"


def test_a_table_of_which_nothing_is_left_is_refused_with_the_reasons() -> None:
    with pytest.raises(
        DatasetError, match=r"no numeric or categorical column is left .*\(id identifies rows.*; one has one"
    ):
        survey_rows(table_rows(pd.DataFrame({"id": range(5), "one": [1] * 5})))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(["2020-01", "2020-02", "2020-01", "2020-01"], id="months"),
        pytest.param(["2020-01-01T00:00:00.123456789", "2020-01-02", None, None], id="nanoseconds"),
        pytest.param(["2020-01-01 00", "2020-01-02 12", None, None], id="hours"),
        pytest.param(["2020-01-01T00:00:00+0100", "2020-01-02", None, None], id="short offset"),
        pytest.param(["inf", "-inf", "inf", None], id="infinite words"),
        pytest.param(["1_000", "2_000", "1_000", "1_000"], id="underscores"),
        pytest.param(["1", " ", "2", "1"], id="blanks among numbers"),
        pytest.param(pd.Series([1.5, "2", None, 3], dtype=object), id="numbers and words"),
        pytest.param(pd.Series([True, 2, None, "x"], dtype=object), id="everything"),
        pytest.param(pd.period_range("2020-01", periods=4, freq="M"), id="periods"),
        pytest.param([2**63, 1, 2**64 - 1, 1], id="unsigned"),
        pytest.param([b"a", b"b", b"a", b"b"], id="bytes"),
    ],
)
def test_whatever_a_column_is_inferred_to_be_its_own_values_can_be_read(values: Any) -> None:
    table = pd.DataFrame({"x": values, "keep": KEEP})
    schema = survey_rows(table_rows(table)).schema
    inputs = schema.inputs(table)
    assert len(inputs) == 4
    for found in schema.numeric:
        assert found.minimum is not None
        assert np.isfinite(found.minimum)
