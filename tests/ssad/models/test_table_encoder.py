"""From raw columns to features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssad.datasets.schema import survey_rows
from ssad.datasets.table_rows import table_rows
from ssad.models import TableEncoder, column_matrix
from ssad.models.table_encoder import LIMIT

ROWS = 50
TRAINING = pd.DataFrame(
    {
        "full": np.linspace(10, 20, ROWS),
        "gaps": [1.0, 2.0, 3.0, 4.0, None] * (ROWS // 5),
        "flag": [True, False] * (ROWS // 2),
        "day": pd.date_range("2024-01-01", periods=ROWS, freq="5h"),
        "word": ["a", "a", "b", "a", "b"] * (ROWS // 5),
    }
)


def encoder(table: pd.DataFrame = TRAINING) -> TableEncoder:
    survey = survey_rows(table_rows(table))
    return TableEncoder(survey.schema, survey.sample, survey.gaps)


def features(**changes: Any) -> dict[str, list[float]]:
    """Features of one row, by column, for the first training row with some values changed."""
    made = encoder()
    row = TRAINING.iloc[:1].astype(object).assign(**{name: [value] for name, value in changes.items()})
    found = made.encode(made.schema.inputs(row))[0].tolist()
    order = made.schema.graph_order
    by_column: dict[str, list[float]] = {name: [] for name in order}
    for value, column in zip(found, made.feature_columns, strict=True):
        by_column[order[column]].append(value)
    return by_column


def test_numbers_are_scaled_to_the_unit_interval_of_the_training_rows() -> None:
    assert features(full=10)["full"] == [0.0]
    assert features(full=15)["full"] == [0.5]
    assert features(full=20)["full"] == [1.0]


@pytest.mark.parametrize("far", [[-1e9], [-1e9, 1e9], [-(2.0**31), 2.0**31 - 1]], ids=str)
def test_far_numbers_do_not_take_the_digits_of_most_rows(far: list[float]) -> None:
    values = np.append(far, np.linspace(0, 1, 1001))
    made = encoder(pd.DataFrame({"x": values}))
    found = made.encode(made.schema.inputs({"x": values.tolist()}))[len(far) :, 0].double().numpy()
    assert np.diff(found) == pytest.approx(1e-3 / (values.max() - values.min()), rel=1e-3)


@pytest.mark.parametrize(
    "values", [[0.0] + [1.0] * (ROWS - 1), [*np.geomspace(1, 1e9, ROWS).tolist()]], ids=["flag", "tail"]
)
def test_other_columns_are_scaled_from_their_minimum(values: list[float]) -> None:
    made = encoder(pd.DataFrame({"x": values}))
    expected = (np.asarray(values) - min(values)) / (max(values) - min(values))
    assert made.encode(made.schema.inputs({"x": values}))[:, 0].tolist() == expected.astype(np.float32).tolist()


@pytest.mark.parametrize("mark", [-999.0, 9999.0, 1e30])
def test_a_far_number_that_many_rows_share_means_missing(mark: float) -> None:
    values = [*np.linspace(10, 20, 41).tolist(), *[mark] * 5]
    made = encoder(pd.DataFrame({"x": values}))
    found = made.encode(made.schema.inputs({"x": [10.0, 20.0, mark, None]}))
    assert found.tolist() == [[0.0, 0.0], [1.0, 0.0], [0.5, 1.0], [0.5, 1.0]]


def test_a_far_number_is_held_to_the_limit() -> None:
    assert features(full=1e300)["full"] == [LIMIT]
    assert features(full=-1e300)["full"] == [-LIMIT]


def test_a_missing_number_is_the_median_with_a_feature_that_says_so() -> None:
    assert features(gaps=None)["gaps"] == pytest.approx([(2.5 - 1) / 3, 1.0])
    assert features(gaps=float("inf"))["gaps"] == features(gaps=None)["gaps"]
    assert features(gaps=1)["gaps"] == [0.0, 0.0]


def test_where_training_had_no_gaps_a_missing_number_is_the_median_alone() -> None:
    assert features(full=None)["full"] == pytest.approx([0.5])


def test_a_category_has_its_feature_and_unknown_ones_share_the_last() -> None:
    assert features(word="a")["word"] == [1.0, 0.0, 0.0]
    assert features(word="b")["word"] == [0.0, 1.0, 0.0]
    assert features(word="never seen")["word"] == [0.0, 0.0, 1.0]


def test_a_moment_is_its_place_in_the_day_and_in_the_week() -> None:
    assert features(day="2024-01-02T06:00:00")["day"] == pytest.approx(features(day="2031-01-07T06:00:00")["day"])
    assert features(day="2024-01-02T06:00:00")["day"][:2] == pytest.approx([1.0, 0.0], abs=1e-9)
    assert features(day=None)["day"] == [0.0] * 4


@pytest.mark.parametrize(
    ("days", "circles"),
    [
        (pd.date_range("2024-01-01", periods=7), 2),
        (pd.date_range("2024-01-01", periods=24, freq="h"), 1),
        (pd.date_range("2024-01-01 08:00", "2024-01-05 17:00", freq="h"), 1),
        ([pd.Timestamp("2024-01-01 08:00"), None], 1),
    ],
    ids=["a week", "a day", "weekdays", "one moment and gaps"],
)
def test_a_moment_is_placed_in_what_the_training_rows_cover(days: Any, circles: int) -> None:
    assert encoder(pd.DataFrame({"day": days})).output_dim == 2 * circles
    both = encoder(pd.DataFrame({"day": days, "week": pd.date_range("2024-01-01", periods=len(days), freq="5D")}))
    later = both.schema.inputs({"day": ["2031-03-03T06:00:00"], "week": ["2031-03-03T18:00:00"]})
    own = [both.schema.graph_order[at] for at in both.feature_columns]
    values = both.encode(later)[0]
    found = {name: values[[name == column for column in own]] for name in ("day", "week")}
    assert found["day"][:2].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    assert found["week"][:2].tolist() == pytest.approx([-1.0, 0.0], abs=1e-6)
    assert len(found["day"]) == 2 * circles


def test_features_say_which_column_they_are_of() -> None:
    made = encoder()
    assert made.encode(made.schema.inputs(TRAINING)).shape == (ROWS, made.output_dim)
    assert column_matrix([0, 1, 1], 2).tolist() == [[1, 0], [0, 1], [0, 1]]


@pytest.mark.parametrize("columns", [["full"], ["word"], ["day"], ["gaps", "word"]])
def test_a_table_of_some_kinds_alone_is_encoded(columns: list[str]) -> None:
    made = encoder(TRAINING[columns])
    found = made.encode(made.schema.inputs(TRAINING[columns]))
    assert found.shape == (ROWS, made.output_dim)
    assert torch.isfinite(found).all()


@settings(max_examples=50)
@given(
    full=st.one_of(st.none(), st.floats(), st.integers(-(10**300), 10**300)),
    gaps=st.one_of(st.none(), st.floats()),
    flag=st.one_of(st.none(), st.booleans()),
    day=st.one_of(st.none(), st.datetimes()),
    word=st.one_of(st.none(), st.text()),
)
def test_features_are_finite_whatever_the_row(full: Any, gaps: Any, flag: Any, day: Any, word: Any) -> None:
    made = encoder()
    table = {"full": [full], "gaps": [gaps], "flag": [flag], "day": [day], "word": [word]}
    assert torch.isfinite(made.encode(made.schema.inputs(table))).all()
