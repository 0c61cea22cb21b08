"""How long epochs take, without the recalibrations between them."""

from __future__ import annotations

import time
from collections.abc import Callable

import lightning as L

NEVER = 1_000_000
"""Epochs between recalibrations: the input path and the loop alone are timed."""

Epochs = list[float]


class EpochClock(L.Callback):
    """Seconds of every epoch, by `clock`: the processor's unless another is given."""

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self._clock = clock
        self.seconds: Epochs = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = self._clock()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds.append(self._clock() - self._start)
