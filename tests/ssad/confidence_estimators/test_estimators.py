"""What every estimator promises, and what each one says."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ssad import (
    BaseConfidenceEstimator,
    BinaryConfidence,
    ConfidenceIntervalsConfiguration,
    GradedConfidence,
    HybridEstimator,
    SupportsConfidenceEstimation,
)
from ssad.confidence_estimators import confidence_curve, fit_estimator
from ssad.testing import check_estimator

Make = Callable[[], SupportsConfidenceEstimation]

ESTIMATORS: dict[str, Make] = {
    "binary": BinaryConfidence,
    "graded": GradedConfidence,
    "hybrid": lambda: HybridEstimator(None, [BinaryConfidence(), GradedConfidence()], [0.3, 0.1]),
}
every_estimator = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS.keys())

# Rounded: scores that differ by less than any score is computed to say nothing.
SCORES = st.lists(
    st.floats(-1e6, 1e6).map(lambda x: round(x, 6)) | st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=40
)
THRESHOLD = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, 2.0, -math.inf, math.inf])


def doubles(scores: list[float]) -> torch.Tensor:
    return torch.tensor(scores, dtype=torch.float64)


def estimator(make: Make, training: list[float], first: float, second: float) -> SupportsConfidenceEstimation:
    made = make()
    made.configuration = ConfidenceIntervalsConfiguration.from_thresholds(min(first, second), max(first, second))
    fit_estimator(made, doubles(training))
    return made


@every_estimator
def test_an_estimator_keeps_the_contract(make: Make) -> None:
    check_estimator(make())


@every_estimator
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_confidence_has_the_shape_and_the_dtype_of_the_scores(make: Make, dtype: torch.dtype, rows: int) -> None:
    scores = torch.linspace(0, 3, rows, dtype=dtype)
    confidence = estimator(make, [0.0, 1.0, 2.0], 1.0, 2.0).estimate_confidence(scores)
    assert confidence.shape == (rows,)
    assert confidence.dtype == dtype


@every_estimator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decision", [None, 0.1, 0.2])
def test_scores_of_another_precision_have_the_confidence_of_the_same_numbers(
    make: Make, dtype: torch.dtype, decision: float | None
) -> None:
    made, scores = estimator(make, [0.05, 0.15, 0.25], 0.1, 0.2), torch.tensor([0.05, 0.1, 0.15, 0.2, 0.3], dtype=dtype)
    made.configuration = ConfidenceIntervalsConfiguration.from_thresholds(0.1, 0.2, decision)
    expected = made.estimate_confidence(scores.double()).to(dtype)
    torch.testing.assert_close(made.estimate_confidence(scores), expected)  # which no NaN is


@every_estimator
def test_whole_scores_have_the_confidence_of_the_same_numbers(make: Make) -> None:
    made, scores = estimator(make, [0.0, 1.0, 2.0], 1.0, 3.0), torch.arange(5)
    assert torch.equal(made.estimate_confidence(scores), made.estimate_confidence(scores.double()))


@every_estimator
@given(training=SCORES, scores=SCORES, first=THRESHOLD, second=THRESHOLD)
def test_confidence_is_within_minus_one_and_one_and_never_contradicts_the_region(
    make: Make, training: list[float], scores: list[float], first: float, second: float
) -> None:
    made = estimator(make, training, first, second)
    assert made.configuration is not None
    confidence = made.estimate_confidence(doubles(scores)).numpy()
    regions = made.configuration.thresholds.regions(np.asarray(scores))
    assert (np.abs(confidence) <= 1).all()
    assert (confidence[regions == "normal"] >= 0).all()
    assert (confidence[regions == "abnormal"] <= 0).all()


@every_estimator
@example(training=[-2.0], scores=[0.0, -1.0], first=1e-08, second=-9.8e-146)
@given(training=SCORES, scores=SCORES, first=THRESHOLD, second=THRESHOLD)
def test_confidence_never_rises_with_the_score(
    make: Make, training: list[float], scores: list[float], first: float, second: float
) -> None:
    made = estimator(make, training, first, second)
    confidence = made.estimate_confidence(doubles(sorted(scores + training)))
    assert (confidence.diff() <= 0).all()


@every_estimator
def test_estimating_before_there_are_intervals_is_an_error_that_says_so(make: Make) -> None:
    with pytest.raises(RuntimeError, match="no intervals"):
        make().estimate_confidence(torch.zeros(3))


@every_estimator
def test_a_curve_before_there_are_intervals_is_an_error_that_says_so(make: Make) -> None:
    with pytest.raises(RuntimeError, match="no intervals"):
        confidence_curve(make(), np.zeros(3))


def test_binary_confidence_is_one_zero_and_minus_one_with_the_ends_decided() -> None:
    scores = [0.0, 1.0, math.nextafter(1.0, 2.0), math.nextafter(2.0, 1.0), 2.0, 3.0]
    made = estimator(BinaryConfidence, scores, 1.0, 2.0)
    assert made.estimate_confidence(doubles(scores)).tolist() == [1, 1, 0, 0, -1, -1]


def test_graded_confidence_falls_by_share_in_decided_regions_and_linearly_through_zero_between() -> None:
    training = [0.0, 1.0, 2.0, 3.0, 7.0, 8.0]
    made = estimator(GradedConfidence, training, 4.0, 6.0)
    scores = [0.0, 2.0, 4.0, 4.5, 5.0, 5.5, 6.0, 8.0, 9.0]
    expected = [1, 0.95, 0.9, 0.45, 0, -0.1, -0.2, -0.5, -0.8]
    assert made.estimate_confidence(doubles(scores)).tolist() == pytest.approx(expected)


def test_graded_confidence_crosses_zero_at_the_intervals_own_decision() -> None:
    made = estimator(GradedConfidence, [0.0, 9.0], 4.0, 8.0)
    made.configuration = ConfidenceIntervalsConfiguration.from_thresholds(4.0, 8.0, decision=5.0)
    assert made.estimate_confidence(doubles([4.5, 5.0, 6.5])).tolist() == pytest.approx([0.45, 0, -0.1])


@pytest.mark.parametrize("decision", [4.0, 8.0])
def test_a_decision_at_a_threshold_divides_nothing_by_nothing(decision: float) -> None:
    made = estimator(GradedConfidence, [0.0, 9.0], 4.0, 8.0)
    made.configuration = ConfidenceIntervalsConfiguration.from_thresholds(4.0, 8.0, decision=decision)
    found = made.estimate_confidence(doubles([4.0, 4.1, 7.9, 8.0]))
    assert torch.isfinite(found).all()
    assert (found.diff() <= 0).all()


def test_a_decision_outside_the_unknown_interval_is_an_error() -> None:
    with pytest.raises(ValueError, match="must not lie outside the unknown interval"):
        ConfidenceIntervalsConfiguration.from_thresholds(4.0, 8.0, decision=9.0)


def test_graded_confidence_is_undecided_in_an_unbounded_unknown_interval() -> None:
    made = estimator(GradedConfidence, [0.0, 1.0], 1.0, math.inf)
    assert made.estimate_confidence(doubles([2.0, 1e6])).tolist() == [0, 0]


def test_graded_confidence_without_training_scores_is_an_error_that_says_what_to_call() -> None:
    made = GradedConfidence()
    made.configuration = ConfidenceIntervalsConfiguration.from_thresholds(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"call fit\(scores\) first"):
        made.estimate_confidence(doubles([0.0]))


def test_a_hybrid_is_the_weighted_mean_of_its_estimators() -> None:
    training, scores = [0.0, 1.0, 2.0, 3.0, 7.0, 8.0], doubles([2.0, 4.5, 8.0])
    parts = [estimator(make, training, 4.0, 6.0) for make in (BinaryConfidence, GradedConfidence)]
    hybrid = HybridEstimator(None, parts, [3, 1])
    expected = [(3 * b + g) / 4 for b, g in zip(*(p.estimate_confidence(scores).tolist() for p in parts), strict=True)]
    assert hybrid.estimate_confidence(scores).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=8))
def test_a_hybrid_stays_within_one_whatever_the_weights(dtype: torch.dtype, weights: list[float]) -> None:
    hybrid = HybridEstimator(None, [BinaryConfidence() for _ in weights], weights)
    hybrid.configuration = ConfidenceIntervalsConfiguration.from_thresholds(1.0, 2.0)
    assert hybrid.estimate_confidence(torch.tensor([0.0, 3.0], dtype=dtype)).abs().max() <= 1


def test_a_hybrid_gives_its_intervals_to_every_estimator() -> None:
    hybrid = HybridEstimator(None, [BinaryConfidence(), GradedConfidence()])
    hybrid.configuration = ConfidenceIntervalsConfiguration.from_thresholds(1.0, 2.0)
    assert [part.configuration for part in hybrid.estimators] == [hybrid.configuration] * 2


@pytest.mark.parametrize(
    ("parts", "weights"),
    [
        (0, None),
        (1, [1.0, 2.0]),
        (2, [1.0]),
        (2, [1.0, -1.0]),
        (2, [0.0, 0.0]),
        (2, [1.0, math.inf]),
        (2, [math.nan, 1.0]),
    ],
)
def test_a_hybrid_refuses_weights_that_mean_nothing(parts: int, weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="weight"):
        HybridEstimator(None, [BinaryConfidence() for _ in range(parts)], weights)


def test_an_estimator_that_lacks_a_rule_cannot_be_made() -> None:
    class Half(BaseConfidenceEstimator):
        def _confidence_normal(self, score: torch.Tensor) -> torch.Tensor:
            return score

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]  # that is the mistake
