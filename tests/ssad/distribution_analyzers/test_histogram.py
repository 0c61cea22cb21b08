"""Knuth's bin count and Rosin's corner."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gamma

from ssad import ConfidenceIntervalsConfiguration, TriangularThresholding
from ssad.distribution_analyzers.histogram import (
    MAX_BINS,
    knuth_bins,
    knuth_log_posteriors,
    score_histogram,
    spreads,
)
from ssad.distribution_analyzers.triangular import corner_right_of_peak


def log_posterior(counts: Sequence[float]) -> float:
    """Of one histogram."""
    return float(knuth_log_posteriors(np.asarray(counts, dtype=np.float64), np.asarray([len(counts)]))[0])


def closed_form(counts: list[int]) -> float:
    """Knuth 2019, eq. 30: the posterior itself, by Gamma functions."""
    bins, rows = len(counts), sum(counts)
    product = math.prod(float(gamma(count + 0.5)) for count in counts)
    posterior: float = (
        bins**rows * float(gamma(bins / 2)) / float(gamma(0.5)) ** bins * product / float(gamma(rows + bins / 2))
    )
    return posterior


@pytest.mark.parametrize("counts", [[3], [2, 1], [0, 3], [1, 1, 1], [4, 0, 2, 1]])
def test_the_log_posterior_is_the_logarithm_of_the_closed_form(counts: list[int]) -> None:
    assert log_posterior(counts) == pytest.approx(math.log(closed_form(counts)))


def test_the_log_posterior_of_two_rows_in_two_bins_is_worked_by_hand() -> None:
    # 2^2 G(1) / G(1/2)^2 G(3/2)^2 / G(3) = 4 * (1/2)^2 / 2
    assert log_posterior([1.0, 1.0]) == pytest.approx(math.log(0.5))


def test_the_bin_count_depends_on_the_shape_and_not_on_the_number_of_rows_alone() -> None:
    generator = np.random.default_rng(0)
    uniform = generator.uniform(size=2000)
    modes = np.concatenate([generator.normal(0, 0.1, 1000), generator.normal(5, 0.1, 1000)])
    assert knuth_bins(uniform) <= 4
    assert 15 <= knuth_bins(modes) < MAX_BINS


@pytest.mark.parametrize(("shift", "scale"), [(100.0, 1.0), (0.0, 1024.0), (0.0, -1.0)])
def test_the_bin_count_does_not_change_with_the_unit_of_the_scores(shift: float, scale: float) -> None:
    scores = np.random.default_rng(0).normal(size=500)
    assert knuth_bins(shift + scale * scores) == pytest.approx(knuth_bins(scores), abs=1)


def test_the_bin_count_is_the_best_of_numpy_histograms() -> None:
    scores = np.random.default_rng(3).lognormal(size=300)
    posterior = [log_posterior(np.histogram(scores, bins)[0].tolist()) for bins in range(1, 31)]
    assert knuth_bins(scores, max_bins=30) == int(np.argmax(posterior)) + 1


def test_ties_at_the_edges_of_bins_are_counted_once() -> None:
    scores = np.asarray([0.0] * 40 + [1.0] * 20 + [2.0] * 40)
    bins = knuth_bins(scores)
    counts, edges = score_histogram(scores, "knuth")
    assert len(counts) == bins
    assert counts.sum() == len(scores)
    assert (edges[0], edges[-1]) == (0.0, 2.0)


@settings(max_examples=25)
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=60).filter(lambda scores: len(set(scores)) > 1))
def test_the_bin_count_is_in_its_range_and_does_not_depend_on_the_order(scores: list[int]) -> None:
    values = np.asarray(scores, dtype=np.float64)
    bins = knuth_bins(values, max_bins=40)
    assert 1 <= bins <= 40
    assert bins == knuth_bins(values[::-1], max_bins=40)


@pytest.mark.parametrize("rule", ["knuth", "auto", "fd", "doane", "scott", "rice", "sturges", "sqrt"])
def test_every_rule_counts_every_score_in_at_most_the_largest_bin_count(rule: str) -> None:
    scores = np.append(np.random.default_rng(0).normal(size=400), 1e12)
    counts, edges = score_histogram(scores, rule)
    assert counts.sum() == 401
    assert len(counts) <= MAX_BINS
    assert (edges[0], edges[-1]) == (scores.min(), scores.max())


@pytest.mark.parametrize("rule", ["fd", "auto", "doane", "scott"])
def test_a_tail_of_few_scores_beside_many_equal_ones_has_bins(rule: str) -> None:
    scores = np.append(np.zeros(90), np.linspace(1, 10, 10))
    assert len(score_histogram(scores, rule)[0]) > 3


@pytest.mark.parametrize(
    ("scores", "answer"),
    [
        ([], False),
        ([3.0], False),
        ([3.0, 3.0], False),
        ([1.0, np.nextafter(1.0, 2.0)], False),
        ([0.0, 1e-300], True),
        ([1.0, 1.001], True),
    ],
)
def test_rounding_is_no_spread(scores: list[float], answer: bool) -> None:
    assert spreads(np.asarray(scores)) is answer


def corner(counts: Sequence[float]) -> float:
    """Threshold in bins: the edges are 0, 1, 2, ..."""
    return corner_right_of_peak(np.asarray(counts, dtype=np.float64), np.arange(len(counts) + 1.0))


def test_the_corner_of_a_knee_is_where_the_histogram_is_farthest_below_the_line() -> None:
    # Line from 100 at bin 1 to 0.1 at bin 6; the heights below it peak at bin 2.
    assert corner([20, 100, 10, 5, 2, 1, 0.1]) == 3


def test_the_corner_is_worked_by_hand_for_a_triangle_with_one_dent() -> None:
    # On the line 12 - 2 i but for bin 4, which is two below it.
    assert corner([12, 10, 8, 6, 2, 2]) == 5


def test_the_corner_is_the_bin_whose_perpendicular_distance_is_largest() -> None:
    counts = [3.0, 50.0, 30.0, 12.0, 9.0, 4.0, 3.0, 1.0]
    top, end = np.asarray([1, 50.0]), np.asarray([7, 1.0])
    line = (end - top) / np.linalg.norm(end - top)
    distance = [abs(line[0] * (counts[i] - top[1]) - line[1] * (i - top[0])) for i in range(1, 8)]
    assert corner(counts) == 1 + int(np.argmax(distance)) + 1


def test_a_peak_at_the_left_border_has_its_corner_in_the_tail() -> None:
    assert corner([100, 5, 4, 3, 2, 1]) == 2


def test_a_peak_at_the_right_border_has_no_tail_and_the_threshold_is_its_end() -> None:
    assert corner([1, 2, 3, 100]) == 4


def test_empty_bins_after_the_last_row_are_no_tail() -> None:
    assert corner([1, 2, 100, 0, 0]) == 3
    assert corner([100, 5, 4, 3, 2, 1, 0, 0, 0]) == corner([100, 5, 4, 3, 2, 1])


def test_one_bin_has_its_end_as_threshold() -> None:
    assert corner([7]) == 1


def test_the_first_of_equal_peaks_is_the_peak() -> None:
    assert corner([50, 1, 50, 1, 1]) == corner([50, 1, 50, 1, 1][:5]) <= 2


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any))
def test_the_corner_lies_right_of_the_peak_and_within_the_histogram(counts: list[int]) -> None:
    assert int(np.argmax(counts)) + 1 <= corner([float(c) for c in counts]) <= len(counts)


def thresholds(
    analyzer: TriangularThresholding, scores: list[float], current: tuple[float, float] | None = None
) -> tuple[float, float]:
    in_force = None if current is None else ConfidenceIntervalsConfiguration.from_thresholds(*current)
    found = analyzer.analyze_distribution(torch.tensor(scores, dtype=torch.float64), in_force).thresholds
    return found.normal, found.abnormal


BULK = np.random.default_rng(0).normal(0, 1, 900).tolist()
TAIL = np.random.default_rng(1).normal(20, 1, 100).tolist()


def test_the_first_analysis_has_one_threshold_right_of_the_bulk() -> None:
    normal, abnormal = thresholds(TriangularThresholding(), BULK + TAIL)
    assert normal == abnormal
    assert 1 < normal < 18


def test_later_analyses_have_a_corner_in_each_half() -> None:
    normal, abnormal = thresholds(TriangularThresholding(), BULK + TAIL, (9.0, 11.0))
    assert 1 < normal < 10
    assert 10 < abnormal < 20


def test_the_halves_are_mirror_images() -> None:
    tail = np.random.default_rng(0).exponential(size=400)
    _, abnormal = thresholds(TriangularThresholding("sturges"), [*BULK, *(40 - tail)], (20.0, 20.0))
    corner_of_the_tail, _ = thresholds(TriangularThresholding("sturges"), tail.tolist())
    assert 40 - abnormal == pytest.approx(corner_of_the_tail)


@pytest.mark.parametrize("current", [(1e3, 1e3), (-1e3, -1e3), (0.0, 0.0)], ids=str)
def test_the_halves_meet_in_the_middle_of_the_scores_wherever_the_last_border_was(current: tuple[float, float]) -> None:
    assert thresholds(TriangularThresholding(), BULK + TAIL, current) == thresholds(
        TriangularThresholding(), BULK + TAIL, (9.0, 11.0)
    )


def test_the_border_takes_the_place_of_the_corner_of_a_half_without_spread() -> None:
    border = (min(BULK) + 50) / 2
    assert thresholds(TriangularThresholding(), [*BULK, 50.0, 50.0, 50.0], (20.0, 20.0))[1] == border
    assert thresholds(TriangularThresholding(), [0.0] * 50 + [100.0, 101.0, 130.0], (20.0, 20.0))[0] == 65.0


@given(st.lists(st.integers(0, 30).map(float), min_size=5, max_size=60).filter(lambda scores: len(set(scores)) > 1))
def test_no_score_lies_on_a_threshold_where_rounding_would_decide(scores: list[float]) -> None:
    for current in (None, (9.0, 11.0)):
        assert not set(thresholds(TriangularThresholding(), scores, current)) & set(scores)


def test_a_tail_without_a_peak_of_its_own_holds_nothing_abnormal() -> None:
    tail = np.random.default_rng(0).exponential(size=1000).tolist()
    normal, abnormal = thresholds(TriangularThresholding(), tail, (2.0, 3.0))
    assert normal < max(tail) < abnormal < max(tail) * 1.0001
    peak = [*tail, *np.random.default_rng(1).normal(max(tail), 0.1, 50)]
    assert thresholds(TriangularThresholding(), peak, (2.0, 3.0))[1] < max(tail)


SPIKE = np.random.default_rng(2).normal(-3, 1e-3, 300).tolist()


@pytest.mark.parametrize("current", [None, (9.0, 11.0)], ids=["first", "later"])
def test_a_spike_of_repeated_rows_is_not_taken_for_the_main_population(current: tuple[float, float] | None) -> None:
    normal, abnormal = thresholds(TriangularThresholding(), SPIKE + BULK + TAIL, current)
    assert 1 < normal <= abnormal < 20


@settings(max_examples=50)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60))
def test_the_first_analysis_calls_at_least_half_of_the_rows_normal(scores: list[float]) -> None:
    normal, _ = thresholds(TriangularThresholding("sturges"), scores)
    assert (np.asarray(scores) <= normal).mean() >= 0.5


def test_an_unbounded_unknown_interval_starts_again_with_one_threshold() -> None:
    assert thresholds(TriangularThresholding(), BULK + TAIL, (0.0, math.inf)) == thresholds(
        TriangularThresholding(), BULK + TAIL
    )


@pytest.mark.parametrize("current", [None, (9.0, 11.0)])
def test_given_thresholds_are_kept(current: tuple[float, float] | None) -> None:
    assert thresholds(TriangularThresholding("knuth", 5.0, 3.0), BULK + TAIL, current) == (3.0, 5.0)
    assert thresholds(TriangularThresholding(normal_threshold=30.0), BULK + TAIL, current) == (30.0, 30.0)
    assert thresholds(TriangularThresholding(abnormal_threshold=-30.0), BULK + TAIL, current) == (-30.0, -30.0)


def test_given_thresholds_are_kept_for_constant_scores() -> None:
    assert thresholds(TriangularThresholding("knuth", 5.0, 3.0), [7.0] * 20) == (3.0, 5.0)


def test_given_thresholds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="must be at most the abnormal one"):
        TriangularThresholding("knuth", abnormal_threshold=1.0, normal_threshold=2.0)


def test_an_unknown_rule_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="nope"):
        thresholds(TriangularThresholding("nope"), BULK)
