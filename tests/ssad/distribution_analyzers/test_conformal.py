"""The promise of the conformal threshold, by closed forms and by counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssad import ConfidenceIntervalsConfiguration, ConformalThresholding
from ssad.bundle.intervals import Floats, beyond
from ssad.distribution_analyzers.conformal import conformal_threshold, rows_to_promise


def analyzed(scores: Floats, alpha: float, in_force: tuple[float, float] | None = None) -> tuple[float, float]:
    current = ConfidenceIntervalsConfiguration.from_thresholds(*in_force) if in_force else None
    ends = ConformalThresholding(alpha).analyze_distribution(torch.from_numpy(scores), current).thresholds
    return ends.normal, ends.abnormal


@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=60),
    st.sampled_from([0.01, 0.05, 0.1, 0.29, 0.5, 0.9]),
    st.integers(-21, 21),
)
def test_a_score_is_abnormal_where_its_p_value_is_at_most_alpha(held: list[int], alpha: float, new: int) -> None:
    scores = np.sort(np.asarray(held, dtype=np.float64))
    p_value = (1 + (scores >= new).sum()) / (len(scores) + 1)
    assert (new > conformal_threshold(scores, alpha)) == (p_value <= alpha + 1e-12)


@pytest.mark.parametrize(("rows", "alpha"), [(99, 0.05), (200, 0.1), (50, 0.25)])
def test_over_many_held_back_parts_the_share_called_is_what_the_ranks_say(rows: int, alpha: float) -> None:
    generator = np.random.default_rng(0)
    called = [
        (generator.exponential(size=100) > conformal_threshold(np.sort(generator.exponential(size=rows)), alpha)).mean()
        for _ in range(2000)
    ]
    exact = math.floor(alpha * (rows + 1)) / (rows + 1)
    assert np.mean(called) == pytest.approx(exact, abs=4 * np.std(called) / math.sqrt(len(called)))
    assert exact <= alpha


def test_anomalies_held_back_make_it_call_fewer_normal_rows_and_in_the_end_nothing() -> None:
    generator = np.random.default_rng(0)
    normal, anomalies = generator.normal(0, 1, 1000), generator.normal(9, 1, 100)
    thresholds = [conformal_threshold(np.sort(np.append(normal, anomalies[:n])), 0.05) for n in (0, 20, 40, 100)]
    called = [(normal > threshold).mean() for threshold in thresholds]
    assert called == sorted(called, reverse=True)
    assert called[0] == 0.049  # 50 of 1001 ranks, of which the first is above them all
    assert called[-1] == 0
    assert (anomalies > thresholds[-1]).mean() < 0.6


def test_the_normal_threshold_in_force_stays_below_the_new_abnormal_one() -> None:
    scores = np.arange(99.0)
    assert analyzed(scores, 0.05, (50.0, 200.0)) == (50.0, beyond(94.0))
    assert analyzed(scores, 0.05, (97.0, 200.0)) == (beyond(94.0), beyond(94.0))
    assert analyzed(scores, 0.05) == (beyond(94.0), beyond(94.0))


def test_the_normal_threshold_in_force_stays_where_held_back_rows_score_alike() -> None:
    assert analyzed(np.full(99, 7.0), 0.05, (3.0, 4.0)) == (3.0, math.inf)


def test_too_few_rows_call_nothing() -> None:
    assert analyzed(np.arange(18.0), 0.05, (3.0, 4.0)) == (3.0, math.inf)
    assert analyzed(np.arange(19.0), 0.05, (3.0, 4.0))[1] < math.inf
    assert [rows_to_promise(alpha) for alpha in (0.05, 0.01, 0.3, 0.29)] == [19, 99, 3, 3]
    assert rows_to_promise(5e-324) > 1e15


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_a_share_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\)"):
        ConformalThresholding(alpha)
