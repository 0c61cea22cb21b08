"""The state of one process: what is served, and the settings, keys, metrics and threads that all parts share."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from serving.deadline import Deadline
from serving.drift import DriftWindow
from serving.keys import Keys
from serving.metrics import Metrics
from serving.problems import busy
from serving.served import Served
from serving.settings import Settings
from serving.source import Source, Version
from ssad.bundle import Bundle
from ssad.bundle.bundle import CORES

POOL_THREADS = 2
"""Large bodies that are decoded at once: each may take its limit of memory."""


class Service:
    """What the routes, the gate and the follower share.

    Attributes:
        settings: as they were read at the start.
        metrics: of this process.
        keys: who may ask.
        deadline: of bodies to arrive.
        pool: threads for bodies too large for the event loop, which decode and write.
        scorers: threads that score parts of those, as many as cores may be used.
        served: what is served now; None until a bundle is loaded.
        draining: whether the process is about to end.
        registry_seen: when the registry last told a version, on the monotonic clock; None before that.
        refused: the version that should be served and was refused; None where there is none.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.keys = Keys(settings)
        self.deadline = Deadline(settings.timeout_seconds)
        self.pool = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="body")
        self.scorers = ThreadPoolExecutor(settings.threads or CORES, thread_name_prefix="score")
        self.served: Served | None = None
        self.draining = False
        self.registry_seen: float | None = None
        self.refused: Version | None = None

    def serve(self, bundle: Bundle, source: Source) -> None:
        """Answer with this bundle from now on; requests in progress end with the one they began with."""
        self.served = Served(bundle, source, DriftWindow(bundle, self.settings.drift_rows))
        self.refused = None
        self.metrics.set_model(self.served)

    def current(self) -> Served:
        """What is served now.

        Raises:
            RefusalError: nothing yet.
        """
        if self.served is None:
            raise busy("no model is loaded yet; try again soon.", "not_loaded")
        return self.served

    @property
    def ready(self) -> bool:
        """Whether requests should be sent: a model is loaded, and the process is not about to end."""
        return self.served is not None and not self.draining

    @property
    def registry_age(self) -> float | None:
        """Seconds since the registry last told a version; None where it never did, or is not followed."""
        return None if self.registry_seen is None else time.monotonic() - self.registry_seen

    @property
    def stale(self) -> bool:
        """Whether a followed registry has told no version for three polls: the alias may have moved, or is gone."""
        if self.served is None or self.served.source.alias is None:
            return False
        age = self.registry_age
        return age is None or age > 3 * (self.settings.poll_seconds + self.settings.registry_timeout_seconds)

    @property
    def following(self) -> dict[str, Any]:
        """How the registry is followed, as plain JSON."""
        return {
            "stale": self.stale,
            "registry_age_seconds": self.registry_age,
            "refused_version": self.refused.number if self.refused else None,
        }
