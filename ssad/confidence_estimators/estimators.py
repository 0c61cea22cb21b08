"""Scores and intervals to confidence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from ssad.confidence_estimators.intervals import ConfidenceIntervalsConfiguration

DECIDED = 0.5
"""A row whose confidence is smaller in size than this is undecided: (1 + confidence) / 2 is in (1/4, 3/4)."""


@runtime_checkable
class SupportsConfidenceEstimation(Protocol):
    """Anything that turns scores into confidence, given intervals.

    Attributes:
        configuration: the intervals in force; None before the first analysis.
    """

    configuration: ConfidenceIntervalsConfiguration | None

    def estimate_confidence(self, scores_batch: torch.Tensor) -> torch.Tensor:
        """Confidence in [-1, 1] of each score, shape (n,)."""
        ...


class BaseConfidenceEstimator(ABC, SupportsConfidenceEstimation):
    """An estimator with one rule a region; a subclass says the three rules."""

    def __init__(self) -> None:
        self.configuration: ConfidenceIntervalsConfiguration | None = None

    def fit(self, scores_batch: torch.Tensor) -> None:
        """Learn what confidence needs from the training scores, shape (n,); by default nothing."""

    @abstractmethod
    def _confidence_normal(self, score: torch.Tensor) -> torch.Tensor:
        """Confidence of scores in the normal interval, shape of `score`, in [0, 1]."""

    @abstractmethod
    def _confidence_abnormal(self, score: torch.Tensor) -> torch.Tensor:
        """Confidence of scores in the abnormal interval, shape of `score`, in [-1, 0]."""

    @abstractmethod
    def _confidence_unknown(self, score: torch.Tensor) -> torch.Tensor:
        """Confidence of scores in the unknown interval, shape of `score`, in [-1, 1]."""

    def estimate_confidence(self, scores_batch: torch.Tensor) -> torch.Tensor:
        """Confidence of each score, by the rule of the interval that holds it; computed in float64.

        Args:
            scores_batch: shape (n,), finite.

        Returns:
            Shape (n,), dtype of the scores, float64 for whole ones, in [-1, 1].

        Raises:
            RuntimeError: no intervals have been set yet.
        """
        if self.configuration is None:
            raise RuntimeError(
                "no intervals are set; assign a ConfidenceIntervalsConfiguration to `configuration` first"
            )
        # As the intervals have them: a score beside a threshold must not be rounded to it.
        scores = scores_batch.double()
        confidence = torch.zeros_like(scores)
        for interval, rule in (
            (self.configuration.normal, self._confidence_normal),
            (self.configuration.unknown, self._confidence_unknown),
            (self.configuration.abnormal, self._confidence_abnormal),
        ):
            members = interval.contains_tensor_mask(scores)
            # A million rows take two thirds of the time that indexing by the mask does.
            confidence.masked_scatter_(members, rule(scores.masked_select(members)).to(confidence.dtype))
        # Whole numbers have no room for a confidence.
        return confidence.to(scores_batch.dtype) if scores_batch.is_floating_point() else confidence


class BinaryConfidence(BaseConfidenceEstimator):
    """+1 in the normal interval, -1 in the abnormal one, 0 between [Najari et al., SIN 2021]."""

    def _confidence_normal(self, score: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(score)

    def _confidence_abnormal(self, score: torch.Tensor) -> torch.Tensor:
        return -torch.ones_like(score)

    def _confidence_unknown(self, score: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(score)


TINY = torch.finfo(torch.float64).tiny
"""Where the decision is a threshold, no score lies between the two, and nothing is divided by nothing."""

NORMAL_EDGE = 0.9
"""Confidence at the normal threshold: one row in twenty there is an anomaly."""

ABNORMAL_EDGE, ABNORMAL_END = -0.2, -0.8
"""Confidence at the abnormal threshold and at the highest scores. The sign claims more than one half, which without
labels is much already; how much is in docs/benchmarks.md. From -`DECIDED` on a loss takes the row for abnormal."""


class GradedConfidence(BaseConfidenceEstimator):
    """Confidence that falls steadily as the score rises; (1 + confidence) / 2 estimates P(normal).

    From +1 at the lowest training score it falls with the share of normal training rows below the score
    to `NORMAL_EDGE` at the normal threshold, linearly to 0 at the decision and on to `ABNORMAL_EDGE` at the
    abnormal threshold, and to `ABNORMAL_END` with the share of abnormal training rows below the score. The
    decision is the intervals' own, or else the middle of the unknown interval.
    """

    def __init__(self) -> None:
        super().__init__()
        self._training_scores: torch.Tensor | None = None

    def fit(self, scores_batch: torch.Tensor) -> None:
        """Keep the training scores' order, shape (n,): it says how deep in its region a score lies."""
        # NumPy's, which unlike torch's makes no list of positions beside.
        self._training_scores = torch.from_numpy(np.sort(scores_batch.detach().cpu().numpy(), axis=None))

    def _share_below(self, score: torch.Tensor, region: str) -> torch.Tensor:
        """Share of a region's training rows that score lower, in [0, 1], shape of `score`."""
        if self._training_scores is None or self.configuration is None:
            raise RuntimeError("the estimator has seen no training scores; call fit(scores) first")
        known = self._training_scores.to(score)
        interval = getattr(self.configuration, region)
        members = known[interval.contains_tensor_mask(known)]
        return torch.searchsorted(members, score.contiguous()).to(score) / max(len(members), 1)

    def _confidence_normal(self, score: torch.Tensor) -> torch.Tensor:
        return 1 - (1 - NORMAL_EDGE) * self._share_below(score, "normal")

    def _confidence_abnormal(self, score: torch.Tensor) -> torch.Tensor:
        return ABNORMAL_EDGE + (ABNORMAL_END - ABNORMAL_EDGE) * self._share_below(score, "abnormal")

    def _confidence_unknown(self, score: torch.Tensor) -> torch.Tensor:
        assert self.configuration is not None  # estimate_confidence has checked it
        low, high = self.configuration.thresholds.normal, self.configuration.thresholds.abnormal
        if not (abs(low) < torch.inf and abs(high) < torch.inf):  # an unbounded region has no middle
            return torch.zeros_like(score)
        decision = self.configuration.decision
        decision = (low + high) / 2 if decision is None else decision
        # Divided first: a share is at most 1, however it is rounded, and confidence stays within its edges.
        above = ABNORMAL_EDGE * ((score - decision) / max(high - decision, TINY))
        return torch.where(score > decision, above, NORMAL_EDGE * ((decision - score) / max(decision - low, TINY)))


