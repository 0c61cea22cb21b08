"""What the service counts, by Prometheus' names and units."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ssad.bundle import Drift, Scores

if TYPE_CHECKING:
    from serving.state import Served

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets of durations: from half a millisecond, a row's answer, to the default time limit."""

QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Buckets of scores, by their place among the training scores: the same for every version, each holding its
share of rows while nothing drifts."""

ROWS = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)

MAX_DRIFT_COLUMNS = 100
"""Columns that have a drift metric of their own, those that drifted most; more would be too many series."""


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
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
        self.registry_age = gauge("ssad_registry_age_seconds", "Time since the registry last answered.")
        self.drift_rows = gauge("ssad_drift_window_rows", "Recent rows that are compared with the training rows.")
        self.drift_psi = gauge("ssad_drift_score_psi", "Population stability index of the scores.")
        self.drift_ks = gauge("ssad_drift_score_ks", "Kolmogorov-Smirnov statistic of the scores.")
        self.drift_columns = gauge("ssad_drift_column_psi", "Population stability index of a column.", ("column",))
        self.shares = gauge("ssad_region_share", "Share of rows in a region.", ("region", "rows"))

    def count_scores(self, served: Served, scores: Scores) -> None:
        """Count rows that were scored, by region and by the place of their score."""
        codes = served.bundle.curve.thresholds.codes(scores.score)
        for region, count in zip(served.region_counters, np.bincount(codes).tolist(), strict=False):
            region.inc(count)
        places = np.bincount(served.quantile_buckets(scores.score), minlength=len(QUANTILES))
        # prometheus_client observes one value at a time; adding many to a bucket has no public name.
        for bucket in np.flatnonzero(places).tolist():
            self.score._buckets[bucket].inc(int(places[bucket]))
        self.score._sum.inc(float(places @ np.asarray(QUANTILES)))
        self.rows.observe(len(codes))

    def set_model(self, served: Served) -> None:
        """Tell which version is served."""
        self.info.clear()
        self.info.labels(*served.label).set(1)
        self.loaded.set(served.loaded_at)

    def set_drift(self, drift: Drift) -> None:
        """Tell how far recent rows have moved."""
        self.drift_rows.set(drift.rows)
        self.drift_psi.set(drift.score_psi)
        self.drift_ks.set(drift.score_ks)
        for column in sorted(drift.column_psi, key=lambda name: -drift.column_psi[name])[:MAX_DRIFT_COLUMNS]:
            self.drift_columns.labels(column).set(drift.column_psi[column])
        for rows, shares in (("recent", drift.region_shares), ("training", drift.training_region_shares)):
            for region, share in shares.items():
                self.shares.labels(region, rows).set(share)

    def exposition(self) -> bytes:
        """All of it, in Prometheus' text format; that of all workers where there are several."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
