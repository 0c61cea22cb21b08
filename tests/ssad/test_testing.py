"""The contract tests pass for every detector and for the parts of the examples, and fail for what breaks them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ssad import (
    Autoencoder,
    BaseConfidenceEstimator,
    BinaryConfidence,
    ConfidenceIntervalsConfiguration,
    CosineReconstructionModule,
    SupportsDistributionAnalysis,
    TriangularThresholding,
)
from ssad.detectors import PRESETS, Preset, preset
from ssad.errors import SettingsError
from ssad.testing import check_analyzer, check_detector, check_estimator
from tests.conftest import PROJECT
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = QUIET_LIBRARIES

OWN = "examples.own_detector:OWN"
HERE = __name__


class LastScore(TriangularThresholding):
    """Depends on the order of the rows."""

    def analyze_distribution(
        self, scores_batch: torch.Tensor, current_conf: ConfidenceIntervalsConfiguration | None
    ) -> ConfidenceIntervalsConfiguration:
        super().analyze_distribution(scores_batch, current_conf)
        return ConfidenceIntervalsConfiguration.from_thresholds(float(scores_batch[-1]), float("inf"))


class Sorting(TriangularThresholding):
    """Changes what it was given."""

    def analyze_distribution(
        self, scores_batch: torch.Tensor, current_conf: ConfidenceIntervalsConfiguration | None
    ) -> ConfidenceIntervalsConfiguration:
        scores_batch.copy_(scores_batch.sort(descending=True).values)
        return super().analyze_distribution(scores_batch, current_conf)


class Counting(TriangularThresholding):
    """Answers otherwise each time it is asked."""

    asked = 0

    def analyze_distribution(
        self, scores_batch: torch.Tensor, current_conf: ConfidenceIntervalsConfiguration | None
    ) -> ConfidenceIntervalsConfiguration:
        self.asked += 1
        super().analyze_distribution(scores_batch, current_conf)
        return ConfidenceIntervalsConfiguration.from_thresholds(float(self.asked), float("inf"))


class Confidence(BaseConfidenceEstimator):
    """Right but for one rule."""

    def __init__(self, broken: str) -> None:
        super().__init__()
        self.broken = broken

    def _confidence_normal(self, score: torch.Tensor) -> torch.Tensor:
        return {
            "beyond one": torch.full_like(score, 2),
            "rising": torch.sigmoid(score),
            "by rank": 1 - score.argsort() / max(len(score), 1),
        }.get(self.broken, torch.ones_like(score))

    def _confidence_unknown(self, score: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(score)

    def _confidence_abnormal(self, score: torch.Tensor) -> torch.Tensor:
        return torch.full_like(score, 0 if self.broken == "rising" else -1)

    def estimate_confidence(self, scores_batch: torch.Tensor) -> torch.Tensor:
        confidence = super().estimate_confidence(scores_batch)
        return confidence.clamp_min(0.5) if self.broken == "other sign" else confidence


@pytest.fixture(autouse=True)
def from_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples are found as the command line finds them: from the folder one is in."""
    monkeypatch.syspath_prepend(str(PROJECT))


@pytest.mark.slow
@pytest.mark.parametrize("detector", [*PRESETS, OWN])
def test_every_detector_keeps_the_contract(detector: str) -> None:
    check_detector(detector)


def test_the_parts_of_the_example_keep_their_contracts() -> None:
    preset(OWN)
    example = sys.modules["examples.own_detector"]
    check_analyzer(example.MedianDeviations())
    check_estimator(example.Ramp())
    lines = (PROJECT / "examples" / "own_detector.py").read_text().splitlines()
    assert len(lines) < 80


@pytest.mark.parametrize(
    ("analyzer", "said"),
    [
        (object(), "lacks a method"),
        (LastScore(), "another order"),
        (Sorting(), "changed the scores"),
        (Counting(), "asked again"),
    ],
)
def test_a_broken_analyzer_is_told_what_it_breaks(analyzer: SupportsDistributionAnalysis, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_analyzer(analyzer)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("beyond one", r"leaves \[-1, 1\]"),
        ("rising", "rises with the score"),
        ("by rank", "depends on the scores beside it"),
        ("other sign", "abnormal scores got the other sign"),
    ],
)
def test_a_broken_estimator_is_told_what_it_breaks(broken: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_estimator(Confidence(broken))


class Upside(CosineReconstructionModule):
    """Scores far rows below near ones."""

    def _prediction_score(self, data: torch.Tensor) -> torch.Tensor:
        distance: torch.Tensor = ((data - 0.5) ** 2).sum(dim=1)
        return 0 * super()._prediction_score(data) - distance


def _upside(features: torch.Tensor, every_n_epochs: int, learning_rate: float) -> Upside:
    return Upside(Autoencoder(features.shape[1], None, 2), every_n_epochs, BinaryConfidence(), TriangularThresholding())


UPSIDE_DOWN = Preset(lambda batches: 1, 1, 1e-3, _upside)
NOT_A_PRESET = np.pi


def test_a_detector_that_ranks_upside_down_is_told() -> None:
    with pytest.raises(AssertionError, match="far rows score no higher"):
        check_detector(f"{HERE}:UPSIDE_DOWN")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.at_all:OWN", "cannot be imported"),
        (f"{HERE}:MISSING", "cannot be imported"),
        (":", "cannot be imported"),
        (f"{HERE}:NOT_A_PRESET", "is of type float, expected a Preset"),
        ("own_detector", "module:attribute"),
    ],
)
def test_a_detector_that_cannot_be_found_is_one_sentence(name: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        preset(name)