class HybridEstimator(SupportsConfidenceEstimation):
    """The weighted mean of several estimators, all on the same intervals."""

    def __init__(
        self,
        training_dataset: Any,
        estimators: Sequence[SupportsConfidenceEstimation],
        weights: Sequence[float] | None = None,
    ) -> None:
        """Combine `estimators`; equal weights unless given, which need not sum to one.

        `training_dataset` is taken for programs that pass one; estimators learn from scores, by `fit`.

        Raises:
            ValueError: no estimator, another number of weights, a negative or infinite one, or none above zero.
        """
        self.training_dataset = training_dataset
        self.estimators = list(estimators)
        self.weights = list(weights) if weights is not None else [1.0] * len(self.estimators)
        if not self.estimators or len(self.weights) != len(self.estimators):
            raise ValueError(
                f"expected one weight for each of at least one estimator, got {len(self.weights)} weights "
                f"for {len(self.estimators)} estimators"
            )
        if not (min(self.weights) >= 0 and 0 < sum(self.weights) < np.inf):
            raise ValueError(f"weights must be finite, none negative and not all zero, got {self.weights}")

    @property
    def configuration(self) -> ConfidenceIntervalsConfiguration | None:
        """The intervals of every estimator in it."""
        return self.estimators[0].configuration

    @configuration.setter
    def configuration(self, configuration: ConfidenceIntervalsConfiguration | None) -> None:
        for estimator in self.estimators:
            estimator.configuration = configuration

    def fit(self, scores_batch: torch.Tensor) -> None:
        """Let every estimator learn from the training scores, shape (n,)."""
        for estimator in self.estimators:
            fit_estimator(estimator, scores_batch)

    def estimate_confidence(self, scores_batch: torch.Tensor) -> torch.Tensor:
        """Weighted mean of the estimators' confidence, shape (n,), in [-1, 1]."""
        total = torch.zeros_like(scores_batch)
        for weight, estimator in zip(self.weights, self.estimators, strict=True):
            total = total + weight * estimator.estimate_confidence(scores_batch)
        return (total / sum(self.weights)).clamp(-1, 1)  # rounding


def fit_estimator(estimator: SupportsConfidenceEstimation, scores_batch: torch.Tensor) -> None:
    """Show the training scores to an estimator that wants them; the protocol does not ask it to."""
    fit = getattr(estimator, "fit", None)
    if fit is not None:
        fit(scores_batch)
