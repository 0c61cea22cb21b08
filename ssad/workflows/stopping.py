"""SIGTERM and Ctrl-C: a command ends as it was told to, says so in its run, and leaves nothing half done."""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

STOPPING = (signal.SIGINT, signal.SIGTERM)

PATIENCE_SECONDS = 5.0
"""How long a signal's handler may take to be called, and a stopped process to end."""

AGAIN_SECONDS = 0.1
"""After which a signal comes again whose exception Python let through to nobody."""

WATCH_SECONDS = 1.0
"""How often a process that trains along with another looks for it, and that one for those that train along."""

_heard = threading.Event()
"""Whether a signal's handler was called, or none needs to be any more."""


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
    sys.unraisablehook = _unraised


def _unraised(unraised: sys.UnraisableHookArgs) -> None:
    """Send a signal again that came where no exception goes any further, as in a callback of a weak reference."""
    if not isinstance(unraised.exc_value, Stopped):
        sys.__unraisablehook__(unraised)
        return
    stop_by_signals()
    threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.Signals[unraised.exc_value.name])).start()


def leave_stopping_to_another() -> None:
    """From now on `STOPPING` does nothing here: a terminal asks all processes, and the first one ends the others.

    Where that was killed this one ends too: it might wait for it for half an hour, and no signal but SIGKILL end it.
    """
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    end_now(1)


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
        _heard.set()
        self._signum = signum
        for each in STOPPING:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def heard_while_waiting(end: Callable[[int], None]) -> Iterator[None]:
    """Meanwhile call `end`, in another thread, for a signal that the main thread does not hear of.

    Python calls handlers in the main thread between two of its steps, of which there is none while it waits in torch
    for another process. A second signal is waited for no longer.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not _stop:
        yield
        return
    _heard.clear()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(ours, end), daemon=True).start()
    try:
        yield
    finally:
        _heard.set()  # who leaves has ended, or is ending by itself
        signal.set_wakeup_fd(before)
        theirs.close()  # which ends the thread


def _listen(ours: socket.socket, end: Callable[[int], None]) -> None:
    with ours:
        while arrived := ours.recv(1):
            select.select([ours], [], [], PATIENCE_SECONDS)  # for a second signal, or the end of all this
            if arrived[0] in STOPPING and not _heard.is_set():
                end(arrived[0])


def end_soon(stop: Stopped) -> None:
    """End this process within `PATIENCE_SECONDS` though a thread never ends by itself.

    One that a pool was starting when the signal came is known to nobody: it waits for work for ever, and Python for it.
    """
    timer = threading.Timer(PATIENCE_SECONDS, end_now, [stop.code])
    timer.daemon = True
    timer.start()


def end_now(status: int) -> None:
    """End this process whatever its main thread does; its temporary files go, for which it has `PATIENCE_SECONDS`."""
    clearing = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    clearing.start()
    clearing.join(PATIENCE_SECONDS)
    os._exit(status)


def too_late_to_stop() -> None:
    """What is left is a second's work that must not be left half done: do not stop any more."""
    for signum in STOPPING:
        if signal.getsignal(signum) is _stop:
            signal.signal(signum, signal.SIG_IGN)


def _stop(signum: int, frame: Any) -> NoReturn:
    _heard.set()
    for each in STOPPING:
        signal.signal(each, signal.SIG_DFL)
    raise Stopped(signum)
