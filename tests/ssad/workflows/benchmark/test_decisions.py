"""Errors of regions and of probabilities, on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ssad.workflows.benchmark import decisions
from ssad.workflows.benchmark.measurements import table_of
from tests.ssad.workflows.benchmark.conftest import measurement

MIXED = measurement(
    [1, 2, 3, 4, 5, 6, 7, 8],
    [0, 1, 0, 0, 1, 1, 1, 0],
    confidence=np.asarray([1, 0.9, 0.8, 0.2, -0.1, -0.7, -0.8, -0.9]),
    thresholds=np.asarray([3.0, 6.0]),
)


def test_regions_are_counted_and_their_errors_too() -> None:
    found = decisions.regions(MIXED)
    assert [found[f"rows_{region}"] for region in ("normal", "unknown", "abnormal")] == [3 / 8, 2 / 8, 3 / 8]
    assert [found[f"anomalies_{region}"] for region in ("normal", "unknown", "abnormal")] == [1 / 3, 1 / 2, 2 / 3]
    assert (found["decided"], found["error_decided"]) == (0.75, 2 / 6)
    assert (found["error_forced"], found["error_unknown_forced"]) == (2 / 8, 0)
    risks = decisions.risk_table({("a", 1, "ssad"): MIXED}).loc["ssad"]
    assert (risks[0.25], risks[1.0]) == (2 / 3, 2 / 8)  # two rows are equally sure at 0.9


def test_an_empty_region_has_no_share_of_anomalies() -> None:
    undecided = measurement([1, 2], [0, 1], confidence=np.zeros(2), thresholds=np.asarray([-np.inf, np.inf]))
    found = decisions.regions(undecided)
    assert (found["rows_unknown"], found["decided"]) == (1, 0)
    assert np.isnan([found["anomalies_normal"], found["error_decided"]]).all()


def test_the_error_of_decided_rows_stands_beside_that_of_all_rows_decided() -> None:
    table = table_of({("a", 1, "ssad"): MIXED, ("a", 2, "ssad"): MIXED}, decisions.regions)
    assert decisions.summarize_regions(table).loc["ssad", "error_ratio"] == pytest.approx((2 / 6) / (2 / 8))


def test_confidence_is_measured_as_the_probability_it_claims() -> None:
    table = decisions.calibration_table({("a", 1, "ssad"): MIXED}, with_peers=False)
    row = decisions.summarize_calibration(table).to_dict("index")["ssad", "confidence"]
    probability = (1 - MIXED.confidence) / 2
    assert row["ece"] == pytest.approx(np.abs(probability - MIXED.labels).mean())  # eight bins of one row
    assert row["right"] == 6 / 8
    assert row["claimed"] == pytest.approx(np.maximum(probability, 1 - probability).mean())


def test_pyods_ways_are_those_of_its_own_detectors() -> None:
    pytest.importorskip("pyod", reason="the peers come from it")
    from ssad.workflows.benchmark.pyod_probability import exceed, pyod_probabilities

    train = np.arange(100.0)
    ways = pyod_probabilities(train, np.asarray([-1.0, 0, 49.5, 99, 200]))
    assert ways["linear"].tolist() == [0, 0, 0.5, 1, 1]
    assert ways["unify"][:3].tolist() == [0, 0, 0]
    confidence, called = exceed(train, np.asarray([0.0, 99.0]))
    assert called.tolist() == [False, True]
    assert confidence.min() > 0.99
