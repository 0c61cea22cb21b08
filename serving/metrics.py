"""What the service counts, by Prometheus' names and units."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
from collections import Counter as Tally
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from serving.served import Served
from serving.settings import MULTIPROCESS
from ssad.bundle import REGIONS, Drift, Scores
from ssad.bundle.intervals import Floats

Item = TypeVar("Item")

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets of durations: from half a millisecond, a row's answer, to the default time limit."""

QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Buckets of scores, by their place among the training scores: the same for every version, each holding its
share of rows while nothing drifts."""

ROWS = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)

STAGES = ("decode", "score", "write")

PENDING = 256
"""Requests, or rows of one, from which on they are put into the metrics without waiting for more."""

SHARED = ("counter", "histogram", "gauge_livesum", "gauge_mostrecent")
"""What the files are called in which prometheus_client counts, one of each for a worker."""

SHARED_BYTES = 1 << 18
"""Size of such a file, which has room for a thousand series; one that needs more grows as the library has it."""

MAX_DRIFT_COLUMNS = 100
"""Columns that have a drift metric of their own, those that drifted most; more would be too many series."""


class Metrics:
    """The metrics of one process, in a registry of their own.

    Attributes:
        running: requests being answered.
    """

    def __init__(self) -> None:
        self.running = 0
        self._told: list[tuple[str, str, str, str]] = []
        self._drifting: set[str] = set()
        self._telling = threading.Lock()
        self._registry = CollectorRegistry()
        self._answered: deque[tuple[str, str, int, float]] = deque()
        self._scored: deque[tuple[Served, Scores, tuple[float, float, float]]] = deque()
        self._add_http()
        self._add_scoring()
        self._add_gauges()

    def _add_http(self) -> None:
        own = self._registry
        self.requests = Counter("http_requests", "Requests answered.", ["method", "handler", "status"], registry=own)
        self.seconds = Histogram(
            "http_request_duration_seconds", "Time to answer.", ["handler"], buckets=SECONDS, registry=own
        )
        self.in_progress = Gauge(
            "http_requests_in_progress", "Requests being answered.", multiprocess_mode="livesum", registry=own
        )
        self.rejected = Counter("ssad_requests_rejected", "Requests refused.", ["reason"], registry=own)

    def _add_scoring(self) -> None:
        own = self._registry
        self.stages = Histogram(
            "ssad_stage_duration_seconds", "Time in a stage of scoring.", ["stage"], buckets=SECONDS, registry=own
        )
        self.predictions = Counter("ssad_predictions", "Rows scored.", ["model", "version", "region"], registry=own)
        self.score = Histogram(
            "ssad_score_training_quantile", "Place among the training scores.", buckets=QUANTILES, registry=own
        )
        self.rows = Histogram("ssad_request_rows", "Rows of a request.", buckets=ROWS, registry=own)
        self.reloads = Counter("ssad_model_reloads", "Versions, by what became of them.", ["result"], registry=own)
        self.polls = Counter("ssad_registry_polls", "Looks at the registry.", ["result"], registry=own)

    def _add_gauges(self) -> None:
        def gauge(name: str, meaning: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, meaning, labels, registry=self._registry, multiprocess_mode="mostrecent")

        self.info = gauge("ssad_model_info", "The version served.", ("name", "version", "alias", "run_id"))
        self.loaded = gauge("ssad_model_loaded_timestamp_seconds", "When it was loaded.")
        self.registry_age = gauge("ssad_registry_age_seconds", "Time since the registry last told a version.")
        self.drift_rows = gauge("ssad_drift_window_rows", "Recent rows that are compared with the training rows.")
        self.drift_psi = gauge("ssad_drift_score_psi", "Population stability index of the scores.")
        self.drift_ks = gauge("ssad_drift_score_ks", "Kolmogorov-Smirnov statistic of the scores.")
        self.drift_columns = gauge("ssad_drift_column_psi", "Population stability index of a column.", ("column",))
        self.shares = gauge("ssad_region_share", "Share of rows in a region.", ("region", "rows"))

    def count_request(self, method: str, handler: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._answered.append((method, handler, status, seconds))
        if len(self._answered) >= PENDING:
            self.fold()

    def count_scores(self, served: Served, scores: Scores, seconds: tuple[float, float, float]) -> None:
        """Count rows that were scored, and the seconds each of `STAGES` took."""
        self._scored.append((served, scores, seconds))
        if len(scores.score) >= PENDING:
            self.fold()

    def fold(self) -> None:
        """Put what is pending into the metrics; together it costs a fraction of one request after the other."""
        self.in_progress.set(self.running)
        answered, scored = _drained(self._answered), _drained(self._scored)
        for labels, count in Tally(item[:3] for item in answered).items():
            self.requests.labels(*labels).inc(count)
        for handler in {item[1] for item in answered}:
            _observe_all(self.seconds.labels(handler), SECONDS, [item[3] for item in answered if item[1] == handler])
        for at, stage in enumerate(STAGES):
            _observe_all(self.stages.labels(stage), SECONDS, [seconds[at] for _, _, seconds in scored])
        _observe_all(self.rows, ROWS, [len(scores.score) for _, scores, _ in scored])
        for served in {id(served): served for served, _, _ in scored}.values():
            self._fold_scores(served, [scores for other, scores, _ in scored if other is served])

    def _fold_scores(self, served: Served, scores: list[Scores]) -> None:
        codes = np.concatenate([part.codes for part in scores])
        for region, count in zip(REGIONS, np.bincount(codes, minlength=len(REGIONS)).tolist(), strict=True):
            self.predictions.labels(*served.label[:2], region).inc(count)
        score = np.concatenate([part.score for part in scores])
        _observe_all(self.score, QUANTILES, served.bundle.reference.quantiles(score))

    def set_model(self, served: Served) -> None:
        """Tell which version is served."""
        for label in self._told:
            self.info.labels(*label).set(0)  # which other workers see: a series in a shared file cannot be removed
        self.info.clear()
        self._told = [served.label]
        self.info.labels(*served.label).set(1)
        self.loaded.set(served.loaded_at)

    def set_drift(self, drift: Drift) -> None:
        """Tell how far recent rows have moved."""
        self.drift_rows.set(drift.rows)
        self.drift_psi.set(drift.score_psi)
        self.drift_ks.set(drift.score_ks)
        told = dict(drift.moved[:MAX_DRIFT_COLUMNS])
        with self._telling:  # two may scrape at once
            for column in self._drifting.difference(told):
                self.drift_columns.labels(column).set(math.nan)  # as with a version that other workers see
                self.drift_columns.remove(column)
            self._drifting = set(told)
            for column, index in told.items():
                self.drift_columns.labels(column).set(index)
        for rows, shares in (("recent", drift.region_shares), ("training", drift.training_region_shares)):
            for region in REGIONS:  # there are none of no rows
                self.shares.labels(region, rows).set(shares.get(region, math.nan))

    def exposition(self) -> bytes:
        """All of it, in Prometheus' text format; that of all workers where there are several."""
        self.fold()
        registry = self._registry
        if MULTIPROCESS in os.environ:
            _forget_the_dead(Path(os.environ[MULTIPROCESS]))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types
        return generate_latest(registry)


