"""GRAnD's scoring: the free energy of a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ssad.confidence_estimators import SupportsConfidenceEstimation
from ssad.distribution_analyzers import SupportsDistributionAnalysis
from ssad.modules.score_loss_module import ScoreLossModule


class FreeEnergyScoringModule(ScoreLossModule):
    """Scores rows by free energy, reconstruction error + KL [Najari et al., AINA 2022, section 3].

    Confident-normal rows lower their free energy; confident-abnormal ones are pushed up to a free energy
    of `m`; undecided ones are pulled towards `m` with the weight of their rank by free energy among those of the
    batch, as a share, those that tie in any order: the paper's empirical distribution function, whose sample it leaves
    open.
    """

    def __init__(
        self,
        model: nn.Module,
        m: float,
        every_n_epochs: int,
        confidence_estimator: SupportsConfidenceEstimation,
        distr_analyzer: SupportsDistributionAnalysis,
        threshold_strategy: Any = "auto",
        manual_threshold: float = 0.5,
        **settings: Any,
    ) -> None:
        """Put the parts together; `model` gives (reconstruction, latent, KL), `m` is in nats, above 0.

        Raises:
            ValueError: `m` is not above 0, or another value is out of its range.
        """
        super().__init__(
            model,
            every_n_epochs,
            confidence_estimator,
            distr_analyzer,
            threshold_strategy,
            manual_threshold,
            **settings,
        )
        if not m > 0:
            raise ValueError(f"the free energy m of abnormal rows must be above 0, got {m}")
        self.m = m

    @property
    def criterion(self) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
        """Free energy of rows from row, reconstruction and KL."""
        return free_energy

    def _prediction_score(self, data: torch.Tensor) -> torch.Tensor:
        reconstruction, _, kl = self.model(data)
        return self.criterion(data, reconstruction, kl)

    def _positive(self, score: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return confidence * score

    def _negative(self, score: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return -confidence * torch.relu(self.m - score)

    def _uncertain(self, score: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        rank = (score.detach().argsort().argsort() + 1) / len(score)
        return rank * (self.m - score).abs()


def free_energy(data: torch.Tensor, reconstruction: torch.Tensor, kl: torch.Tensor) -> torch.Tensor:
    """Squared error of the reconstruction (n, ...) summed over features, plus KL (n,) in nats; shape (n,)."""
    deviation = (data - reconstruction).flatten(1)
    return (deviation * deviation).sum(dim=1) + kl  # as a power its gradient takes half as long again
