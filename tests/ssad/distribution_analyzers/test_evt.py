"""Peaks over a threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import FitError, genpareto

from ssad import EVTThresholding
from ssad.bundle.intervals import beyond
from ssad.distribution_analyzers.evt import MIN_EXCESSES, fit_pareto, pareto_quantile


def thresholds(
    scores: np.ndarray[tuple[int], np.dtype[np.float64]], alpha: float = 1.5, q: float = 0.001
) -> list[float]:
    found = EVTThresholding(alpha, q).analyze_distribution(torch.from_numpy(scores), None).thresholds
    return [found.normal, found.abnormal]


def test_the_quantile_of_a_heavy_tail_is_its_closed_form() -> None:
    assert pareto_quantile(0.5, 2.0, 0.01) == pytest.approx(2 / 0.5 * (10 - 1))


def test_the_quantile_of_an_exponential_tail_is_its_closed_form() -> None:
    assert pareto_quantile(0.0, 2.0, 0.01) == pytest.approx(2 * math.log(100))


def test_the_quantile_of_a_bounded_tail_is_its_closed_form_and_stays_below_the_bound() -> None:
    assert pareto_quantile(-0.5, 2.0, 0.01) == pytest.approx(4 * (1 - 0.1))
    assert pareto_quantile(-0.5, 2.0, 1e-300) <= 4


# Near 0 SciPy's own survival function loses its digits; below -1 the quantile lies within rounding of the
# bound, where that function is 0.
@given(
    shape=st.floats(-1, 3).filter(lambda shape: abs(shape) > 1e-3),
    scale=st.floats(0.01, 100),
    exceedance=st.floats(1e-6, 1),
)
def test_the_quantile_is_exceeded_with_its_probability(shape: float, scale: float, exceedance: float) -> None:
    found = pareto_quantile(shape, scale, exceedance)
    assert genpareto.sf(found, shape, scale=scale) == pytest.approx(exceedance, rel=1e-3, abs=1e-9)


@given(scale=st.floats(0.01, 100), exceedance=st.floats(1e-6, 2), sign=st.sampled_from([-1, 1]))
def test_the_quantile_is_continuous_where_the_shape_passes_zero(scale: float, exceedance: float, sign: int) -> None:
    near = pareto_quantile(sign * 2e-6, scale, exceedance)
    assert near == pytest.approx(pareto_quantile(0.0, scale, exceedance), rel=1e-3)


def test_an_exceedance_above_one_lies_below_u() -> None:
    assert [pareto_quantile(shape, 1.0, 2.0) < 0 for shape in (-0.5, 0.0, 0.5)] == [True] * 3


@pytest.mark.parametrize("shape", [-0.4, 0.0, 0.3])
@pytest.mark.parametrize("scale", [1e-4, 2.0, 1e6])
def test_the_fit_recovers_the_parameters_of_a_sample(shape: float, scale: float) -> None:
    sample = genpareto.rvs(shape, scale=scale, size=5000, random_state=0)
    found_shape, found_scale = fit_pareto(sample)
    assert found_shape == pytest.approx(shape, abs=0.06)
    assert found_scale == pytest.approx(scale, rel=0.06)


def test_a_likelihood_without_a_maximum_leaves_it_to_the_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise FitError("no maximum")

    monkeypatch.setattr(genpareto, "fit", fails)
    excesses = genpareto.rvs(0.2, scale=3, size=200_000, random_state=0)
    assert fit_pareto(excesses) == pytest.approx((0.2, 3), rel=0.1)


def test_the_thresholds_are_those_of_an_exponential_tail() -> None:
    scores = np.random.default_rng(0).exponential(size=50_000)
    u = math.log(4) + 1.5 * math.log(3)
    normal, abnormal = thresholds(scores)
    assert normal == pytest.approx(u, rel=0.03)
    assert abnormal == pytest.approx(math.log(1000), rel=0.05)


def test_a_share_q_of_the_scores_lies_beyond_t_q() -> None:
    scores = np.random.default_rng(1).standard_t(4, size=50_000)
    assert (scores >= thresholds(scores, q=0.002)[1]).mean() == pytest.approx(0.002, abs=0.0004)


def test_u_is_the_third_quartile_plus_alpha_interquartile_ranges() -> None:
    scores = np.arange(101.0)
    assert thresholds(scores, alpha=0.205)[0] == pytest.approx(75 + 0.205 * 50)
    assert thresholds(scores, alpha=0.2)[0] == beyond(75 + 0.2 * 50)  # which is a score


def test_a_bounded_tail_has_a_finite_threshold_below_its_bound() -> None:
    scores = np.random.default_rng(2).uniform(size=5000)
    normal, abnormal = thresholds(scores, alpha=0.1)
    assert normal < abnormal < 1.01


@pytest.mark.parametrize("excesses", [0, 1, MIN_EXCESSES - 1])
def test_fewer_excesses_than_a_fit_needs_make_nothing_seen_abnormal(excesses: int) -> None:
    scores = np.concatenate([np.linspace(0, 1, 200), np.linspace(10, 20, excesses)])
    normal, abnormal = thresholds(scores)
    assert normal == pytest.approx(np.quantile(scores, 0.75) + 1.5 * np.subtract(*np.quantile(scores, [0.75, 0.25])))
    assert abnormal >= normal
    assert not (scores >= abnormal).any() or abnormal == normal
    assert not ((scores >= abnormal) & (scores > normal)).any()


def test_equal_excesses_make_nothing_seen_abnormal_but_whatever_exceeds_them() -> None:
    scores = np.concatenate([np.linspace(0, 1, 200), np.full(30, 10.0)])
    normal, abnormal = thresholds(scores)
    assert normal < 10 < abnormal
    assert abnormal == beyond(10.0)


def test_t_q_below_u_is_raised_to_u() -> None:
    scores = np.random.default_rng(3).normal(size=1000)
    normal, abnormal = thresholds(scores, alpha=0.0, q=0.5)
    assert normal == abnormal == pytest.approx(np.quantile(scores, 0.75))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 300),
    decimals=st.integers(0, 3),
    alpha=st.sampled_from([0.0, 0.5, 1.5]),
    q=st.sampled_from([1e-4, 0.01, 0.3]),
    power=st.integers(1, 5),
)
def test_the_normal_threshold_never_exceeds_the_abnormal_one(
    seed: int, rows: int, decimals: int, alpha: float, q: float, power: int
) -> None:
    scores = np.round(np.random.default_rng(seed).normal(size=rows) ** power, decimals)
    normal, abnormal = thresholds(scores, alpha, q)
    assert normal <= abnormal
    assert math.isfinite(normal)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_thresholds_scale_with_the_scores(factor: float) -> None:
    scores = np.random.default_rng(4).lognormal(size=2000)
    assert thresholds(factor * scores) == pytest.approx([factor * t for t in thresholds(scores)], rel=1e-3)


@pytest.mark.parametrize(("alpha", "q"), [(-0.1, 0.1), (math.nan, 0.1), (1.0, 0.0), (1.0, 1.0), (1.0, math.nan)])
def test_a_fence_or_risk_out_of_its_range_is_refused(alpha: float, q: float) -> None:
    with pytest.raises(ValueError, match=r"alpha must be at least 0 and q in \(0, 1\)"):
        EVTThresholding(alpha, q)
