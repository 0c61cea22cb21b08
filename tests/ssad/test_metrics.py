"""How well scores rank and decide, on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssad.metrics import (
    decision_metrics,
    has_both_classes,
    ranking_metrics,
    risk_at_coverage,
    risk_coverage,
    threshold_metrics,
)

LABELS = np.asarray([0, 0, 1, 0, 1])
SCORES = np.asarray([0.1, 0.2, 0.3, 0.4, 0.5])


def test_ranking_counts_the_pairs_in_the_right_order() -> None:
    # Of 6 pairs of an anomaly and a normal row, 5 are in order; precision is 1 at the first hit, 2/3 at the second.
    assert ranking_metrics(SCORES, LABELS) == pytest.approx({"auc": 5 / 6, "ap": (1 + 2 / 3) / 2})


def test_a_perfect_ranking_is_one_and_its_reverse_is_zero() -> None:
    assert ranking_metrics(LABELS.astype(float), LABELS)["auc"] == 1
    assert ranking_metrics(-LABELS.astype(float), LABELS)["auc"] == 0


def test_equal_scores_rank_by_chance() -> None:
    assert ranking_metrics(np.zeros(5), LABELS) == pytest.approx({"auc": 0.5, "ap": 0.4})


def test_decisions_are_measured_as_by_hand() -> None:
    called = np.asarray([False, False, True, True, True])
    expected = {"precision": 2 / 3, "recall": 1, "f1": 0.8, "accuracy": 0.8, "mcc": 2 / 3}
    assert decision_metrics(called, LABELS) == pytest.approx(expected)


def test_a_score_at_the_threshold_is_normal() -> None:
    assert threshold_metrics(SCORES, LABELS, 0.3)["recall"] == 0.5
    assert threshold_metrics(SCORES, LABELS, 0.3)["threshold"] == 0.3


@pytest.mark.parametrize(
    "labels", [np.zeros(5, dtype=np.int64), np.ones(5, dtype=np.int64)], ids=["normal", "anomalous"]
)
def test_one_class_has_decision_metrics_and_no_ranking(labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    metrics = threshold_metrics(SCORES, labels, 0.25)
    assert not has_both_classes(labels)
    assert metrics["accuracy"] == pytest.approx(0.4 if not labels.any() else 0.6)
    assert not metrics.keys() & {"auc", "ap"}


def test_calling_nothing_has_precision_zero_and_no_warning() -> None:
    metrics = decision_metrics(np.zeros(5, dtype=np.bool_), LABELS)
    assert (metrics["precision"], metrics["recall"], metrics["f1"], metrics["mcc"]) == (0, 0, 0, 0)


def test_risk_falls_on_the_most_confident_rows_first() -> None:
    coverage, risk = risk_coverage(np.asarray([0.9, -0.5, -0.8, 0.1]), np.asarray([0, 0, 1, 1]))
    # In the order .9 (right), -.8 (right), -.5 (wrong), .1 (wrong).
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk == pytest.approx([0, 0, 1 / 3, 1 / 2])


def test_rows_of_equal_confidence_are_decided_together() -> None:
    coverage, risk = risk_coverage(np.asarray([1.0, -1.0, 1.0, 0.0]), np.asarray([0, 0, 1, 1]))
    assert coverage.tolist() == [0.75, 1]
    assert risk == pytest.approx([2 / 3, 3 / 4])


@given(st.lists(st.tuples(st.floats(-1, 1), st.booleans()), min_size=1, max_size=60))
def test_the_last_risk_is_the_error_of_the_forced_decision(rows: list[tuple[float, bool]]) -> None:
    confidence, labels = np.asarray([row[0] for row in rows]), np.asarray([int(row[1]) for row in rows])
    coverage, risk = risk_coverage(confidence, labels)
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx(((confidence < 0) != (labels == 1)).mean())
    assert (np.diff(coverage) > 0).all()


def test_the_risk_at_a_coverage_is_that_of_the_rows_it_takes_to_reach_it() -> None:
    confidence, labels = np.asarray([1.0, 0.5, 0.5, -0.2]), np.asarray([0, 1, 0, 1])
    risks = [risk_at_coverage(confidence, labels, coverage) for coverage in (0.25, 0.5, 0.75, 1.0)]
    assert risks == pytest.approx([0, 1 / 3, 1 / 3, 1 / 4])
