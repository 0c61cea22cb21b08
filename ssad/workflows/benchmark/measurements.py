"""One detector on one task, measured once and kept: every table is computed from these scores."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from ssad.bundle import Thresholds
from ssad.bundle.intervals import Floats
from ssad.metrics import Labels
from ssad.workflows.benchmark.competitors import fit
from ssad.workflows.benchmark.suites import Rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measurement:
    """What fitting and testing a detector once left behind.

    Attributes:
        train: scores of the training rows, shape (n,), float64.
        test: scores of the test rows, shape (m,).
        labels: of the test rows, 1 for an anomaly, shape (m,).
        confidence: of the test rows, in [-1, 1]; empty for peers.
        thresholds: the normal and the abnormal one; empty for peers.
        fit_seconds: from rows to a detector that can score.
        score_seconds: scoring the test rows.
        size: rows of the whole data set.
        features: columns of a row.
        contamination: share of anomalies in the whole data set.
        failure: what the detector raised; its scores are then all 0, which is chance. Else empty.
    """

    train: Floats
    test: Floats
    labels: Labels
    confidence: Floats
    thresholds: Floats
    fit_seconds: float
    score_seconds: float
    size: int
    features: int
    contamination: float
    failure: str

    def codes(self) -> Any:
        """Index into `REGIONS` for each test row, shape (m,)."""
        return Thresholds(*self.thresholds.tolist()).codes(self.test)


KEYS = ["set", "seed", "detector"]

Measured = Mapping[tuple[str, int, str], Measurement]
"""Measurements by `KEYS`: data set, seed and detector."""


def table_of(measured: Measured, facts: Callable[[Measurement], dict[Any, Any]]) -> pd.DataFrame:
    """A row for each set, seed and detector: these, and the facts of its measurement."""
    return pd.DataFrame([dict(zip(KEYS, key, strict=True)) | facts(one) for key, one in measured.items()])


def mean_over_sets(table: pd.DataFrame, *by: str) -> pd.DataFrame:
    """A row for each value of the columns `by`: the mean over the sets, of each the mean over the seeds."""
    by_set = table.drop(columns="seed").groupby(["set", *by]).mean()
    return by_set.groupby(list(by)).mean()


def measure(detector: str, rows: Rows, seed: int) -> Measurement:
    """Fit and score once; a detector that fails gets what chance would."""
    _warm_up(detector)
    task: dict[str, Any] = {"labels": rows.labels, "size": rows.size, "contamination": rows.contamination}
    task["features"] = rows.train.shape[1]
    start = time.perf_counter()
    try:
        return Measurement(**_fit_and_score(detector, rows, seed), **task, failure="")
    except (ValueError, RuntimeError) as error:
        failure = f"{type(error).__name__}: {error}"
        logger.warning("%s failed: %s", detector, failure)
    nothing = np.empty(0)
    return Measurement(
        train=np.zeros(len(rows.train)),
        test=np.zeros(len(rows.test)),
        confidence=nothing,
        thresholds=nothing,
        fit_seconds=time.perf_counter() - start,
        score_seconds=0.0,
        failure=failure,
        **task,
    )


def _fit_and_score(detector: str, rows: Rows, seed: int) -> dict[str, Any]:
    start = time.perf_counter()
    fitted = fit(detector, rows.train, seed)
    fitted_at = time.perf_counter()
    test = fitted.score(rows.test)
    scored_at = time.perf_counter()
    ends = fitted.curve.thresholds if fitted.curve is not None else None
    return {
        "train": fitted.training_scores(),
        "test": test,
        "confidence": fitted.curve(test) if fitted.curve is not None else np.empty(0),
        "thresholds": np.asarray([ends.normal, ends.abnormal] if ends is not None else []),
        "fit_seconds": fitted_at - start,
        "score_seconds": scored_at - fitted_at,
    }


@cache
def _warm_up(detector: str) -> None:
    """Once a process, so that imports and compilers are in nobody's seconds."""
    with suppress(ValueError, RuntimeError):
        fit(detector, np.random.default_rng(0).random((64, 4)), 0)
