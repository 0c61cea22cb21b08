"""The processes that train along with the first one."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import Any

import lightning as L
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only

from ssad.errors import USER_MISTAKE, SsadError, TrainingError, how_it_ended
from ssad.workflows.resume import how_to_go_on
from ssad.workflows.stopping import WATCH_SECONDS, Postponed, Stopped, end_now
from ssad.workflows.tracking import tell_the_end

NODE_RANKS = ("NODE_RANK", "GROUP_RANK")
"""Where Lightning and torchrun are told which of the machines this is."""

ENDING_SECONDS = 5.0
"""How long one that broke off the connection may take to end."""

HANGING_SECONDS = 5.0
"""How long one that was seen to have failed may go unnoticed by what waits for it."""


def trains_along(num_nodes: int) -> bool:
    """Whether another process is the first of this training: Lightning started this one, or it is on another machine.

    Args:
        num_nodes: machines that train.
    """
    elsewhere = num_nodes > 1 and any(int(os.environ.get(name) or 0) for name in NODE_RANKS)
    return elsewhere or bool(getattr(rank_zero_only, "rank", 0))


class Processes(L.Callback):
    """Looks after the other processes, and ends them when training fails in the first one.

    Lightning's own observer, which looks every five seconds, kills the first process when it finds another one dead:
    often before that one has told why and closed its run.

    Attributes:
        ended: status of one that ended before this process did; 0 if none.
    """

    def __init__(self, run_id: str | None) -> None:
        """Begin with none; `run_id` is of the run that this process logs to, if it does."""
        self.ended = 0
        self._run_id = run_id
        self._others: list[subprocess.Popen[bytes]] = []
        self._on_sigterm = signal.getsignal(signal.SIGTERM)
        self._signals = Postponed()

    def take_over(self, started: list[subprocess.Popen[bytes]]) -> None:
        """Take the other processes over from Lightning."""
        self._others = started.copy()
        started.clear()  # which ends Lightning's observer
        if self._others:
            threading.Thread(target=self._watch, daemon=True).start()

    def failure(self) -> TrainingError:
        """What is said of one that ended too early."""
        advice = f", and go on with --resume {self._run_id}" if self._run_id else ""
        return TrainingError(f"a process that trains along {how_it_ended(self.ended)}; see what it said{advice}.")

    def stop(self, signum: int) -> None:
        """End this process for a signal that its main thread, which waits for another one, does not hear of."""
        stopped = Stopped(signum)
        stopped.advice = how_to_go_on(self._run_id) if self._run_id else ""
        self._end(128 + signum, "KILLED", str(stopped))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take back what SIGTERM does: Lightning's handler waits for the other processes, which wait for this one."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)
            self._signals.begin()

    def on_train_batch_end(self, *_: Any) -> None:
        """End training between two batches if a signal asked for it."""
        self._signals.check()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last place to do so; from here on the others end by themselves."""
        self._signals.check()
        self._signals.end()
        self._others.clear()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """See whether another process failed first, and end those that are left."""
        self._signals.end()
        if self._others and not isinstance(exception, SsadError | Stopped):
            self.ended = _first_status(self._others)
        left = self._others.copy()
        self._others.clear()
        for process in left:
            process.kill()
            process.wait()

    def _watch(self) -> None:
        """End this process if it goes on waiting for one that is dead, as it may where no connection tells."""
        while self._others and not any(process.poll() for process in self._others):
            time.sleep(WATCH_SECONDS)
        if self._others:
            time.sleep(HANGING_SECONDS)
        if self._others:  # nobody has noticed
            self.ended = _first_status(self._others)
            self._end(USER_MISTAKE, "FAILED", str(self.failure()))

    def _end(self, status: int, state: str, reason: str) -> None:
        """Say why, and end all of them, this one without its main thread, which nothing reaches."""
        tell_the_end(self._run_id, state, reason)
        for process in self._others:
            process.kill()
        end_now(status)


class Together(DDPStrategy):
    """Lightning's, except that the processes it has started are taken over before this one waits for them."""

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self._processes = processes

    def setup_environment(self) -> None:
        """Take the others over, and wait for them."""
        self._processes.take_over(getattr(self.launcher, "procs", []))
        super().setup_environment()


def _first_status(processes: list[subprocess.Popen[bytes]]) -> int:
    deadline = time.monotonic() + ENDING_SECONDS
    while time.monotonic() < deadline:
        for process in processes:
            if process.poll():
                return int(process.returncode)
        time.sleep(0.05)
    return 0
