"""How well detectors rank: tables over data sets, seeds and pairs of peers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from ssad.bundle.intervals import Floats
from ssad.metrics import ranking_metrics
from ssad.workflows.benchmark.measurements import KEYS, Measured, Measurement, mean_over_sets, table_of

METRICS = ["auc", "ap"]
SORTED_BY = ("size", "features", "contamination")
THIRDS = ("low", "middle", "high")

RESAMPLES = 10_000
INTERVAL = (2.5, 97.5)
"""Of the bootstrap over data sets: percentiles of the mean difference."""


def rank_table(measured: Measured) -> pd.DataFrame:
    """A row for each set, seed and detector: auc, ap, seconds, and what the set is like."""
    facts = ("fit_seconds", "score_seconds", *SORTED_BY, "failure")
    return table_of(
        measured,
        lambda one: ranking_metrics(one.test, one.labels) | {fact: getattr(one, fact) for fact in facts},
    )


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """A row a detector, best first: mean AUROC and average precision, mean ranks, and seconds for the suite."""
    by_set = table.groupby(["set", "detector"])[METRICS].mean()
    ranks = by_set.groupby("set").rank(ascending=False).groupby("detector").mean().add_suffix("_rank")
    seconds = table.groupby(["seed", "detector"])[["fit_seconds", "score_seconds"]].sum().groupby("detector").mean()
    means = by_set.groupby("detector").mean()
    return pd.concat([means, ranks, seconds], axis=1).sort_values("auc", ascending=False)


def pair_table(measured: Measured, peers: Collection[str]) -> pd.DataFrame:
    """A row for each set, seed and pair of peers: the mean of their probit ranks as a score."""
    by_task: dict[tuple[str, int], dict[str, Measurement]] = {}
    for (name, seed, detector), one in measured.items():
        if detector in peers:
            by_task.setdefault((name, seed), {})[detector] = one
    rows = []
    for (name, seed), ones in by_task.items():
        probits = {detector: probit(one.test) for detector, one in ones.items()}
        labels = next(iter(ones.values())).labels
        for first, second in combinations(sorted(probits), 2):
            key = {"set": name, "seed": seed, "detector": f"{first} + {second}"}
            rows.append(key | ranking_metrics(probits[first] + probits[second], labels))
    return pd.DataFrame(rows, columns=[*KEYS, *METRICS])


def best_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Mean AUROC and average precision of each pair over the sets, best first."""
    return mean_over_sets(pairs, "detector").sort_values("auc", ascending=False)


def probit(scores: Floats) -> Floats:
    """Ranks as quantiles of a standard normal, shape (n,)."""
    quantiles: Floats = norm.ppf((rankdata(scores) - 0.5) / len(scores))
    return quantiles


def thirds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean AUROC and average precision on each third of the sets by rows, features and contamination."""
    by_set = table.groupby(["set", "detector"])[METRICS].mean().reset_index()
    facts = table.groupby("set")[list(SORTED_BY)].first()
    parts = []
    for fact in SORTED_BY:
        ordered = facts[fact].sort_values(kind="stable").index.to_numpy()
        for third, names in zip(THIRDS, np.array_split(ordered, len(THIRDS)), strict=True):
            means = by_set[by_set["set"].isin(names)].groupby("detector")[METRICS].mean().reset_index()
            parts.append(means.assign(by=fact, third=third, sets=len(names)))
    return pd.concat(parts).set_index(["by", "third", "detector"])


def paired(table: pd.DataFrame, ours: str, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Ours against every other, set by set.

    Returns:
        Sets won, tied and lost, the mean difference, its bootstrap interval (`low`, `high`), and the least mean
        difference when one set is left out. The sets are resampled, not the rows: the interval says what other
        data sets like these would give.
    """
    rows = []
    for metric in metrics:
        by_set = table.pivot_table(index="set", columns="detector", values=metric)
        for other in by_set.columns.drop(ours):
            rows.append({"detector": ours, "other": other, "metric": metric} | compared(by_set[ours] - by_set[other]))
    return pd.DataFrame(rows).set_index(["detector", "other", "metric"]) if rows else pd.DataFrame()


def compared(differences: pd.Series[float]) -> dict[str, float]:
    """What `paired` says of the differences of all sets."""
    values = np.asarray(differences, dtype=np.float64)
    won, lost, sets = int((values > 0).sum()), int((values < 0).sum()), len(values)
    low, high = bootstrap_interval(values)
    facts = {"won": won, "tied": sets - won - lost, "lost": lost, "difference": float(values.mean())}
    without_one = (values.sum() - values) / max(sets - 1, 1)
    return facts | {"low": low, "high": high, "least": float(without_one.min())}


def bootstrap_interval(values: Floats) -> tuple[float, float]:
    """95 % interval of the mean of values, shape (n,), by resampling them; always the same resamples."""
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), INTERVAL)
    return float(low), float(high)
