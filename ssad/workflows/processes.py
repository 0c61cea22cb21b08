"""The processes that train along with the first one."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from ssad.errors import SsadError
from ssad.workflows.stopping import Postponed, Stopped

NODE_RANKS = ("NODE_RANK", "GROUP_RANK")
"""Where Lightning and torchrun are told which of the machines this is."""

ENDING_SECONDS = 5.0
"""How long one that broke off the connection may take to end."""


def trains_along(num_nodes: int) -> bool:
    """Whether another process is the first of this training: Lightning started this one, or it is on another machine.

    Args:
        num_nodes: machines that train.
    """
    elsewhere = num_nodes > 1 and any(int(os.environ.get(name) or 0) for name in NODE_RANKS)
    return elsewhere or bool(getattr(rank_zero_only, "rank", 0))


class Processes(L.Callback):
    """Ends the other processes when training fails in the first one.

    Attributes:
        ended: status of one that ended before this process did; 0 if none.
    """

    def __init__(self) -> None:
        self.ended = 0
        self._on_sigterm = signal.getsignal(signal.SIGTERM)
        self._signals = Postponed()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take back what SIGTERM does: Lightning's handler waits for the other processes, which wait for this one."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)
            self._signals.begin()

    def on_train_batch_end(self, *_: Any) -> None:
        """End training between two batches if a signal asked for it."""
        self._signals.check()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last place to do so."""
        self._signals.check()
        self._signals.end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """See whether another process failed first, and end those that are left."""
        others: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
        if others and not isinstance(exception, SsadError | Stopped):
            self.ended = _first_status(others)
        left = others.copy()
        others.clear()  # Lightning looks after them, and would kill this process before it has closed its run
        for process in left:
            process.kill()
            process.wait()


def _first_status(processes: list[subprocess.Popen[bytes]]) -> int:
    deadline = time.monotonic() + ENDING_SECONDS
    while time.monotonic() < deadline:
        for process in processes:
            if process.poll():
                return int(process.returncode)
        time.sleep(0.05)
    return 0
