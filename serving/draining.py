"""Ending without cutting anybody off: unready first, closed a while later."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from serving.state import Service


def drain_on_sigterm(service: Service) -> None:
    """From now on the first SIGTERM makes the service unready; the server's own handler gets it after the pause.

    Load balancers need that time to see it and send their requests elsewhere. Call it when the server has set
    its handler; in another thread than the main one, where no process gets signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    closing = signal.getsignal(signal.SIGTERM)

    def drain(number: int, frame: FrameType | None) -> None:
        if not callable(closing):
            return
        if service.draining:
            closing(number, frame)
            return
        service.draining = True
        pause = threading.Timer(service.settings.drain_seconds, closing, (number, frame))
        pause.daemon = True
        pause.start()

    signal.signal(signal.SIGTERM, drain)
