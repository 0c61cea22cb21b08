"""Intervals, and the configuration that partitions the line with three of them."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ssad import ConfidenceIntervalsConfiguration, Interval
from ssad.bundle import REGIONS, Thresholds

Closed = Literal["left", "right", "both", "neither"]

CLOSED: tuple[Closed, ...] = ("left", "right", "both", "neither")
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY = st.floats(allow_nan=False)


def around(*borders: float) -> list[float]:
    """Each finite border with its neighbours, and two scores far away."""
    near = [(math.nextafter(b, -math.inf), b, math.nextafter(b, math.inf)) for b in borders]
    return [score for score in (*itertools.chain(*near), -1e300, 0.0, 1e300) if math.isfinite(score)]


def holders(configuration: ConfidenceIntervalsConfiguration, scores: list[float]) -> torch.Tensor:
    """Which interval holds which score, shape (3, n), in the order of `REGIONS`."""
    values = torch.tensor(scores, dtype=torch.float64)
    intervals = (configuration.normal, configuration.unknown, configuration.abnormal)
    return torch.stack([interval.contains_tensor_mask(values) for interval in intervals])


@pytest.mark.parametrize("closed", CLOSED)
@given(first=FINITE, second=FINITE, others=st.lists(FINITE, max_size=5))
def test_a_mask_agrees_with_pandas_for_every_kind_of_closure(
    closed: Closed, first: float, second: float, others: list[float]
) -> None:
    interval = Interval(min(first, second), max(first, second), closed=closed)
    scores = [*around(first, second), *others]
    mask = interval.contains_tensor_mask(torch.tensor(scores, dtype=torch.float64))
    assert mask.tolist() == [score in pd.Interval(interval.left, interval.right, closed=closed) for score in scores]


@pytest.mark.parametrize("border", [0.1, 0.3, 1 / 3])
def test_a_mask_of_single_precision_scores_agrees_with_pandas(border: float) -> None:
    scores = torch.tensor([border, border]).nextafter(torch.tensor([-math.inf, math.inf]))
    scores = torch.cat([scores, torch.tensor([border])])
    interval = Interval(border, 1.0, closed="neither")
    assert interval.contains_tensor_mask(scores).tolist() == [score in interval for score in scores.tolist()]


def test_a_closed_interval_contains_its_right_end_and_nothing_beyond() -> None:
    scores = torch.tensor([0.5, 1.0, np.nextafter(1.0, 2.0), 2.0], dtype=torch.float64)
    assert Interval(0.0, 1.0, closed="both").contains_tensor_mask(scores).tolist() == [True, True, False, False]
    assert Interval(0.0, 1.0, closed="right").contains_tensor_mask(scores).tolist() == [True, True, False, False]


def test_an_interval_closed_on_the_left_contains_its_left_end_and_not_its_right_one() -> None:
    scores = torch.tensor([-0.1, 0.0, 0.5, 1.0])
    assert Interval(0.0, 1.0, closed="left").contains_tensor_mask(scores).tolist() == [False, True, True, False]


def test_a_mask_has_the_shape_of_its_tensor() -> None:
    assert Interval(0, 1).contains_tensor_mask(torch.zeros(2, 3)).shape == (2, 3)


def test_an_interval_is_a_pandas_interval() -> None:
    assert isinstance(Interval(0, 1), pd.Interval)


@given(first=ANY, second=ANY, others=st.lists(FINITE, max_size=5))
def test_every_finite_score_is_in_exactly_one_interval(first: float, second: float, others: list[float]) -> None:
    configuration = ConfidenceIntervalsConfiguration.from_thresholds(min(first, second), max(first, second))
    held = holders(configuration, [*around(first, second), *others])
    assert held.sum(dim=0).tolist() == [1] * held.shape[1]


@given(border=ANY, others=st.lists(FINITE, max_size=5))
def test_equal_thresholds_leave_nothing_unknown(border: float, others: list[float]) -> None:
    configuration = ConfidenceIntervalsConfiguration.from_thresholds(border, border)
    normal, unknown, abnormal = holders(configuration, [*around(border), *others])
    assert (normal ^ abnormal).all()
    assert not unknown.any()


@given(first=ANY, second=ANY, others=st.lists(FINITE, max_size=5))
def test_thresholds_call_a_score_what_the_intervals_call_it(first: float, second: float, others: list[float]) -> None:
    configuration = ConfidenceIntervalsConfiguration.from_thresholds(min(first, second), max(first, second))
    scores = [*around(first, second), *others]
    codes = configuration.thresholds.codes(np.asarray(scores))
    assert codes.tolist() == holders(configuration, scores).int().argmax(dim=0).tolist()


@given(border=st.floats(-1e6, 1e6))
def test_thresholds_call_a_single_precision_score_what_the_intervals_call_it(border: float) -> None:
    scores = np.asarray([border], np.float32)
    for first, second in ((border, math.inf), (-math.inf, border), (border, border)):
        configuration = ConfidenceIntervalsConfiguration.from_thresholds(first, second)
        expected = holders(configuration, scores.tolist()).int().argmax(dim=0)
        assert configuration.thresholds.codes(scores).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("normal", "unknown", "abnormal"),
    [("right", "neither", "left"), ("neither", "both", "neither"), ("neither", "left", "left")],
)
@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (1.0, math.nextafter(1.0, 2.0)), (-2.0, 0.0)])
def test_thresholds_agree_whichever_interval_holds_a_border(
    normal: Closed, unknown: Closed, abnormal: Closed, low: float, high: float
) -> None:
    configuration = ConfidenceIntervalsConfiguration(
        normal=Interval(-math.inf, low, closed=normal),
        unknown=Interval(low, high, closed=unknown),
        abnormal=Interval(high, math.inf, closed=abnormal),
    )
    scores = around(low, high)
    held = holders(configuration, scores).int()
    assert held.sum(dim=0).tolist() == [1] * len(scores)
    assert configuration.thresholds.codes(np.asarray(scores)).tolist() == held.argmax(dim=0).tolist()


@pytest.mark.parametrize("which", ["normal", "unknown", "abnormal"])
def test_one_shared_border_belongs_to_the_interval_that_is_closed(which: str) -> None:
    closed: dict[str, tuple[Closed, Closed, Closed]] = {
        "normal": ("right", "neither", "neither"),
        "unknown": ("neither", "both", "neither"),
        "abnormal": ("neither", "neither", "left"),
    }
    normal, unknown, abnormal = closed[which]
    configuration = ConfidenceIntervalsConfiguration(
        normal=Interval(-math.inf, 1.0, closed=normal),
        unknown=Interval(1.0, 1.0, closed=unknown),
        abnormal=Interval(1.0, math.inf, closed=abnormal),
    )
    assert configuration.thresholds.regions(np.asarray([1.0])).tolist() == [which]


@pytest.mark.parametrize(
    ("normal", "unknown", "abnormal"),
    [
        pytest.param(Interval(-math.inf, 1), Interval(1.5, 2), Interval(2, math.inf), id="gap"),
        pytest.param(Interval(-math.inf, 1), Interval(0.5, 2), Interval(2, math.inf), id="overlap"),
        pytest.param(Interval(0, 1), Interval(1, 2), Interval(2, math.inf), id="bounded below"),
        pytest.param(Interval(-math.inf, 1), Interval(1, 2), Interval(2, 3), id="bounded above"),
        pytest.param(
            Interval(-math.inf, 1, closed="right"),
            Interval(1, 2, closed="left"),
            Interval(2, math.inf, closed="left"),
            id="border held twice",
        ),
        pytest.param(
            Interval(-math.inf, 1, closed="neither"),
            Interval(1, 2, closed="neither"),
            Interval(2, math.inf, closed="left"),
            id="border held by none",
        ),
        pytest.param(
            Interval(2, math.inf, closed="left"), Interval(1, 2), Interval(-math.inf, 1, closed="neither"), id="swapped"
        ),
    ],
)
def test_intervals_that_do_not_partition_the_line_are_refused(
    normal: Interval, unknown: Interval, abnormal: Interval
) -> None:
    with pytest.raises(ValueError, match="must adjoin and cover the real line"):
        ConfidenceIntervalsConfiguration(normal=normal, unknown=unknown, abnormal=abnormal)


@pytest.mark.parametrize(("normal", "abnormal"), [(2.0, 1.0), (math.nan, 1.0), (1.0, math.nan)])
def test_thresholds_in_the_wrong_order_or_nan_are_refused(normal: float, abnormal: float) -> None:
    with pytest.raises(ValueError, match="must be at most the abnormal one"):
        ConfidenceIntervalsConfiguration.from_thresholds(normal, abnormal)
    with pytest.raises(ValueError, match="must be at most the abnormal one"):
        Thresholds(normal, abnormal)


@given(scores=st.lists(FINITE, max_size=20), first=ANY, second=ANY)
@example(scores=[0.0], first=-sys.float_info.max, second=-sys.float_info.max)  # below it is only minus infinity
def test_region_counts_add_up_to_the_scores_and_agree_with_the_names(
    scores: list[float], first: float, second: float
) -> None:
    thresholds = Thresholds(min(first, second), max(first, second))
    names = thresholds.regions(np.asarray(scores, dtype=np.float64)).tolist()
    assert thresholds.counts(np.asarray(scores, dtype=np.float64)) == {name: names.count(name) for name in REGIONS}


def test_a_configuration_writes_its_intervals_as_strings_by_region() -> None:
    configuration = ConfidenceIntervalsConfiguration.from_thresholds(1.0, 2.0)
    assert configuration.as_dict() == {"normal": "(-inf, 1.0]", "unknown": "(1.0, 2.0)", "abnormal": "[2.0, inf)"}
