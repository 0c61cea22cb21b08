"""A detector of your own: a network, a loss, thresholds and a confidence to train by; the rest comes with the library.

    ssad train --dataset breast-cancer --detector examples.own_detector:OWN --model-name own

tracks it, bundles it and registers it, and `ssad serve --model models:/own@champion` serves it.
"""

import numpy as np
import torch
from torch import nn

import ssad
from ssad.detectors import Preset
from ssad.distribution_analyzers import HistogramPlotAnalyzer


class Bottleneck(nn.Sequential):
    """Features through a quarter of their number and back, smoothly."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, max(1, width // 4)), nn.Tanh(), nn.Linear(max(1, width // 4), width))


class AbsoluteErrorModule(ssad.SelfSupervisionModule):
    """Scores a row by the mean absolute error of its reconstruction, which far values move less than squares."""

    criterion = staticmethod(nn.functional.l1_loss)

    def _prediction_score(self, data: torch.Tensor) -> torch.Tensor:
        return self.criterion(self.model(data), data, reduction="none").mean(dim=1)

    def _positive_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return confidence * self._prediction_score(data)

    def _negative_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return -confidence * torch.relu(0.5 - self._prediction_score(data))  # half a range is far enough

    def _uncertain_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return 0.0 * self._prediction_score(data)


class MedianDeviations(HistogramPlotAnalyzer):
    """Normal within three median absolute deviations above the median, abnormal from six on."""

    def _thresholds(self, scores, current_conf):
        median = np.median(scores)
        deviation = 1.4826 * np.median(np.abs(scores - median))  # the factor makes it a normal distribution's
        return median + 3 * deviation, median + 6 * deviation


class Ramp(ssad.BaseConfidenceEstimator):
    """Sure of normal and of abnormal; between the thresholds confidence falls evenly from +1 to -1."""

    def _confidence_normal(self, score: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(score)

    def _confidence_abnormal(self, score: torch.Tensor) -> torch.Tensor:
        return -torch.ones_like(score)

    def _confidence_unknown(self, score: torch.Tensor) -> torch.Tensor:
        ends = self.configuration.unknown
        return (1 - 2 * (score - ends.left) / (ends.right - ends.left)).nan_to_num(0)  # an end may be infinite


def build(features: torch.Tensor, every_n_epochs: int, learning_rate: float) -> ssad.SelfSupervisionModule:
    """The parts, put together for training features of shape (n, d)."""
    network = Bottleneck(features.shape[1])
    return AbsoluteErrorModule(network, every_n_epochs, Ramp(), MedianDeviations(), learning_rate=learning_rate)


OWN = Preset(max_epochs=lambda batches: 20, recalibrations=4, learning_rate=1e-2, build=build)