def make_files(folder: Path, place: str) -> None:
    """Make the files of a worker where they are not there, all of their bytes on the disk.

    They are mapped into memory: a byte for which the disk has no room ends the process that writes it, by SIGBUS.

    Raises:
        OSError: the disk has no room now, or the folder cannot be written.
    """
    for kind in SHARED:
        file = folder / f"{kind}_{place}.db"
        if not file.exists():
            file.write_bytes(bytes(SHARED_BYTES))


def share_metrics() -> None:
    """Count in the files of a worker that is gone, if there is one: files of each process would be ever more.

    To be called before there is a metric. A place is free again when its process ends, in whatever way.
    """
    folder = Path(os.environ[MULTIPROCESS])
    place = next(taken for number in itertools.count() if (taken := _taken(folder, str(number))))
    make_files(folder, _place(place.lock_file))
    values.ValueClass = values.MultiProcessValue(lambda: _place(place.lock_file))  # type: ignore[no-untyped-call]  # likewise


def _taken(folder: Path, place: str) -> BaseFileLock | None:
    """A worker's place in the shared folder, locked as long as this is held; None where it is another's."""
    lock = FileLock(folder / f"worker_{place}.lock")
    try:
        return lock.acquire(blocking=False).lock
    except Timeout:
        return None


def _place(file: str) -> str:
    """The place that a file of a worker's is of."""
    return Path(file).stem.rpartition("_")[2]


def _forget_the_dead(folder: Path) -> None:
    """Empty what tells what workers that have died were answering: nobody is any more."""
    for file in folder.glob("gauge_live*_*.db"):
        lock = _taken(folder, _place(file.name))
        if lock is not None:
            with file.open("r+b") as emptied:
                emptied.write(bytes(8))  # how much of it is used; the next worker needs the file's room on the disk
            lock.release()


def _drained(pending: deque[Item]) -> list[Item]:
    """What is pending, taken out; other threads may add to it meanwhile."""
    taken = []
    for _ in range(len(pending)):
        with contextlib.suppress(IndexError):  # another thread folds too
            taken.append(pending.popleft())
    return taken


def _observe_all(histogram: Histogram, buckets: Sequence[float], values: Sequence[float] | Floats) -> None:
    """Observe many values at once, which prometheus_client has no public name for."""
    places = np.bincount(np.searchsorted(buckets, values), minlength=len(buckets) + 1)
    for at in np.flatnonzero(places).tolist():
        histogram._buckets[at].inc(int(places[at]))
    histogram._sum.inc(float(np.sum(values)))
