"""How long a body may take to arrive."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from serving.problems import RefusalError


class Deadline:
    """Cuts off bodies that do not arrive in time; one timer for all, as one each costs more than reading a row."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[asyncio.Task[Any] | None, float] = {}
        self._watched: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._ends[asyncio.current_task(loop)] = loop.time() + self._seconds
        if self._watched is not loop:
            self._watch(loop, self._seconds)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task = asyncio.current_task()
        late = self._ends.pop(task, None) is None
        if late and kind is asyncio.CancelledError:
            if sys.version_info >= (3, 11) and task is not None:
                task.uncancel()  # or the next time limit in this task would take it for its own
            raise RefusalError(408, "the body did not arrive in time; send it faster or in parts.", "slow_body")

    def _watch(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._watched = loop
        loop.call_later(seconds, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what is late; look again when the next one would be."""
        now = loop.time()
        for task in [task for task, end in self._ends.items() if end <= now]:
            del self._ends[task]
            if task is not None:
                task.cancel()
        self._watched = None
        if self._ends:
            self._watch(loop, min(self._ends.values()) - now)
