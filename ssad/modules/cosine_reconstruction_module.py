"""RADON's scoring: the angle between a row and its reconstruction."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ssad.modules.score_loss_module import ScoreLossModule

SHORTEST = 1e-8
"""Length below which a row has no direction: torch's."""


def cosine_similarity(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Of the rows of two tensors, of any shape (n, ...): shape (n,), in [-1, 1] to rounding.

    Torch's goes through the rows twice as often.
    """
    first, second = first.flatten(1), second.flatten(1)
    squared = [(rows * rows).sum(dim=1).clamp_min(SHORTEST**2) for rows in (first, second)]
    return (first * second).sum(dim=1) * torch.rsqrt(squared[0] * squared[1])


class CosineReconstructionModule(ScoreLossModule):
    """Scores rows by 1 - cosine similarity of input and reconstruction [Najari et al., SIN 2021].

    Confident-normal rows are pulled to be collinear with their reconstruction, confident-abnormal ones
    pushed to be orthogonal, undecided ones left out. Each row's loss is weighted by the size of its
    confidence, which is 1 for the paper's binary one.
    """

    @property
    def criterion(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Cosine similarity of rows, shape (n,), in [-1, 1] to rounding."""
        return cosine_similarity

    def _prediction_score(self, data: torch.Tensor) -> torch.Tensor:
        return 1 - self.criterion(data, self.model(data))

    def _positive(self, score: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return confidence * score

    def _negative(self, score: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        # Squared, so that the push ends where the two are orthogonal instead of going on to opposite.
        return -confidence * (1 - score) ** 2

    def _uncertain(self, score: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return 0 * score  # none, but a batch of such rows alone still has a gradient
