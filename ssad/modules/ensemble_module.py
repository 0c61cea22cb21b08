"""The default's scoring: what an ensemble of autoencoders cannot explain, and how far normal rows are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR

from ssad.confidence_estimators import SupportsConfidenceEstimation
from ssad.datamodules import SelfSupervisionDataModule
from ssad.distribution_analyzers import SupportsDistributionAnalysis
from ssad.models import AutoencoderEnsemble
from ssad.modules.self_supervision_module import DECIDED, SelfSupervisionModule

ERROR_FLOOR = 1e-4
"""Added to a squared error before its logarithm: standardized features repeat no better than to 1 %."""

SCORE_FLOOR = 1e-6
"""Added to a distance before its logarithm, for rows that repeat a normal one exactly."""

MARGIN = math.log(4.0)
"""Confident-abnormal rows are pushed until their error is four times that of the normal ones."""

PUSH = 0.3
"""Weight of that push against the reconstruction of normal rows."""

RIDGE = 0.05
"""Share of the mean variance added to each residual's: few rows do not fix a covariance."""

REFERENCE_ROWS = 10_000
"""Confident-normal rows that fix the residuals' covariance, at most."""

PROTOTYPES = 256
NEIGHBOURS = 5
"""Confident-normal rows to which distances are taken, and how many of the nearest count."""

WARM_UP = 0.1
"""Share of the training in which the learning rate rises [Smith & Topin 2018, one cycle]."""


