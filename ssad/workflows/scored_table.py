"""A table that a bundle has scored, and what is measured of one without labels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
from mlflow.data.dataset import Dataset

from ssad.bundle import Bundle, Drift, Scores
from ssad.bundle.schema import GraphInputs
from ssad.datasets.labels import AUTO, check_normal, split_labels
from ssad.datasets.tables import LABEL, read_table
from ssad.metrics import Labels

ANOTHER_POPULATION = 0.25
"""Stability index from which on a population is another one, by custom [Siddiqi 2006, Credit Risk Scorecards]."""

MIN_UNLABELLED_ROWS = 200
"""Unlabelled rows that intervals or a stability index are found by, at least: fewer leave a tail of a twentieth with
fewer than ten rows, and move the index of ten bins by a twentieth where nothing drifted."""


@dataclass(frozen=True)
class ScoredTable:
    """A table and what a bundle says of it.

    Attributes:
        rows: the columns without the label.
        inputs: the rows as the graph takes them.
        scores: score, confidence and region of each row.
        labels: 1 for an anomaly, shape (n,); None without labels.
        classes: the label of each row as it is written; None likewise.
    """

    rows: pd.DataFrame
    inputs: GraphInputs
    scores: Scores
    labels: Labels | None
    classes: pd.Series | None

    @classmethod
    def read(
        cls, bundle: Bundle, dataset: str, label: str = LABEL, normal: str = AUTO, words: Collection[str] = ()
    ) -> ScoredTable:
        """Read a table and score it; `words` names columns that hold words to others who score it too.

        Raises:
            DatasetError: it cannot be read, or its rows do not fit the bundle.
        """
        table = read_table(dataset, {*bundle.schema.words, *words})
        rows, anomalous = split_labels(table, label, normal)
        check_normal(normal, label, anomalous)
        inputs = bundle.schema.inputs(rows)
        labels = None if anomalous is None else anomalous.astype(np.int64)
        scores = bundle.decide(bundle.score_inputs(inputs))
        return cls(rows, inputs, scores, labels, None if anomalous is None else table[label].astype(str))


def limit_problems(max_drift: float, max_abnormal: float) -> list[str]:
    """What is wrong with the limits on unlabelled rows: a stability index and a share of rows."""
    problems = []
    if not max_drift > 0:
        problems.append(f"max_drift must be above 0, got {max_drift}")
    if not 0 < max_abnormal <= 1:
        problems.append(f"max_abnormal must be in (0, 1], got {max_abnormal}")
    return problems


def told_beside(value: float, limit: float) -> str:
    """A value as a person reads it: a count as it is, others with as many digits as tell on which side of the limit."""
    if isinstance(value, int):
        return str(value)

    def side(of: float) -> tuple[bool, bool]:
        return of < limit, of > limit

    digits = next(digits for digits in range(4, 18) if side(float(f"{value:.{digits}g}")) == side(value))
    return f"{value:.{digits}g}"


def log_drift(drift: Drift, dataset: Dataset, model_id: str | None = None) -> dict[str, float]:
    """Log how far a data set's rows have moved: `drift.json`, a row a column, the one that moved most first.

    Returns:
        What is logged as metrics: drift of the scores and of that column, and the share of each region.
    """
    moved = drift.moved
    mlflow.log_table(pd.DataFrame(moved, columns=["column", "psi"]), "drift.json")
    metrics = {"rows": drift.rows, "score_psi": drift.score_psi, "score_ks": drift.score_ks}
    metrics["max_column_psi"] = moved[0][1]
    metrics |= {f"share_{region}": share for region, share in drift.region_shares.items()}
    mlflow.log_metrics(metrics, dataset=dataset, model_id=model_id)
    return metrics
