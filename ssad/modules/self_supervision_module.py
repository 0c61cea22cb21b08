"""The loop: score every training row, cut the distribution, set confidence, train on."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import asdict
from functools import partial
from inspect import signature
from numbers import Integral
from typing import Any, Literal, Protocol, cast, runtime_checkable

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import distributed, nn
from torch.utils.data.distributed import DistributedSampler

from ssad.bundle.intervals import Floats
from ssad.confidence_estimators import (
    DECIDED,
    ConfidenceIntervalsConfiguration,
    SupportsConfidenceEstimation,
    fit_estimator,
)
from ssad.datamodules import SelfSupervisionDataModule
from ssad.datasets.rows import UNLABELLED, Batch, data_and_label
from ssad.distribution_analyzers import SupportsDistributionAnalysis
from ssad.errors import TrainingError
from ssad.loggers import mlflow_logger as to_mlflow
from ssad.loggers.training_figures import Recalibration
from ssad.metrics import (
    Labels,
    decision_metrics,
    has_both_classes,
    ranking_metrics,
    threshold_metrics,
)

logger = logging.getLogger(__name__)

LEARNING_RATE = 1e-3
"""Adam's default [Kingma & Ba, ICLR 2015], and the published library's."""

SCORING_VALUES = 1 << 18
"""Features scored at once: the rows that fit half of a core's cache, a MiB, however many columns they have."""

GPU_SCORING_VALUES = 1 << 24
"""Likewise on a GPU, which has no such cache to fill but kernels to start: 64 MiB."""

SCORING_ROWS = 1024
"""Rows scored at once, at least: below, calls cost more than a cache saves."""

INTERVALS, PRECISION = "intervals", "scoring_dtype"
"""The intervals in force under this name in a checkpoint, as their thresholds, and what scores are computed in."""

SHOWN_LABELS = 5
"""Of labels that are none, so many are named."""

PLAIN = frozenset({"_current_fx_name", "epoch_loss", "epoch_batches"})
"""Attributes that are set in every step: where Lightning notes which hook of a module runs, and the loss."""


@runtime_checkable
class SupportsSelfSupervision(Protocol):
    """Anything that scores a batch of rows."""

    def score(self, batch: torch.Tensor) -> torch.Tensor:
        """Score of each row, shape (n,); higher is more abnormal."""
        ...


