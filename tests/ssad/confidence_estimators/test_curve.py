"""The plain curve that a bundle carries says what its estimator said."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given

from ssad import BinaryConfidence, ConfidenceIntervalsConfiguration, GradedConfidence
from ssad.bundle import REGIONS, ConfidenceCurve, Thresholds
from ssad.confidence_estimators import confidence_curve, served_curve
from ssad.confidence_estimators.estimators import ABNORMAL_EDGE, ABNORMAL_END, NORMAL_EDGE
from tests.ssad.confidence_estimators.test_estimators import (
    SCORES,
    THRESHOLD,
    Make,
    doubles,
    estimator,
    every_estimator,
)
from tests.ssad.confidence_estimators.test_intervals import around

BETWEEN_KNOTS = 1 / 256


@given(training=SCORES, first=THRESHOLD, second=THRESHOLD)
def test_the_curve_of_binary_confidence_is_exact_at_the_training_scores(
    training: list[float], first: float, second: float
) -> None:
    made = estimator(BinaryConfidence, training, first, second)
    curve = confidence_curve(made, np.asarray(training))
    assert curve(np.asarray(training)).tolist() == made.estimate_confidence(doubles(training)).tolist()


@pytest.mark.parametrize("rows", [1, 2, 4, 100, 257, 3000])
def test_the_curve_of_graded_confidence_is_within_its_bound_at_the_training_scores(rows: int) -> None:
    training = np.random.default_rng(rows).lognormal(size=rows)
    made = estimator(GradedConfidence, training.tolist(), *np.quantile(training, [0.8, 0.95]).tolist())
    expected = made.estimate_confidence(torch.from_numpy(training)).numpy()
    assert np.abs(confidence_curve(made, training)(training) - expected).max() <= BETWEEN_KNOTS


@pytest.mark.parametrize("rows", [40, 600, 5000])
def test_the_curve_is_off_by_what_confidence_changes_over_a_256th_of_the_rows_at_any_score(rows: int) -> None:
    training = np.random.default_rng(rows).lognormal(size=rows)
    made = estimator(GradedConfidence, training.tolist(), *np.quantile(training, [0.8, 0.95]).tolist())
    curve, scores = confidence_curve(made, training), np.linspace(0, 2 * training.max(), 20_000)
    off = np.abs(curve(scores) - made.estimate_confidence(torch.from_numpy(scores)).numpy())
    known, regions = curve.thresholds.counts(training), curve.thresholds.regions(scores)
    for region, change in (("normal", 1 - NORMAL_EDGE), ("abnormal", ABNORMAL_EDGE - ABNORMAL_END)):
        steps = math.ceil(known[region] * BETWEEN_KNOTS)
        assert off[regions == region].max() <= change * steps / known[region] + 1e-12


@pytest.mark.parametrize("abnormal", [1, 2, 10, 1000])
def test_confidence_ends_beyond_the_highest_training_score(abnormal: int) -> None:
    training = np.concatenate([np.linspace(0, 1, 500), np.linspace(3, 4, abnormal)])
    curve = served_curve(ConfidenceIntervalsConfiguration.from_thresholds(1.5, 2.5), training)
    assert curve(np.asarray([4.1, 1e6])).tolist() == [ABNORMAL_END] * 2


@every_estimator
@given(training=SCORES, scores=SCORES, first=THRESHOLD, second=THRESHOLD)
def test_the_curve_keeps_the_promises_of_confidence(
    make: Make, training: list[float], scores: list[float], first: float, second: float
) -> None:
    curve = confidence_curve(estimator(make, training, first, second), np.asarray(training))
    ordered = np.sort(np.asarray(training + scores))
    confidence, regions = curve(ordered), curve.thresholds.regions(ordered)
    assert (np.abs(confidence) <= 1).all()
    assert (np.diff(confidence) <= 0).all()
    assert (confidence[regions == "normal"] >= 0).all()
    assert (confidence[regions == "abnormal"] <= 0).all()


@pytest.mark.parametrize("seed", range(100))
def test_confidence_does_not_rise_by_rounding_just_below_a_knot(seed: int) -> None:
    generator = np.random.default_rng(seed)
    at, value = np.sort(generator.normal(size=4)), np.sort(generator.uniform(-1, 1, 4))[::-1]
    nothing = np.empty(0)
    knots = {"normal": (at, value), "unknown": (nothing, nothing), "abnormal": (nothing, nothing)}
    scores = np.sort(np.concatenate([at, np.nextafter(at, -np.inf), np.nextafter(at, np.inf)]))
    confidence = ConfidenceCurve(Thresholds(9.0, 9.0), knots)(scores)
    assert (np.diff(confidence) <= 0).all()
    assert confidence[np.isin(scores, at)].tolist() == value.tolist()


@every_estimator
@given(training=SCORES, first=THRESHOLD, second=THRESHOLD)
def test_the_curve_survives_json_exactly(make: Make, training: list[float], first: float, second: float) -> None:
    curve = confidence_curve(estimator(make, training, first, second), np.asarray(training))
    back = ConfidenceCurve.from_json(json.loads(json.dumps(curve.to_json(), allow_nan=False)))
    assert back.thresholds == curve.thresholds
    for region in REGIONS:
        for now, then in zip(back.knots[region], curve.knots[region], strict=True):
            assert now.tolist() == then.tolist()


@pytest.mark.parametrize("threshold", [-math.inf, math.inf])
def test_one_region_for_every_score_survives_json(threshold: float) -> None:
    made = estimator(BinaryConfidence, [0.0, 1.0], threshold, threshold)
    curve = confidence_curve(made, np.asarray([0.0, 1.0]))
    back = ConfidenceCurve.from_json(curve.to_json())
    assert back.thresholds.regions(np.asarray([0.0])).tolist() == curve.thresholds.regions(np.asarray([0.0])).tolist()


def test_the_curve_agrees_with_the_region_just_beyond_each_threshold() -> None:
    made = estimator(BinaryConfidence, [0.0, 1.5, 3.0], 1.0, 2.0)
    scores = [1.0, math.nextafter(1.0, 2.0), math.nextafter(2.0, 1.0), 2.0]
    assert confidence_curve(made, np.asarray([0.0, 1.5, 3.0]))(np.asarray(scores)).tolist() == [1, 0, 0, -1]


def test_a_region_without_training_scores_still_has_its_confidence() -> None:
    made = estimator(BinaryConfidence, [0.0], 1.0, 2.0)
    assert confidence_curve(made, np.asarray([0.0]))(np.asarray([1.5, 5.0])).tolist() == [0, -1]


def test_scores_far_beyond_knots_that_lie_next_to_each_other_have_confidence() -> None:
    knots = {"normal": [-1.0], "unknown": [-0.5, -0.1], "abnormal": [0.0, 5e-324]}
    values = {"normal": [0.9], "unknown": [0.5, -0.1], "abnormal": [-0.2, -0.8]}
    curve = ConfidenceCurve(Thresholds(-1.0, 0.0), {r: (np.asarray(knots[r]), np.asarray(values[r])) for r in knots})
    assert curve(np.asarray([0.0, 5e-324, 1.0, 1e300])).tolist() == [-0.2, -0.8, -0.8, -0.8]


def test_a_forced_decision_falls_where_graded_confidence_crosses_zero() -> None:
    training = [0.0, 1.0, 2.0, 4.5, 7.0, 8.0]
    made = estimator(GradedConfidence, training, 4.0, 6.0)
    made.configuration = ConfidenceIntervalsConfiguration.from_thresholds(4.0, 6.0, decision=5.0)
    assert confidence_curve(made, np.asarray(training)).decision == pytest.approx(5.0)


@every_estimator
@given(training=SCORES, scores=SCORES, first=THRESHOLD, second=THRESHOLD)
def test_above_a_forced_decision_confidence_is_negative_and_below_it_is_not(
    make: Make, training: list[float], scores: list[float], first: float, second: float
) -> None:
    curve = confidence_curve(estimator(make, training, first, second), np.asarray(training))
    asked = np.asarray([*training, *scores, *around(first, second)])
    confidence, regions, called = curve(asked), curve.thresholds.regions(asked), asked > curve.decision
    # The crossing is computed in rounded arithmetic: zero within rounding on either side of it is fine.
    assert (confidence[called] < 1e-9).all()
    assert (confidence[~called] > -1e-9).all()
    assert called[regions == "abnormal"].all()
    assert not called[regions == "normal"].any()


@pytest.mark.parametrize(
    ("normal", "abnormal", "decision"),
    [
        (1.0, 2.0, 1.0),
        (1.0, 2.0, 2.0),
        (1.0, math.nextafter(1.0, 2.0), None),
        (2.0, 2.0, 2.0),
        (-math.inf, 2.0, None),
        (1.0, math.inf, None),
    ],
)
def test_a_forced_decision_is_the_sign_of_confidence_at_the_thresholds_too(
    normal: float, abnormal: float, decision: float | None
) -> None:
    configuration = ConfidenceIntervalsConfiguration.from_thresholds(normal, abnormal, decision)
    curve = served_curve(configuration, np.linspace(0, 3, 100))
    asked = np.asarray(around(normal, abnormal))
    assert (asked > curve.decision).tolist() == (curve(asked) < 0).tolist()


def test_nothing_is_decided_against_where_nothing_is_abnormal() -> None:
    curve = ConfidenceCurve(Thresholds(1.0, math.inf), {region: (np.zeros(1), np.zeros(1)) for region in REGIONS})
    assert curve.decision == math.inf


def test_an_estimator_that_breaks_its_promises_is_held_to_them() -> None:
    class Wild(BinaryConfidence):
        def _confidence_normal(self, score: torch.Tensor) -> torch.Tensor:
            return 5 * score

        def _confidence_abnormal(self, score: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(score)

    made, training = Wild(), np.asarray([-1.0, 0.1, 0.9, 1.5, 3.0])
    made.configuration = ConfidenceIntervalsConfiguration.from_thresholds(1.0, 2.0)
    confidence = confidence_curve(made, training)(training)
    assert (np.diff(confidence) <= 0).all()
    assert ((confidence[:3] >= 0) & (confidence[:3] <= 1)).all()
    assert confidence[-1] <= 0
