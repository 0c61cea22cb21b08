"""How many requests one client may send."""

from __future__ import annotations

import math
import time

from serving.problems import RefusalError


class RateLimit:
    """A limit such as `100/second` for each client."""

    def __init__(self, limit: str) -> None:
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import SlidingWindowCounterRateLimiter

        self._limit = parse(limit)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def check(self, client: str) -> None:
        """Count a request of a client.

        Raises:
            RefusalError: it has sent too many.
        """
        if not self._limiter.hit(self._limit, client):
            again = self._limiter.get_window_stats(self._limit, client).reset_time
            seconds = {"Retry-After": str(max(1, math.ceil(again - time.time())))}
            raise RefusalError(429, f"one client may send {self._limit}; wait and try again.", "rate", seconds)