class SelfSupervisionModule(L.LightningModule, ABC, SupportsSelfSupervision):
    """Trains a network with a loss for each region, and recalibrates every `every_n_epochs` epochs.

    A subclass says how rows are scored and what each region's loss is.

    Attributes:
        scoring_dtype: what the final weights score in, in training and in the exported graph. Double precision
            where a score lives on differences that single precision has no digits for; twice as slow.
        scoring_values: features scored at once, as `SCORING_VALUES`.
        thresholds: scores that decide in test: above one is called an anomaly.
        training_scores: of the final weights, shape (n,), float64, in the order of the training rows.
        recalibrations: what figures need of each, where training logs to MLflow.
        epoch_loss: sum of the losses of the epoch's batches so far, shape ().
        epoch_batches: how many batches these are.
    """

    scoring_dtype: torch.dtype = torch.float64
    scoring_values: int = SCORING_VALUES

    def __init__(
        self,
        model: nn.Module,
        every_n_epochs: int,
        confidence_estimator: SupportsConfidenceEstimation,
        distr_analyzer: SupportsDistributionAnalysis,
        threshold_strategy: Literal["auto", "manual"] = "auto",
        manual_threshold: float = 0.5,
        learning_rate: float = LEARNING_RATE,
    ) -> None:
        """Put the parts together.

        Args:
            model: the network.
            every_n_epochs: epochs between recalibrations, at least 1.
            confidence_estimator: score and intervals to confidence.
            distr_analyzer: scores to intervals.
            threshold_strategy: `auto` tests at the two ends of the unknown interval, `manual` at
                `manual_threshold`.
            manual_threshold: a score.
            learning_rate: of Adam, above 0.

        Raises:
            ValueError: a value out of its range.
        """
        super().__init__()
        whole = isinstance(every_n_epochs, Integral) and every_n_epochs >= 1
        named = threshold_strategy in ("auto", "manual") and not np.isnan(manual_threshold)
        if not (whole and named and 0 < learning_rate < np.inf):
            raise ValueError(
                "every_n_epochs must be a whole number of at least 1, threshold_strategy auto or manual, "
                "manual_threshold a score, and learning_rate above 0, "
                f"got {every_n_epochs}, {threshold_strategy!r}, {manual_threshold} and {learning_rate}"
            )
        self.model = model
        self.every_n_epochs = every_n_epochs
        self.confidence_estimator = confidence_estimator
        self.distr_analyzer = distr_analyzer
        self.threshold_strategy = threshold_strategy
        self.manual_threshold = manual_threshold
        self.learning_rate = learning_rate
        # Not by a subclass's own rule, whose attributes are not there yet.
        self.thresholds: list[float] = SelfSupervisionModule.update_thresholds(self)
        self.epoch_loss = torch.zeros(())
        self.epoch_batches = 0
        self.training_scores = torch.empty(0, dtype=torch.float64)
        self.recalibrations: list[Recalibration] = []
        self._outputs: defaultdict[int, list[torch.Tensor]] = defaultdict(list)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute as every module does, but those of `PLAIN` without asking whether it is a parameter.

        Lightning sets the first more than forty times a step; the asking takes a twentieth of a small network's.
        """
        if name in PLAIN:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    # What a subclass says.

    @property
    @abstractmethod
    def criterion(self) -> Callable[..., torch.Tensor]:
        """What is measured between a row and its reconstruction."""

    @abstractmethod
    def _prediction_score(self, data: torch.Tensor) -> torch.Tensor:
        """Score of each row, shape (n,); higher is more abnormal."""

    @abstractmethod
    def _positive_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        """Loss of each confident-normal row, shape (n,); `confidence` in [DECIDED, 1]."""

    @abstractmethod
    def _negative_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        """Loss of each confident-abnormal row, shape (n,); `confidence` in [-1, -DECIDED]."""

    @abstractmethod
    def _uncertain_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        """Loss of each undecided row, shape (n,)."""

    def compute_loss(self, data: torch.Tensor, confidence: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Mean over the batch of each row's loss, by the region its confidence puts it in.

        Args:
            data: features, shape (n, d).
            confidence: shape (n,), in [-1, 1].
            batch_idx: number of the batch in its epoch.
        """
        loss = mean_loss(data, confidence, self._positive_loss, self._negative_loss, self._uncertain_loss)
        return self._part_of_batch(loss, len(data))

    @property
    def processes(self) -> int:
        """How many train together."""
        return 1 if self._trainer is None else self._trainer.world_size

    def mean_over_processes(self, own: torch.Tensor) -> torch.Tensor:
        """Mean of what each of several processes has, a tensor that is overwritten; all of them must ask.

        The gradient is the mean of theirs. So a sum over a part of a batch is divided by such a mean of the parts'
        numbers of rows: the mean of these quotients is the mean over the whole batch.
        """
        distributed.all_reduce(own)
        return own / self.processes

    def _part_of_batch(self, loss: torch.Tensor, rows: int) -> torch.Tensor:
        """A mean over these rows, of which the processes' mean is that over the whole batch, however it is divided."""
        if self.processes == 1:
            return loss
        return loss * rows / self.mean_over_processes(torch.tensor(float(rows), device=loss.device))

    def score(self, batch: torch.Tensor) -> torch.Tensor:
        """Score of each row of `batch`, features of shape (n, d): shape (n,), higher is more abnormal."""
        return self._prediction_score(batch).reshape(-1)

    def feature_errors(self, data: torch.Tensor) -> torch.Tensor:
        """How much each feature deviates from what the network expects: squared residuals, shape (n, d)."""
        output = self.model(data)
        reconstruction = output[0] if isinstance(output, tuple) else output
        return cast("torch.Tensor", (data - reconstruction) ** 2)

    def prepare_scoring(self, datamodule: SelfSupervisionDataModule) -> None:
        """Learn from the training rows what scoring compares a row with; by default nothing."""

    # Scores and intervals.

    def score_rows(self, batches: Iterable[Any], dtype: torch.dtype | None = None) -> torch.Tensor:
        """Score rows in evaluation mode, in the order given; training goes on in the precision it had.

        Args:
            batches: dicts with `data`, pairs, or features alone.
            dtype: what is computed in; None: `scoring_dtype`, whose scores are those of the exported graph.

        Returns:
            Shape (n,), float64, on the CPU.

        Raises:
            ValueError: `score` does not give one score a row.
        """
        # mps has no float64
        dtype = torch.float32 if self.device.type == "mps" else dtype or self.scoring_dtype
        score = self._score_in(dtype)
        was_training = self.training
        self.eval()
        # One growing piece of memory: thousands of small ones would pin the large ones between them.
        scores = array("d")
        try:
            # Not in what a trainer casts to: thresholds and scores are of one precision.
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                for batch in batches:
                    rows = data_and_label(batch)[0]
                    for part in torch.split(rows, self._at_once(rows)):
                        scored = score(part.to(self.device, dtype)).to("cpu", torch.float64)
                        self._check_one_a_row(scored, len(part))
                        scores.frombytes(scored.numpy().tobytes())
        finally:
            self.train(was_training)
        return torch.frombuffer(scores, dtype=torch.float64) if scores else torch.empty(0, dtype=torch.float64)

    def _check_one_a_row(self, scored: torch.Tensor, rows: int) -> None:
        if scored.numel() != rows:  # of a number for the whole batch, say, every row would get the confidence
            raise ValueError(
                f"{type(self).__name__} gives {scored.numel()} score(s) for {rows} row(s), expected one a row; reduce "
                "what it measures over all dimensions but the first."
            )

    def _at_once(self, rows: torch.Tensor) -> int:
        """How many of these rows are scored at once."""
        values = self.scoring_values if self.device.type == "cpu" else GPU_SCORING_VALUES
        return max(SCORING_ROWS, values // max(rows.shape[1:].numel(), 1))

    def _score_in(self, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
        """What scores rows in `dtype`: `score` itself, where the weights are of that type already."""
        scorer = _Scorer(self)
        state = dict([*scorer.named_parameters(), *scorer.named_buffers()])
        other = {name: tensor for name, tensor in state.items() if tensor.is_floating_point() and tensor.dtype != dtype}
        if not other:
            return self.score
        return partial(torch.func.functional_call, scorer, {name: tensor.to(dtype) for name, tensor in other.items()})

    def update_confidence(
        self, datamodule: SelfSupervisionDataModule, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Recalibrate: score the training rows, cut the distribution, set each row's confidence.

        What scoring compares rows with is prepared first, from the confidence in force. Of several processes
        each scores its stretch of the rows, and all cut the same distribution.

        Args:
            datamodule: the training rows.
            dtype: what scores are computed in; None as they are served, which those of the final weights need.

        Returns:
            The training rows' scores in dataset order, shape (n,), float64.

        Raises:
            TrainingError: a score is not finite.
        """
        self.prepare_scoring(datamodule)
        stretch = self.score_rows(datamodule.supervision_dataloader(), dtype)
        scores = self._joined(stretch, len(datamodule.train))
        if not torch.isfinite(scores).all():
            raise TrainingError(
                f"{int((~torch.isfinite(scores)).sum())} training rows have no finite score at epoch "
                f"{self.current_epoch}; lower the learning rate (now {self.learning_rate:g})."
            )
        self.confidence_estimator.configuration = self.distr_analyzer.analyze_distribution(
            scores, self.confidence_estimator.configuration
        )
        fit_estimator(self.confidence_estimator, scores)
        confidence = self.confidence_estimator.estimate_confidence(scores)
        datamodule.train.confidence.copy_(confidence)
        self.thresholds = self.update_thresholds()
        return scores

    def _joined(self, stretch: torch.Tensor, rows: int) -> torch.Tensor:
        """Scores of all `rows` from each process's stretch of them, which are of one size but for the last ones."""
        if self.processes == 1:
            return stretch
        padded = torch.zeros(-(-rows // self.processes), dtype=stretch.dtype)
        padded[: len(stretch)] = stretch
        return self._of_all(padded).flatten()[:rows]

    def _of_all(self, own: torch.Tensor) -> torch.Tensor:
        """What each process has, in the order of their ranks, shape (processes, *own.shape); all are of one shape."""
        gathered: torch.Tensor = self.trainer.strategy.all_gather(own.to(self.device))
        return gathered.cpu()

    def update_thresholds(self) -> list[float]:
        """Scores at which to test, ascending: the ends of the unknown interval if there is one, or the manual one."""
        configuration = self.confidence_estimator.configuration
        if self.threshold_strategy == "manual":
            return [self.manual_threshold]
        if configuration is None:
            return []
        ends = {configuration.thresholds.normal, configuration.thresholds.abnormal}
        return sorted(end for end in ends if np.isfinite(end))

    # Lightning's hooks.

    def forward(self, i: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the network gives for features of shape (n, d)."""
        return self.model(i, *args, **kwargs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all parameters, in one kernel for all of them: small networks wait for calls, not for sums.

        Not so where gradients are clipped, which Lightning refuses such an Adam in half precision.
        """
        clips = self._trainer is not None and self._trainer.gradient_clip_val is not None
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate, fused=not clips)

    def configure_callbacks(self) -> Sequence[L.Callback]:
        """The callback that recalibrates, unless the trainer has one."""
        from ssad.modules.self_supervision_callback import SelfSupervisionCallback  # which knows this class

        callbacks: list[Any] = getattr(self.trainer, "callbacks", [])
        present = any(isinstance(callback, SelfSupervisionCallback) for callback in callbacks)
        return [] if present else [SelfSupervisionCallback()]

    def training_step(self, batch: Batch, batch_idx: int, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Loss of one batch, of any type of number: it is computed in that of the weights, as scores are."""
        data = batch["data"]
        if data.dtype != torch.float32:  # the weights take a twentieth of a small network's step to ask
            data = data.to(next(self.parameters(), data).dtype)
        loss = self.compute_loss(data, batch["confidence"], batch_idx)
        # Added up: thousands of small tensors that stay keep the memory of large ones around them from being reused.
        self.epoch_loss = loss.detach() + self.epoch_loss if batch_idx else loss.detach()
        self.epoch_batches = batch_idx + 1
        return loss

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Forget the gradients, as `zero_grad` does, without what torch does around it to profile and compile it."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip as the trainer is told to; where it is not, there is nothing to look up."""
        if gradient_clip_val is not None:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the intervals in force, and what scores are computed in."""
        found = self.confidence_estimator.configuration
        ends = None if found is None else asdict(found.thresholds) | {"decision": found.decision}
        checkpoint[INTERVALS], checkpoint[PRECISION] = ends, self.scoring_dtype

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the intervals; make room for what scoring compares rows with, whose size training decides."""
        ends = checkpoint[INTERVALS]
        self.confidence_estimator.configuration = (
            None if ends is None else ConfidenceIntervalsConfiguration.from_thresholds(**ends)
        )
        self.thresholds = self.update_thresholds()
        self.scoring_dtype = checkpoint[PRECISION]
        known = checkpoint["state_dict"]
        for name in [name for name, _ in self.named_buffers() if name in known]:
            owner, _, leaf = name.rpartition(".")
            setattr(self.get_submodule(owner), leaf, torch.empty_like(known[name]))

    def on_validation_epoch_start(self) -> None:
        """Forget the rows of a validation that was cut off."""
        self._outputs.clear()

    def on_test_epoch_start(self) -> None:
        """Forget the rows of a test that was cut off."""
        self._outputs.clear()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score one batch."""
        self._collect(batch, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score one batch."""
        self._collect(batch, dataloader_idx)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
        """Scores of one batch, shape (n,), float64."""
        return self.score_rows([data_and_label(batch)[0]])

    def on_validation_epoch_end(self) -> None:
        """Log `val_auc`, `val_ap` and the decision metrics at the highest threshold, where rows are labelled.

        Before a recalibration has set a threshold no row is called an anomaly: `val_f1` is 0. It is logged all the
        same, as callbacks that watch it need it from the first epoch on.
        """
        scores, labels = self._collected(self.trainer.val_dataloaders)
        if self.trainer.sanity_checking or not _measurable(scores, labels):
            return
        threshold = self.thresholds[-1] if self.thresholds else np.inf
        metrics = ranking_metrics(scores, labels) | decision_metrics(scores > threshold, labels)
        self.log_dict({f"val_{name}": value for name, value in metrics.items()}, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics at each threshold and the curves, where rows are labelled."""
        scores, labels = self._collected(self.trainer.test_dataloaders)
        if not np.isfinite(scores).all():
            logger.warning("some of the test rows' scores are not finite: there are no test metrics")
            return
        if not _measurable(scores, labels):
            _say_unmeasurable(labels)
            return
        thresholds = self.thresholds or self.update_thresholds()
        if not thresholds:
            logger.warning("no recalibration has set thresholds: the test metrics are those of the ranking alone")
        at_thresholds = [self.compute_test_metrics(scores, labels, threshold) for threshold in thresholds]
        highest = at_thresholds[-1] if at_thresholds else ranking_metrics(scores, labels)
        self.log_dict({f"test_{name}": value for name, value in highest.items()}, sync_dist=True)
        mlf_logger = to_mlflow.get_mlflow_logger(self.trainer)
        if mlf_logger is not None and self.trainer.is_global_zero:
            to_mlflow.log_test_results(scores, labels, at_thresholds, mlf_logger)

    def compute_test_metrics(self, scores: Floats, labels: Labels, threshold: float) -> dict[str, float]:
        """Metrics when rows that score above `threshold` are called anomalies; labels are 0 or 1."""
        return threshold_metrics(scores, labels, threshold)

    def _collect(self, batch: Any, loader: int) -> None:
        data, labels = data_and_label(batch)
        labels = torch.full((len(data),), UNLABELLED) if labels is None else labels
        known = labels.reshape(-1).double().cpu().nan_to_num(nan=UNLABELLED)
        pairs = torch.stack([self.score_rows([data]), known], dim=1)
        self._outputs[loader].append(pairs)

    def _collected(self, loaders: Any) -> tuple[Floats, Labels]:
        """Score and label of every row of these loaders, once each, shape (n,); the same in every process."""
        flat = CombinedLoader(loaders, "sequential").flattened
        pairs = torch.cat([self._rows_of(flat[at], torch.cat(own)) for at, own in self._outputs.items()])
        self._outputs.clear()
        scores, labels = pairs.T.numpy()
        return scores, labels.astype(np.int64)

    def _rows_of(self, loader: Any, own: torch.Tensor) -> torch.Tensor:
        """What all processes found for a loader's rows, shape (n, ...), from what this one did, shape (m, ...)."""
        sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", getattr(loader, "sampler", None))
        if not isinstance(sampler, DistributedSampler) or sampler.num_replicas == 1:
            return own  # nobody dealt them out: each process has all rows
        # Dealt out to the processes in turn; the sampler repeats rows at the end so that each has as many.
        rows = cast("Sized", sampler.dataset)
        return self._of_all(own).transpose(0, 1).flatten(0, 1)[: len(rows)]


Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def mean_loss(
    rows: torch.Tensor, confidence: torch.Tensor, positive: Loss, negative: Loss, uncertain: Loss
) -> torch.Tensor:
    """Mean over a batch of each row's loss, by the region its confidence puts it in.

    Args:
        rows: what the losses are given of each row, shape (n, ...).
        confidence: shape (n,), in [-1, 1].
        positive: loss of confident-normal rows (m, ...) with their confidence (m,): shape (m,).
        negative: of confident-abnormal ones.
        uncertain: of undecided ones.
    """
    normal, abnormal = confidence >= DECIDED, confidence <= -DECIDED
    parts = ((normal, positive), (abnormal, negative), (~(normal | abnormal), uncertain))
    members = [(part.nonzero().flatten(), loss) for part, loss in parts]
    losses = [loss(rows.index_select(0, at), confidence[at]).reshape(-1) for at, loss in members if len(at)]
    return torch.cat(losses).mean()


# Lightning looks at it before every step, and Python would work it out anew each time.
STEP = SelfSupervisionModule.training_step
setattr(STEP, "__signature__", signature(STEP))  # noqa: B010 - mypy knows functions without that attribute


class _Scorer(nn.Module):
    """A module's score as a forward pass, which is what torch can call with other tensors."""

    def __init__(self, module: SelfSupervisionModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return self.module.score(data)


def _say_unmeasurable(labels: Labels) -> None:
    """Tell that labels measure nothing; where nobody labelled the rows, nobody expects them to."""
    kinds = np.unique(labels)
    labelled = (kinds != UNLABELLED).any()
    found = ", ".join(map(str, kinds[:SHOWN_LABELS])) + (", ..." if len(kinds) > SHOWN_LABELS else "")
    logger.log(
        logging.WARNING if labelled else logging.INFO,
        "the test rows' labels are %s, expected both 0 (normal) and 1 (anomaly), no other: there are no test metrics",
        found,
    )


def _measurable(scores: Floats, labels: Labels) -> bool:
    known = bool(np.isin(labels, (0, 1)).all())
    return known and has_both_classes(labels) and bool(np.isfinite(scores).all())
