"""SIGTERM and Ctrl-C: a command ends as it was told to, says so in its run, and leaves nothing half done."""

from __future__ import annotations

import signal
from typing import Any, NoReturn

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(SystemExit):
    """A signal asks this process to end; no `Exception`, so that nothing on the way takes it for a failure.

    Attributes:
        advice: how to go on; empty where there is nothing to go on with.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)  # as a shell tells it
        self.name = signal.Signals(signum).name
        self.advice = ""

    def __str__(self) -> str:
        return f"stopped by {self.name}" + (f"; {self.advice}" if self.advice else "")


def stop_by_signals() -> None:
    """From now on `STOPPING` raises `Stopped`, unless it was ignored; a second signal ends the process at once."""
    for signum in STOPPING:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _stop)


def leave_stopping_to_another() -> None:
    """From now on `STOPPING` does nothing here: a terminal asks all processes, and the first one ends the others."""
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)


class Postponed:
    """Signals wait for `check`: raised in the middle of a transaction, `Stopped` would leave its store locked."""

    def __init__(self) -> None:
        self._signum = 0

    def begin(self) -> None:
        """From now on they wait."""
        for signum in STOPPING:
            if signal.getsignal(signum) is _stop:
                signal.signal(signum, self._note)

    def check(self) -> None:
        """Raise `Stopped` if there was one."""
        if self._signum:
            raise Stopped(self._signum)

    def end(self) -> None:
        """From now on they do not wait."""
        for signum in STOPPING:
            if signal.getsignal(signum) == self._note:
                signal.signal(signum, _stop)

    def _note(self, signum: int, frame: Any) -> None:
        self._signum = signum
        for each in STOPPING:
            signal.signal(each, signal.SIG_DFL)


def too_late_to_stop() -> None:
    """What is left is a second's work that must not be left half done: do not stop any more."""
    for signum in STOPPING:
        if signal.getsignal(signum) is _stop:
            signal.signal(signum, signal.SIG_IGN)


def _stop(signum: int, frame: Any) -> NoReturn:
    for each in STOPPING:
        signal.signal(each, signal.SIG_DFL)
    raise Stopped(signum)
