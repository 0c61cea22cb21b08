"""Losses that know of a row nothing but its score."""

from __future__ import annotations

from abc import abstractmethod
from types import MethodType

import torch

from ssad.modules.self_supervision_module import SelfSupervisionModule, mean_loss

REGION_LOSSES = ("_positive_loss", "_negative_loss", "_uncertain_loss")
"""What a subclass says of the three regions."""


class ScoreLossModule(SelfSupervisionModule):
    """A module whose losses know of a row nothing but its score: one pass over a batch serves all three.

    A network that draws noise, or looks at the whole batch as batch norm does, sees the rows of all regions together.
    Who says otherwise what a region's loss is, by the rows, has one pass for each region.
    """

    @abstractmethod
    def _positive(self, score: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        """Loss of each confident-normal row by its score, shape (n,); `confidence` in [DECIDED, 1]."""

    @abstractmethod
    def _negative(self, score: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        """Loss of each confident-abnormal row by its score, shape (n,); `confidence` in [-1, -DECIDED]."""

    @abstractmethod
    def _uncertain(self, score: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        """Loss of each undecided row by its score, shape (n,)."""

    def compute_loss(self, data: torch.Tensor, confidence: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Mean over the batch of each row's loss, by the region its confidence puts it in."""
        if any(getattr(self, loss) != MethodType(getattr(ScoreLossModule, loss), self) for loss in REGION_LOSSES):
            return super().compute_loss(data, confidence, batch_idx)
        scores = self._prediction_score(data)
        loss = mean_loss(scores, confidence, self._positive, self._negative, self._uncertain)
        return self._part_of_batch(loss, len(data))

    def _positive_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return self._positive(self._prediction_score(data), confidence)

    def _negative_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return self._negative(self._prediction_score(data), confidence)

    def _uncertain_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return self._uncertain(self._prediction_score(data), confidence)
