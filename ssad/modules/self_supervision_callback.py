"""When training recalibrates, what it logs of that, when it stops, and what it leaves for after a crash."""

from __future__ import annotations

import time
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import distributed

from ssad.bundle import Thresholds
from ssad.datamodules import SelfSupervisionDataModule
from ssad.errors import TrainingError
from ssad.loggers import mlflow_logger as to_mlflow
from ssad.loggers.training_figures import Recalibration, sampled
from ssad.modules.self_supervision_module import SelfSupervisionModule

SETTLED_SHARE = 0.001
"""Regions have settled when a recalibration moves at most one row in a thousand to another region."""

SETTLED_RECALIBRATIONS = 2
"""So many in a row: one may be still by chance."""


class SelfSupervisionCallback(L.Callback):
    """Recalibrates a `SelfSupervisionModule` while it trains, and logs what came of it.

    After the epochs whose number, counted from 0, is a multiple of `every_n_epochs` above 0, and once more from
    the final weights: the intervals left behind are always those of the final weights, in the precision in which
    they are served. Those on the way only steer training, and are computed in float32. Where the trainer logs to
    MLflow each of them leaves a checkpoint in the run, from which training goes on after a crash to the same end.
    """

    def __init__(self, stop_when_settled: bool = False) -> None:
        """Say whether training may end before `max_epochs`, when the rows' regions have settled."""
        self.stop_when_settled = stop_when_settled
        self._begin()

    def _begin(self) -> None:
        self._epoch_start = 0.0
        self._codes: torch.Tensor | None = None
        self._settled = 0
        self._history: list[Recalibration] = []
        self._random_states: list[dict[str, torch.Tensor]] = []
        self._resumed_states: list[dict[str, torch.Tensor]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Know nothing of a training before this one; of one that was cut off, `load_state_dict` tells after this."""
        if stage == "fit":
            self._begin()
            # After those that change the weights at the end, as averaging does, and before those that save them.
            hooks: Any = trainer  # which has no type for them
            hooks.callbacks = sorted(hooks.callbacks, key=lambda one: 2 * isinstance(one, Checkpoint) + (one is self))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: the rows' regions, how long they are settled, the figures' data, all random states."""
        history = [step.to_plain() for step in self._history]
        return {
            "codes": self._codes,
            "settled": self._settled,
            "history": history,
            "random_states": self._random_states,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._codes, self._settled = state_dict["codes"], state_dict["settled"]
        self._history = [Recalibration.from_plain(step) for step in state_dict["history"]]
        self._resumed_states = state_dict["random_states"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that module and data module are the ones this callback knows.

        Raises:
            TypeError: the trainer fits something else.
        """
        datamodule = _datamodule(trainer)
        if not isinstance(pl_module, SelfSupervisionModule) or not isinstance(datamodule, SelfSupervisionDataModule):
            raise TypeError(
                "self-supervision needs a SelfSupervisionModule and a SelfSupervisionDataModule, got "
                f"{type(pl_module).__name__} and {type(datamodule).__name__}; "
                "wrap the data module: SelfSupervisionDataModule(datamodule)"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Train no further if the checkpoint that training goes on from was the last."""
        if self._has_settled:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock; after a crash, draw the random numbers that would have been drawn."""
        self._epoch_start = time.monotonic()
        if self._resumed_states:
            _set_random_state(self._resumed_states[trainer.global_rank % len(self._resumed_states)])
            self._resumed_states = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check and log the epoch's loss; recalibrate when it is time.

        Raises:
            TrainingError: the loss is not finite.
        """
        module, epoch = cast("SelfSupervisionModule", pl_module), trainer.current_epoch
        _log_loss(trainer, module)
        mlf_logger = to_mlflow.get_mlflow_logger(trainer)
        if mlf_logger is not None:
            seconds = {"epoch_duration_seconds": time.monotonic() - self._epoch_start}
            mlf_logger.log_metrics(seconds, step=epoch)
            to_mlflow.log_system_metrics(mlf_logger, epoch)
        last = epoch + 1 == trainer.max_epochs  # after which `on_train_end` recalibrates
        recalibrates = epoch != 0 and epoch % module.every_n_epochs == 0 and not last
        if recalibrates:
            self._recalibrate(trainer, module, epoch, torch.float32)
            if self._has_settled:
                trainer.should_stop = True
        # All processes are here; one that saves a checkpoint may be alone.
        self._random_states = _random_states()
        if recalibrates:
            to_mlflow.log_checkpoint(trainer, epoch // module.every_n_epochs)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Recalibrate from the final weights."""
        module = cast("SelfSupervisionModule", pl_module)
        module.training_scores = self._recalibrate(trainer, module, trainer.current_epoch - 1)
        module.recalibrations = self._history
        mlf_logger = to_mlflow.get_mlflow_logger(trainer)
        if mlf_logger is not None and self._history:
            to_mlflow.log_history(self._history, mlf_logger)

    @property
    def _has_settled(self) -> bool:
        return self.stop_when_settled and self._settled >= SETTLED_RECALIBRATIONS

    def _recalibrate(
        self, trainer: L.Trainer, module: SelfSupervisionModule, epoch: int, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Recalibrate, log what came of it, and give the training rows' scores."""
        datamodule = cast("SelfSupervisionDataModule", _datamodule(trainer))
        before = sampled(datamodule.train.confidence.numpy())
        scores = module.update_confidence(datamodule, dtype)
        configuration = module.confidence_estimator.configuration
        if configuration is None:
            return scores
        changed = self._changed(configuration.thresholds, scores)
        mlf_logger = to_mlflow.get_mlflow_logger(trainer)
        if mlf_logger is None or not trainer.is_global_zero:
            return scores
        after = sampled(datamodule.train.confidence.numpy())
        self._history.append(Recalibration.of(epoch, configuration.thresholds, scores.numpy(), before, after))
        mlf_logger.log_metrics(changed, step=epoch)
        to_mlflow.log_regions(configuration.thresholds, scores.numpy(), mlf_logger, epoch)
        to_mlflow.log_confidence_analysis(module.distr_analyzer, mlf_logger, epoch)
        to_mlflow.log_confidence_intervals(module.confidence_estimator, mlf_logger, epoch)
        to_mlflow.log_confidence(mlf_logger, datamodule.train, epoch)
        return scores

    def _changed(self, thresholds: Thresholds, scores: torch.Tensor) -> dict[str, float]:
        """Share of the rows that this recalibration moved to another region, as a metric; none for the first."""
        before, self._codes = self._codes, torch.from_numpy(thresholds.codes(scores.numpy()))
        if before is None or len(before) != len(self._codes):
            return {}
        share = float((before != self._codes).float().mean())
        self._settled = self._settled + 1 if share <= SETTLED_SHARE else 0
        return {"region_changes": share}


def _log_loss(trainer: L.Trainer, module: SelfSupervisionModule) -> None:
    """Log the mean loss of the epoch's batches, over all processes; they stop together if it is not finite."""
    if not module.epoch_batches:
        return
    loss = trainer.strategy.reduce(module.epoch_loss / module.epoch_batches, reduce_op="mean")
    module.epoch_batches, module.epoch_loss = 0, torch.zeros(())  # which stays on no GPU
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss.item()} at epoch {trainer.current_epoch}; lower the learning rate "
            f"(now {module.learning_rate:g}) or look for extreme values in the data."
        )
    module.log("train_loss", loss, prog_bar=True, rank_zero_only=True)


def _random_states() -> list[dict[str, torch.Tensor]]:
    """Torch's random state in every process, by rank; the GPU's is that of the one a process works on."""
    own = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state()
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    states = [own] * distributed.get_world_size()
    distributed.all_gather_object(states, own)
    return states


def _set_random_state(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _datamodule(trainer: L.Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
