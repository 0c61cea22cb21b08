"""What every analyzer promises, on every kind of score distribution."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from ssad import (
    ConfidenceIntervalsConfiguration,
    ConformalThresholding,
    ConsensusThresholding,
    EVTThresholding,
    SupportsDistributionAnalysis,
    TriangularThresholding,
)
from ssad.bundle.intervals import beyond
from ssad.distribution_analyzers.consensus import LOWER_SIGMAS, four_cuts, lower_spread_threshold, otsu_threshold
from ssad.testing import check_analyzer, distributions

Make = Callable[[], SupportsDistributionAnalysis]

ANALYZERS: dict[str, Make] = {
    "triangular, knuth": TriangularThresholding,
    "triangular, fd": lambda: TriangularThresholding("fd"),
    "evt": EVTThresholding,
    "consensus": ConsensusThresholding,
    "conformal": ConformalThresholding,
}
every_analyzer = pytest.mark.parametrize("make", ANALYZERS.values(), ids=ANALYZERS.keys())

DISTRIBUTIONS = {name: scores.numpy() for name, scores in distributions().items()}
CURRENT = [None, (0.0, 2.0), (1e3, 1e3), (0.0, math.inf)]


def analyze(
    make: Make, scores: np.ndarray[tuple[int], np.dtype[np.float64]], current: tuple[float, float] | None = None
) -> ConfidenceIntervalsConfiguration:
    in_force = None if current is None else ConfidenceIntervalsConfiguration.from_thresholds(*current)
    return make().analyze_distribution(torch.from_numpy(scores), in_force)


def ends(configuration: ConfidenceIntervalsConfiguration) -> tuple[float, float]:
    return configuration.thresholds.normal, configuration.thresholds.abnormal


@every_analyzer
def test_an_analyzer_keeps_the_contract(make: Make) -> None:
    check_analyzer(make())


@every_analyzer
@settings(max_examples=15)
@given(
    scores=st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=1, max_size=60),
    current=st.sampled_from(CURRENT),
)
def test_the_normal_threshold_never_exceeds_the_abnormal_one(
    make: Make, scores: list[float], current: tuple[float, float] | None
) -> None:
    normal, abnormal = ends(analyze(make, np.asarray(scores), current))
    assert normal <= abnormal


@every_analyzer
def test_the_bulk_is_normal_and_the_far_end_of_the_tail_is_not(make: Make) -> None:
    scores = DISTRIBUTIONS["a bulk with a tail"]
    regions = analyze(make, scores).thresholds.regions(scores)
    assert (regions[scores < 1] == "normal").all()
    assert regions[np.argmax(scores)] != "normal"


@every_analyzer
@pytest.mark.parametrize("value", [0.0, -2.5, 1e6])
def test_constant_scores_are_normal_and_what_is_higher_is_unknown(make: Make, value: float) -> None:
    thresholds = analyze(make, np.full(30, value)).thresholds
    higher = float(np.nextafter(beyond(value), np.inf))  # not by rounding alone
    assert thresholds.regions(np.asarray([value, higher, 1e300])).tolist() == ["normal", "unknown", "unknown"]


@every_analyzer
@pytest.mark.parametrize("scores", [[], [math.nan], [0.0, math.nan, 1.0], [0.0, math.inf], [-math.inf, 1.0]], ids=str)
def test_no_scores_or_scores_that_are_not_finite_are_refused(make: Make, scores: list[float]) -> None:
    with pytest.raises(ValueError, match="expected at least one score and all finite"):
        analyze(make, np.asarray(scores, dtype=np.float64))


@every_analyzer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_scores_of_any_precision_are_left_as_they_were(make: Make, dtype: torch.dtype) -> None:
    scores = torch.from_numpy(DISTRIBUTIONS["ties"]).to(dtype)
    before = scores.clone()
    make().analyze_distribution(scores.requires_grad_(), None)
    assert torch.equal(scores, before)


@every_analyzer
def test_a_figure_before_any_analysis_is_an_error_that_says_what_to_call(make: Make) -> None:
    with pytest.raises(RuntimeError, match="call analyze_distribution first"):
        make().plot_analysis()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_distribution_can_be_drawn(name: str) -> None:
    analyzer = TriangularThresholding("fd")
    analyzer.analyze_distribution(torch.from_numpy(DISTRIBUTIONS[name]), None)
    analyzer.plot_analysis(plot_size=(3, 3)).canvas.draw()


@every_analyzer
def test_the_figure_has_the_asked_size_and_counts_the_rows_of_every_region_on_both_scales(make: Make) -> None:
    analyzer, scores = make(), DISTRIBUTIONS["a bulk with a tail"]
    found = analyzer.analyze_distribution(torch.from_numpy(scores), None)
    figure = analyzer.plot_analysis(style="ggplot", plot_size=(4, 5))
    assert isinstance(figure, Figure)
    assert figure.get_size_inches().tolist() == [4, 5]
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "log"]
    for axes in figure.axes:
        regions = [patch.get_data() for patch in axes.patches if isinstance(patch, StepPatch)]
        counts = [(top - bottom).sum() for top, _, bottom in regions]
        assert counts == [*found.thresholds.counts(scores).values()]


@pytest.mark.parametrize(("normal", "abnormal"), [(-100.0, 100.0), (50.0, 60.0), (-60.0, -50.0)])
def test_thresholds_beyond_every_score_can_be_drawn(normal: float, abnormal: float) -> None:
    analyzer = TriangularThresholding("fd", abnormal, normal)
    analyzer.analyze_distribution(torch.from_numpy(DISTRIBUTIONS["a bulk with a tail"]), None)
    analyzer.plot_analysis(plot_size=(3, 3)).canvas.draw()


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=30).filter(lambda scores: len(set(scores)) > 1))
def test_otsus_threshold_is_the_best_of_every_split_and_lies_on_no_score(scores: list[int]) -> None:
    def between(threshold: float) -> float:
        low, high = [s for s in scores if s <= threshold], [s for s in scores if s > threshold]
        return float(len(low) * len(high) * (np.mean(low) - np.mean(high)) ** 2)

    found = otsu_threshold(np.sort(np.asarray(scores, dtype=np.float64)))
    best = max(between(split) for split in sorted(set(scores))[:-1])
    assert between(found) == pytest.approx(best)
    assert found not in scores


def test_the_lower_spread_of_a_normal_distribution_is_its_standard_deviation() -> None:
    scores = np.random.default_rng(0).normal(10, 3, 100_000)
    assert lower_spread_threshold(scores) == pytest.approx(10 + LOWER_SIGMAS * 3, abs=0.1)


@given(st.integers(0, 1000), st.floats(0.3, 1.5))
def test_the_consensus_is_what_all_four_cuts_say_and_a_forced_decision_what_most_do(seed: int, sigma: float) -> None:
    scores = np.sort(np.random.default_rng(seed).lognormal(0, sigma, 300))
    found = analyze(ConsensusThresholding, scores)
    votes = (scores[:, None] > four_cuts(scores)).sum(axis=1)
    expected = np.select([votes == 0, votes == 4], ["normal", "abnormal"], "unknown")
    assert found.thresholds.regions(scores).tolist() == expected.tolist()
    assert found.decision is not None
    assert (scores > found.decision).tolist() == (votes >= 3).tolist()


@pytest.mark.parametrize("power", [-600, -30, 1, 530])
def test_the_four_cuts_scale_with_the_scores_whose_squares_leave_the_range(power: int) -> None:
    scores = np.sort(np.random.default_rng(0).lognormal(0, 1, 300))
    assert four_cuts(np.ldexp(scores, power)) == [math.ldexp(cut, power) for cut in four_cuts(scores)]


@pytest.mark.parametrize("share", [0.0005, 0.02, 0.05])
@pytest.mark.parametrize("far", [1e4, 1e7, 1e300])
def test_a_few_scores_by_orders_of_magnitude_above_the_rest_leave_nothing_of_the_tail_undecided(
    share: float, far: float
) -> None:
    rng = np.random.default_rng(0)
    bulk, tail = rng.lognormal(0, 0.8, 20_000), rng.uniform(2000, 3000, 1000)
    highest = far * rng.uniform(1, 1000, round(share * 20_000))
    scores = np.concatenate([bulk, tail, highest])
    assert set(analyze(ConsensusThresholding, scores).thresholds.regions(scores)[20_000:]) == {"abnormal"}


def test_a_deviation_above_the_mean_of_the_largest_numbers_is_the_largest() -> None:
    largest = np.finfo(np.float64).max
    assert max(four_cuts(np.repeat([1.0, largest], [10, 50]))) == largest


@pytest.mark.parametrize("make", [ConsensusThresholding, EVTThresholding, ConformalThresholding])
@pytest.mark.parametrize("share", [0.5, 0.6, 0.8, 0.95])
def test_rows_of_one_score_stay_in_one_region_as_a_runtime_rounds(make: Make, share: float) -> None:
    others = np.random.default_rng(0).lognormal(1, 1, round(2000 * (1 - share)))
    scores = np.concatenate([np.full(round(2000 * share), 1.0), 1 + others])
    thresholds = make().analyze_distribution(torch.from_numpy(scores), None).thresholds
    rounded = np.asarray([1 - 1e-6, 1.0, 1 + 1e-6])
    assert thresholds.regions(rounded).tolist() == ["normal"] * 3


@pytest.mark.parametrize("make", [ConsensusThresholding, EVTThresholding, ConformalThresholding])
def test_rows_that_score_nothing_stay_in_one_region_as_a_runtime_rounds(make: Make) -> None:
    scores = np.concatenate([np.zeros(1800), np.random.default_rng(0).lognormal(1, 1, 200)])
    thresholds = make().analyze_distribution(torch.from_numpy(scores), None).thresholds
    assert thresholds.regions(np.asarray([-1e-15, 0.0, 1e-15])).tolist() == ["normal"] * 3
