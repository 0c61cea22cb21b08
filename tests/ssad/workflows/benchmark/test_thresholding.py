"""The protocol of thresholds: unit MCC, and what a method that fails gets."""

from __future__ import annotations

import numpy as np
import pytest

from ssad.workflows.benchmark import thresholding
from ssad.workflows.benchmark.thresholding import ANALYZERS, gain, threshold, unit_mcc

LABELS = np.repeat([0, 1], [90, 10])
SCORES = np.concatenate([np.random.default_rng(0).normal(0, 1, 90), np.random.default_rng(1).normal(20, 1, 10)])


def test_unit_mcc_is_one_when_right_half_by_chance_and_nought_when_reversed() -> None:
    assert [unit_mcc(LABELS, called) for called in (LABELS == 1, LABELS == 2, LABELS == 0)] == [1, 0.5, 0]


def test_the_right_rows_gain_nothing_over_the_true_contamination() -> None:
    assert gain(SCORES, LABELS, LABELS == 1) == 0
    assert gain(SCORES, LABELS, LABELS == 2) == -0.5
    assert gain(-SCORES, LABELS, LABELS == 1) > 0.5


@pytest.mark.parametrize("name", ANALYZERS)
def test_every_analyzer_calls_the_higher_scores(name: str) -> None:
    called = threshold(name, SCORES).called
    assert SCORES[called].min(initial=np.inf) > SCORES[~called].max(initial=-np.inf)


def test_pyods_default_calls_a_tenth() -> None:
    assert threshold(thresholding.DEFAULT_SHARE, SCORES).called.sum() == 10


def test_a_method_that_fails_calls_nothing_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    calls = threshold("EVTThresholding", np.full(5, np.nan))
    assert not calls.called.any()
    assert calls.failure.startswith("ValueError")
    assert "EVTThresholding failed" in caplog.text
