"""What is served, as one reference, and what the routes share."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from prometheus_client import Counter

from serving.drift import DriftWindow
from serving.keys import Keys
from serving.metrics import QUANTILES, Metrics
from serving.problems import busy
from serving.settings import Settings
from serving.source import Source
from ssad.bundle import REGIONS, Bundle
from ssad.bundle.intervals import Floats


@dataclass
class Served:
    """A bundle and where it came from: one reference, so that a request never mixes two versions.

    Attributes:
        bundle: what scores.
        source: where it came from.
        window: the last rows it scored.
        region_counters: the metric of each region, in the order of `REGIONS`.
        loaded_at: when it was loaded, seconds since 1970.
    """

    bundle: Bundle
    source: Source
    window: DriftWindow
    region_counters: list[Counter]
    loaded_at: float = field(default_factory=time.time)

    @property
    def label(self) -> tuple[str, str, str, str]:
        """Name, version, alias and run; empty where there is none."""
        s = self.source
        return (s.name or "", s.version or "", s.alias or "", s.run_id or "")

    @cached_property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Response headers that name the version."""
        named = zip((b"x-model-name", b"x-model-version", b"x-model-alias"), self.label, strict=False)
        return [(name, value.encode()) for name, value in named if value]

    @cached_property
    def _bucket_of_bin(self) -> npt.NDArray[np.intp]:
        """For each bin of the training scores the index into `QUANTILES` of its cumulative share."""
        counts = np.asarray(self.bundle.histogram["counts"], np.float64)
        buckets: npt.NDArray[np.intp] = np.searchsorted(QUANTILES, np.cumsum(counts) / counts.sum() - 1e-9)
        return buckets

    @cached_property
    def _cuts(self) -> Floats:
        return np.asarray(self.bundle.histogram["edges"][1:-1], np.float64)

    def quantile_buckets(self, scores: Floats) -> npt.NDArray[np.intp]:
        """For each score the index into `QUANTILES` of its place among the training scores, shape (n,)."""
        buckets: npt.NDArray[np.intp] = self._bucket_of_bin[np.searchsorted(self._cuts, scores)]
        return buckets


class Service:
    """What the routes, the gate and the follower share.

    Attributes:
        settings: as they were read at the start.
        metrics: of this process.
        keys: who may ask.
        pool: threads for bodies too large for the event loop.
        served: what is served now; None until a bundle is loaded.
        draining: whether the process is about to end.
        registry_seen: when the registry last answered, on the monotonic clock; None before that.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.keys = Keys(settings)
        self.pool = ThreadPoolExecutor(max(2, settings.threads), thread_name_prefix="score")
        self.served: Served | None = None
        self.draining = False
        self.registry_seen: float | None = None

    def serve(self, bundle: Bundle, source: Source) -> Served:
        """Answer with this bundle from now on; requests in progress end with the one they began with."""
        counters = [
            self.metrics.predictions.labels(source.name or "", source.version or "", region) for region in REGIONS
        ]
        served = Served(bundle, source, DriftWindow(bundle, self.settings.drift_rows), counters)
        self.served = served
        self.metrics.set_model(served)
        return served

    def current(self) -> Served:
        """What is served now.

        Raises:
            RefusalError: nothing yet.
        """
        if self.served is None:
            raise busy("no model is loaded yet; try again soon.", "not_loaded")
        return self.served

    @property
    def registry_age(self) -> float | None:
        """Seconds since the registry last answered; None where it never did, or is not followed."""
        return None if self.registry_seen is None else time.monotonic() - self.registry_seen

    @property
    def stale(self) -> bool:
        """Whether a followed registry has not answered for three polls: the alias may have moved."""
        if self.served is None or self.served.source.alias is None:
            return False
        age = self.registry_age
        return age is None or age > 3 * (self.settings.poll_seconds + self.settings.registry_timeout_seconds)
