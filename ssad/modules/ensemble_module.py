"""The default's scoring: what an ensemble of autoencoders cannot explain, and how far normal rows are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from ssad.bundle.intervals import SCORE_TOLERANCE
from ssad.confidence_estimators import DECIDED, SupportsConfidenceEstimation
from ssad.datamodules import SelfSupervisionDataModule
from ssad.distribution_analyzers import SupportsDistributionAnalysis
from ssad.errors import TrainingError
from ssad.models import AutoencoderEnsemble
from ssad.modules.self_supervision_module import SCORING_VALUES, SelfSupervisionModule
from ssad.sampling import spread

ERROR_FLOOR = 1e-4
"""Added to a squared error before its logarithm: standardized features repeat no better than to 1 %."""

RESIDUAL_FLOOR = 1e-2
"""Added to a squared whitened residual before its logarithm: a tenth of a deviation is none."""

DISTANCE_FLOOR = 1e-2
"""Added to a squared distance a feature before its logarithm: a tenth of a deviation is no distance, and below it
single precision has no digits."""

MARGIN = math.log(4.0)
"""Confident-abnormal rows are pushed until their error is four times that of the normal ones."""

PUSH = 0.3
"""Weight of that push against the reconstruction of normal rows."""

RIDGE = 0.05
"""Share of the mean variance added to each residual's: few rows do not fix a covariance."""

REFERENCE_ROWS = 10_000
"""Confident-normal rows that fix the residuals' covariance, and rows that fix weights and units, at most."""

SAMPLES = 8
SAMPLE_ROWS = 16
"""Samples of confident-normal rows to which distances are taken, and the rows of each, at most: small, so that a
few anomalies among them are missed by most samples [LeSiNN: Pang, Ting & Albrecht, ICDMW 2015]."""

WORD_DIFFERENCE = 0.5
"""What a feature of two values adds to a distance where they differ and one of them is rare; on signed square roots
twice this where each is half of the rows. A word differs in two features: together they add 1 to 2, and two standard
normal numbers differ there by 2 sqrt(2 / pi), 1.6, on average. In standard deviations a rare word would be farther off
than any number."""

WARM_UP = 0.1
"""Share of the training in which the learning rate rises [Smith & Topin 2018, one cycle]."""


LARGEST_LOG = 80.0
"""Of a score: beyond, single precision has no number for it."""

SPREAD_QUANTILES = (0.5, 0.9)
"""Of each deviation's logarithm over the training rows: they set its zero and its unit, so that all weigh the
same, and the heavy upper tail does not."""

SPREAD_FLOOR = 0.2
"""Least unit: where nine rows in ten are alike the two quantiles are one, and what differs would all be beyond
`LARGEST_LOG`, which ranks nothing."""


HALF = (torch.bfloat16, torch.float16)
"""In which a small distance between rows far from zero may come out below zero."""

LEAST_ROOT = 1e-15
"""Of what is divided by: nothing is divided by nothing, and a number whose root is less is 0 but for its sign."""

PRECISION_ROWS = 1000
PRECISION_MARGIN = 3.0
"""Rows that tell whether single precision suffices, and how many times better than the tolerance it must be on them:
all rows are more, and a runtime's rounding is another one."""


