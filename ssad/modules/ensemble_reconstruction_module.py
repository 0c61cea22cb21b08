"""The default's scoring: how badly an ensemble of autoencoders reconstructs a row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch

from ssad.modules.self_supervision_module import DECIDED, SelfSupervisionModule

ERROR_FLOOR = 1e-4
"""Added to a squared error before its logarithm: standardized features repeat no better than to 1 %."""

MARGIN = math.log(4.0)
"""Confident-abnormal rows are pushed until their error is four times that of the normal ones."""

PUSH = 0.3
"""Weight of that push against the reconstruction of normal rows."""


class EnsembleReconstructionModule(SelfSupervisionModule):
    """Scores rows by the geometric mean, over the members, of their mean squared error.

    One member that fails on a row does not decide its score, and errors keep the scale on which their
    tail can be fitted.

    Confident-normal rows are reconstructed; confident-abnormal ones are pushed, by a hinge on the
    logarithm of their error, beyond `MARGIN` above the batch's normal rows; undecided ones are left out.
    """

    @property
    def criterion(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Mean squared error of every member for each row, shape (members, n)."""
        return member_errors

    def _errors(self, data: torch.Tensor) -> torch.Tensor:
        return self.criterion(data, self.model(data))

    def _prediction_score(self, data: torch.Tensor) -> torch.Tensor:
        return torch.exp(_log_error(self._errors(data)).mean(dim=0))

    def feature_errors(self, data: torch.Tensor) -> torch.Tensor:
        """Squared residuals, mean over the members, shape (n, d)."""
        return cast("torch.Tensor", ((self.model(data) - data) ** 2).mean(dim=0))

    def compute_loss(self, data: torch.Tensor, confidence: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Mean normal loss plus `PUSH` times the mean abnormal loss, from one pass over the batch.

        The normal error is divided by its own detached mean, so that the push weighs the same early,
        when errors are large, and late.
        """
        errors = self._errors(data)
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
        return self._errors(data).mean(dim=0)

    def _negative_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        errors = self._errors(data)
        return _hinge(errors, errors.detach().amin(dim=1)).mean(dim=0)

    def _uncertain_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(confidence)


def member_errors(data: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
    """Mean squared error of rows (n, d) and their reconstructions (members, n, d): shape (members, n)."""
    return ((reconstructions - data) ** 2).mean(dim=2)


def _log_error(errors: torch.Tensor) -> torch.Tensor:
    return torch.log(errors + ERROR_FLOOR)


def _hinge(errors: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """How far errors (members, n) lie below `MARGIN` times the reference error (members,)."""
    return torch.relu(MARGIN + _log_error(reference)[:, None] - _log_error(errors))