class EnsembleModule(SelfSupervisionModule):
    """Scores rows by the geometric mean of two deviations from confident-normal rows.

    The first is each feature's residual given all the others, in standard deviations: the residual of an
    autoencoder, whitened by the covariance it has on confident-normal rows, mean over features, geometric
    mean over members. The second is the distance to the nearest of some confident-normal rows, on signed
    square roots of the features: squared, it adds differences up like an L1 distance and is still one
    matrix product. Both references are taken anew before every recalibration.

    In training, confident-normal rows are reconstructed; confident-abnormal ones are pushed, by a hinge
    on the logarithm of their error, beyond `MARGIN` above the normal ones; undecided ones are left out.

    Attributes:
        residual_center: mean residual of confident-normal rows, shape (members, 1, d).
        whitening: residuals to standard deviations given the others, shape (members, d, d).
        prototypes: confident-normal rows, as signed square roots, shape (2, m, d).
    """

    residual_center: torch.Tensor
    whitening: torch.Tensor
    prototypes: torch.Tensor
    model: AutoencoderEnsemble

    def __init__(
        self,
        model: AutoencoderEnsemble,
        every_n_epochs: int,
        confidence_estimator: SupportsConfidenceEstimation,
        distr_analyzer: SupportsDistributionAnalysis,
        **settings: Any,
    ) -> None:
        super().__init__(model, every_n_epochs, confidence_estimator, distr_analyzer, **settings)
        members, input_dim = model.members, model.weights[0].shape[1]
        self.register_buffer("residual_center", torch.zeros(members, 1, input_dim))
        self.register_buffer("whitening", torch.eye(input_dim).repeat(members, 1, 1))
        self.register_buffer("prototypes", torch.zeros(2, 1, input_dim))

    @property
    def criterion(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Mean squared error of every member for each row, shape (members, n)."""
        return member_errors

    def prepare_scoring(self, datamodule: SelfSupervisionDataModule) -> None:
        """Take the references from confident-normal training rows, evenly spread over them."""
        normal = torch.nonzero(datamodule.train.confidence >= DECIDED).flatten()
        if not len(normal):
            return
        rows = datamodule.train.__getitems__(_spread(normal, REFERENCE_ROWS).tolist())["data"].to(self.device)
        with torch.no_grad():
            residuals = self._residuals(rows).double()
            self.residual_center, self.whitening = (part.float() for part in whitening(residuals))
            self.prototypes = _signed_root(self.model.views(_spread(rows, PROTOTYPES)))

    def _residuals(self, data: torch.Tensor) -> torch.Tensor:
        inputs, reconstructions = cast("tuple[torch.Tensor, torch.Tensor]", self.model(data))
        return inputs - reconstructions

    def _whitened(self, data: torch.Tensor) -> torch.Tensor:
        """Size of each feature's residual given the others, in deviations, shape (members, n, d)."""
        return ((self._residuals(data) - self.residual_center) @ self.whitening).abs()

    def _prediction_score(self, data: torch.Tensor) -> torch.Tensor:
        unexplained = torch.log(self._whitened(data).mean(dim=2) + SCORE_FLOOR).mean(dim=0)
        distance = nearest_distance(_signed_root(self.model.views(data)), self.prototypes)
        return torch.exp(0.5 * (unexplained + torch.log(distance + SCORE_FLOOR).mean(dim=0)))

    def feature_errors(self, data: torch.Tensor) -> torch.Tensor:
        """Size of each feature's whitened residual, mean over the members, shape (n, d)."""
        return self._whitened(data).mean(dim=0)

    def compute_loss(self, data: torch.Tensor, confidence: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Mean normal loss plus `PUSH` times the mean abnormal loss, from one pass over the batch.

        Each member's normal error is divided by its own detached mean, so that members on different
        scales, and the push early and late in training, all weigh the same.
        """
        errors = self.criterion(*self.model(data))
        normal, abnormal = confidence >= DECIDED, confidence <= -DECIDED
        if not normal.any():
            return errors.sum() * 0.0
        normal_error = errors[:, normal].mean(dim=1)
        reference = normal_error.detach()
        loss = (normal_error / (reference + ERROR_FLOOR)).mean()
        if abnormal.any():
            loss = loss + PUSH * _hinge(errors[:, abnormal], reference).mean()
        return loss

    def _positive_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return self.criterion(*self.model(data)).mean(dim=0)

    def _negative_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        errors = self.criterion(*self.model(data))
        return _hinge(errors, errors.detach().amin(dim=1)).mean(dim=0)

    def _uncertain_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(confidence)

    def configure_optimizers(self) -> Any:
        """Adam with one cycle of the learning rate over the whole training."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = LambdaLR(optimizer, lambda step: one_cycle(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def one_cycle(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a linear rise over `WARM_UP` of the steps, then half a cosine."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def member_errors(inputs: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
    """Mean squared error of rows and their reconstructions, (members, n, d) each: shape (members, n)."""
    return ((reconstructions - inputs) ** 2).mean(dim=2)


def whitening(residuals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Center of residuals (members, n, d) and the map to deviations given the others.

    With P the inverse of their covariance, (r P)_j / sqrt(P_jj) is the residual of feature j less its
    regression on all other residuals, in standard deviations of that regression.

    Returns:
        Shapes (members, 1, d) and (members, d, d).
    """
    center = residuals.mean(dim=1, keepdim=True)
    centered = residuals - center
    covariance = centered.mT @ centered / max(1, residuals.shape[1] - 1)
    variance = covariance.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    identity = torch.eye(residuals.shape[2], dtype=residuals.dtype, device=residuals.device)
    precision = torch.linalg.inv(covariance + (RIDGE * variance + SCORE_FLOOR) * identity)
    return center, precision / precision.diagonal(dim1=1, dim2=2).sqrt()[:, None]


def nearest_distance(rows: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Mean squared distance to the nearest prototypes, the row itself not being one.

    Args:
        rows: shape (views, n, d).
        prototypes: shape (views, m, d).

    Returns:
        Shape (views, n).
    """
    products = rows @ prototypes.mT
    squares = (rows**2).sum(dim=2)[:, :, None] + (prototypes**2).sum(dim=2)[:, None] - 2 * products
    wanted = min(NEIGHBOURS + 1, prototypes.shape[1])
    nearest = squares.clamp_min(0).topk(wanted, dim=2, largest=False).values
    if wanted == 1:
        return nearest[:, :, 0]
    itself = nearest[:, :, 0] < SCORE_FLOOR
    return torch.where(itself, nearest[:, :, 1:].mean(dim=2), nearest[:, :, :-1].mean(dim=2))


def _signed_root(views: torch.Tensor) -> torch.Tensor:
    return views.sign() * views.abs().sqrt()


def _spread(rows: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many of the rows, evenly spread over their order."""
    return rows if len(rows) <= most else rows[torch.linspace(0, len(rows) - 1, most).long()]


def _hinge(errors: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """How far errors (members, n) lie below `MARGIN` times the reference error (members,), in logarithms."""
    return torch.relu(MARGIN + torch.log(reference + ERROR_FLOOR)[:, None] - torch.log(errors + ERROR_FLOOR))