class EnsembleModule(SelfSupervisionModule):
    """Scores rows by two deviations from confident-normal rows: exp of the mean of their standardized logarithms.

    The first is each feature's squared residual given all the others, in standard deviations, mean over features:
    of what the members' mean reconstruction [bagging: Breiman 1996] leaves, or of the features as they are, whitened
    by the covariance that these have on confident-normal rows; whichever is more, as autoencoders explain rows of few
    features that no line through the others does. The second is the squared distance to the nearest row of a small
    sample of confident-normal rows, geometric mean over the samples, on signed square roots of the features: squared,
    it adds differences up like an L1 distance and is still one matrix product. Numbers weigh 1 in it, words and flags
    what makes them differ by `WORD_DIFFERENCE`. All references are taken anew before every recalibration.

    Standardized features are held, which would make a value that no row came near one among others. So the score is
    multiplied by how many times the width of the training rows' range a row's farthest feature lies beyond it, if that
    is more than once.

    In training, confident-normal rows are reconstructed; confident-abnormal ones are pushed, by a hinge
    on the logarithm of their error, beyond `MARGIN` above the normal ones; undecided ones are left out.

    Attributes:
        whitening: residuals, and features, to standard deviations given the others, shape (2, d, d).
        shift: added to those, so that confident-normal rows have mean 0, shape (2, d, 1).
        samples: confident-normal rows, as signed square roots, shape (samples, rows, d).
        weights: of the features in distances, shape (d,).
        deviation_center: zero of the logarithms of what the members leave, of what the other features leave, and of
            the distance, shape (3,); `deviation_width` their unit.
    """

    scoring_dtype = torch.float32
    scoring_values = SCORING_VALUES // 4  # each member's units lie beside them

    whitening: torch.Tensor
    shift: torch.Tensor
    samples: torch.Tensor
    weights: torch.Tensor
    deviation_center: torch.Tensor
    deviation_width: torch.Tensor
    model: AutoencoderEnsemble

    def __init__(
        self,
        model: AutoencoderEnsemble,
        every_n_epochs: int,
        confidence_estimator: SupportsConfidenceEstimation,
        distr_analyzer: SupportsDistributionAnalysis,
        push: float = PUSH,
        **settings: Any,
    ) -> None:
        """Put the parts together; `push` weighs the loss of confident-abnormal rows, at least 0."""
        super().__init__(model, every_n_epochs, confidence_estimator, distr_analyzer, **settings)
        self.push = push
        input_dim = model.weights[0].shape[2]
        self.register_buffer("whitening", torch.eye(input_dim).repeat(2, 1, 1))
        self.register_buffer("shift", torch.zeros(2, input_dim, 1))
        self.register_buffer("samples", torch.zeros(1, 1, input_dim))
        self.register_buffer("weights", torch.ones(input_dim))
        self.register_buffer("deviation_center", torch.zeros(3))
        self.register_buffer("deviation_width", torch.ones(3))

    @property
    def criterion(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Mean squared error of every member for each row, shape (members, n)."""
        return member_errors

    def prepare_scoring(self, datamodule: SelfSupervisionDataModule) -> None:
        """Take the references from confident-normal training rows, and the deviations' units from all of them."""
        normal = torch.nonzero(datamodule.train.confidence >= DECIDED).flatten()
        if not len(normal):
            return
        with torch.no_grad():
            rows = self._training_rows(datamodule, normal)
            inputs, residuals = self._residuals(rows)
            maps = [whitening(part.double()) for part in (residuals, inputs)]
            self.whitening, self.shift = (torch.stack(parts).to(rows) for parts in zip(*maps, strict=True))
            self.samples = disjoint_samples(_signed_root(inputs).T)
            rows = self._training_rows(datamodule, torch.arange(len(datamodule.train)))
            self.weights = distance_weights(self.model.standardize(rows))
            deviations = torch.stack(self._log_deviations(rows)).float()
            if rows.dtype in HALF and not torch.isfinite(deviations).all():
                raise TrainingError(
                    f"distances between rows cannot be computed in {rows.dtype}; train with precision bf16-mixed."
                )
            zero, unit = torch.quantile(deviations, deviations.new_tensor(SPREAD_QUANTILES), dim=1).to(rows)
            self.deviation_center, self.deviation_width = zero, (unit - zero).clamp_min(SPREAD_FLOOR)
            self.scoring_dtype = self._precision(rows[spread(len(rows), PRECISION_ROWS)])

    def _precision(self, rows: torch.Tensor) -> torch.dtype:
        """What scores must be computed in for another runtime to find the same: single where that is enough.

        Where next to nothing is unexplained, as in a table of one column, whitening blows the rounding up.
        """
        if self.device.type == "mps":  # which has no other
            return torch.float32
        single, double = (self._score_in(dtype)(rows.to(dtype)).double() for dtype in (torch.float32, torch.float64))
        worst = ((single - double).abs() / double).max()
        return torch.float32 if worst <= SCORE_TOLERANCE / PRECISION_MARGIN else torch.float64

    def _training_rows(self, datamodule: SelfSupervisionDataModule, at: torch.Tensor) -> torch.Tensor:
        """Features of the training rows at these positions, `REFERENCE_ROWS` at most, in the weights' precision."""
        return datamodule.train[at[spread(len(at), REFERENCE_ROWS)]]["data"].to(self.whitening)

    def _residuals(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardized rows, and what the members' mean reconstruction leaves of them, both (d, n)."""
        inputs, reconstructions = self.model(data)
        return inputs, inputs - reconstructions.mean(dim=0)

    def _log_deviations(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logarithms of what the members and what the other features do not explain, and of the distance; each (n,)."""
        inputs, units = self.model.last_units(data)
        # A residual is linear in the inputs and in the last units: whitened, it is one product with each.
        weight, bias = (-self.whitening[0] @ part for part in self.model.mean_last_layer())
        residuals = torch.addmm(self.shift[0] + bias, weight, units.flatten(0, 1)).addmm_(self.whitening[0], inputs)
        features = torch.addmm(self.shift[1], self.whitening[1], inputs)
        distance = log_distance(_signed_root(inputs), self.samples, self.weights)
        return _log_mean_square(residuals), _log_mean_square(features), distance

    def _prediction_score(self, data: torch.Tensor) -> torch.Tensor:
        by_members, by_features, distance = (
            (deviation - center) / width
            for deviation, center, width in zip(
                self._log_deviations(data), self.deviation_center, self.deviation_width, strict=True
            )
        )
        mean = 0.5 * (torch.maximum(by_members, by_features) + distance)
        far = self.model.standardize.beyond_range(data).clamp_min(1.0)
        return torch.exp((mean + torch.log(far)).clamp_max(LARGEST_LOG))

    def feature_errors(self, data: torch.Tensor) -> torch.Tensor:
        """Geometric mean of each feature's residual as it is and given the others, in deviations, shape (n, d).

        Its square is what the feature adds to the residual's squared Mahalanobis distance, but for the feature's
        unit. Given the others alone, one value that is wrong shows in all that are expected of it.
        """
        residuals = self._residuals(data)[1]
        given_others = self.whitening[0] @ residuals + self.shift[0]
        return (residuals * given_others).abs().sqrt().T

    def compute_loss(self, data: torch.Tensor, confidence: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Mean normal loss plus `push` times the mean abnormal loss, from one pass over the batch.

        Each member's normal error is divided by its own detached mean, so that members on different
        scales, and the push early and late in training, all weigh the same. Means are over the whole batch, of
        which each of several processes has a part.
        """
        errors = self.criterion(*self.model(data))
        # Rows are weighed by 0 and 1 and not picked out, so that a GPU need not wait until somebody knows how many
        # there are. Half precision cannot count beyond 65,504.
        normal, abnormal = (confidence >= DECIDED).float(), (confidence <= -DECIDED).float()
        normal_error = (errors * normal).sum(dim=1)
        sums = [normal_error.detach(), normal.sum(), abnormal.sum()]
        if self.processes > 1:
            sums = [*torch.split(self.mean_over_processes(torch.hstack(sums)), [len(errors), 1, 1])]
        normal_rows, abnormal_rows = (rows.clamp_min(1 / self.processes) for rows in sums[1:])
        reference = sums[0] / normal_rows
        loss = (normal_error / normal_rows / (reference + ERROR_FLOOR)).mean()
        if self.push:
            pushed = abnormal * (sums[1] > 0)  # without normal rows there is nothing to be above
            loss = loss + self.push * ((_hinge(errors, reference) * pushed).sum(dim=1) / abnormal_rows).mean()
        return loss

    def _positive_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return self.criterion(*self.model(data)).mean(dim=0)

    def _negative_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        errors = self.criterion(*self.model(data))
        return _hinge(errors, errors.detach().amin(dim=1)).mean(dim=0)

    def _uncertain_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(confidence)

    def configure_optimizers(self) -> Any:
        """Adam with one cycle of the learning rate over the whole training, where its length is known."""
        optimizer = super().configure_optimizers()
        if not math.isfinite(self.trainer.estimated_stepping_batches):
            return optimizer  # a training whose end nobody knows has no cycle
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
    """Mean squared error of rows (d, n) and their reconstructions (members, d, n): shape (members, n)."""
    return ((reconstructions - inputs) ** 2).mean(dim=1)


def whitening(residuals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The map from residuals (d, n) to deviations given the others, and its shift to mean 0.

    With P the inverse of their covariance, (P r)_j / sqrt(P_jj) is the residual of feature j less its
    regression on all other residuals, in standard deviations of that regression.

    Returns:
        Shapes (d, d) and (d, 1).
    """
    center = residuals.mean(dim=1, keepdim=True)
    centered = residuals - center
    covariance = centered @ centered.T / max(1, residuals.shape[1] - 1)
    ridge = RIDGE * covariance.diagonal().mean() + ERROR_FLOOR
    precision = torch.linalg.inv(covariance + ridge * torch.eye(len(residuals)).to(covariance))
    to_deviations = precision / precision.diagonal().sqrt()[:, None]
    return to_deviations, -to_deviations @ center


def disjoint_samples(rows: torch.Tensor) -> torch.Tensor:
    """Up to `SAMPLES` samples of up to `SAMPLE_ROWS` rows (n, d), no row in two, each spread over all of them.

    Returns:
        Shape (samples, rows, d).
    """
    samples = min(SAMPLES, len(rows))
    size = min(SAMPLE_ROWS, len(rows) // samples)
    chosen = rows[spread(len(rows), samples * size)]
    return chosen.reshape(size, samples, -1).transpose(0, 1).contiguous()


def distance_weights(rows: torch.Tensor) -> torch.Tensor:
    """Weights of the features of standardized rows (n, d) in distances, shape (d,): less than 1 for two values only."""
    low, high = rows.aminmax(dim=0)
    two_valued = ((rows == low) | (rows == high)).all(dim=0) & (low < high)
    return torch.where(two_valued, WORD_DIFFERENCE / (high - low), 1.0)


def log_distance(rows: torch.Tensor, samples: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Logarithm of the weighted squared distance to the nearest row of each sample, mean over the samples.

    The nearest sample of all is left out: it may hold the row itself.

    Args:
        rows: shape (d, n).
        samples: shape (samples, rows, d).
        weights: shape (d,).

    Returns:
        Shape (n,).
    """
    known = samples.flatten(0, 1)
    weighted = known * weights
    constant = (weighted * known).sum(dim=1, keepdim=True) + DISTANCE_FLOOR * len(rows)
    beyond = torch.addmm(constant, -2 * weighted, rows)
    nearest = beyond.reshape(*samples.shape[:2], -1).amin(dim=1) + weights @ (rows * rows)
    distances = torch.log(nearest)
    if len(samples) == 1:
        return distances[0]
    return (distances.sum(dim=0) - distances.amin(dim=0)) / (len(samples) - 1)


def _log_mean_square(deviations: torch.Tensor) -> torch.Tensor:
    """Of deviations (d, n) of each row, shape (n,)."""
    return torch.log((deviations * deviations).mean(dim=0) + RESIDUAL_FLOOR)


def _signed_root(rows: torch.Tensor) -> torch.Tensor:
    # A sign, which is what it comes to, takes a runtime four times as long as a quotient.
    return rows / rows.abs().sqrt().clamp_min(LEAST_ROOT)


def _hinge(errors: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """How far errors (members, n) lie below `MARGIN` times the reference error (members,), in logarithms."""
    return torch.relu(MARGIN + torch.log(reference + ERROR_FLOOR)[:, None] - torch.log(errors + ERROR_FLOOR))
