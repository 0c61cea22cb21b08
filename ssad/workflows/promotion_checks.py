"""The checks of a promotion: what a candidate must hold, alone and beside the champion."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn import metrics as sk

from ssad.bundle import REGIONS, Bundle, Drift
from ssad.bundle.intervals import Floats
from ssad.datasets.labels import check_two_classes
from ssad.errors import BundleError, listed
from ssad.metrics import Labels
from ssad.workflows.scored_table import MIN_UNLABELLED_ROWS, ScoredTable, log_drift, told_beside
from ssad.workflows.tracking import log_dataset

if TYPE_CHECKING:
    from ssad.workflows.promote import PromoteSettings

RESAMPLES = 500
CONFIDENCE_LEVEL = 0.95
"""Of the bootstrap's interval: its ends rest on a dozen resamples each."""

MIN_AGREEMENT = 0.9
"""Share of unlabelled rows on which neither calls abnormal what the other calls normal."""

CONTRADICTION = len(REGIONS) - 1
"""Regions between the one that one calls it and the other's: from normal to abnormal."""

MIN_ALARMS = 0.1
"""Of the rows that the champion calls abnormal, of labelled ones the anomalies, so many as a share must the candidate
call so: one that calls hardly any contradicts the champion on few rows too, where anomalies are rare."""

BY_CHANCE = 3
"""Rows that may be missing by chance: who expects more finds at least one in 95 % of cases [rule of three, Hanley &
Lippman-Hand, JAMA 1983]."""

MIN_ANOMALIES = 10
"""Labelled anomalies, at least: on a handful, a worse detector ranks as well by chance, and one alone, drawn again and
again, seems to leave no doubt."""

MIN_RANK_CORRELATION = 0.5
"""Below it the two do not look for the same anomalies, and only labels could tell which is right."""

LATENCY_ROUNDS = 30
MAX_SLOWDOWN = 3.0
"""How many times slower than the champion; smaller factors are noise on a busy machine."""


@dataclass(frozen=True)
class Check:
    """One condition of a promotion.

    Attributes:
        name: what is checked.
        value: what was found.
        limit: what was expected.
        passed: whether it holds.
    """

    name: str
    value: str
    limit: str
    passed: bool


def find_checks(candidate: Bundle, champion: Bundle | None, settings: PromoteSettings) -> list[Check]:
    """Every check of a candidate; without a champion those that need none.

    A rollback asks nothing but whether the version scores: it has been champion, and the one that is may be broken.
    """
    checks = [_golden(candidate)]
    if settings.rollback:
        return checks
    if champion is not None:
        checks.append(_schema(candidate, champion))
        if not checks[-1].passed:
            return checks  # the two cannot read the same rows
        checks.append(_latency(candidate, champion))
    if not settings.dataset:
        return [*checks, _training_share(candidate, settings)]
    words = champion.schema.words if champion is not None else ()
    table = ScoredTable.read(candidate, settings.dataset, settings.label, settings.normal, words)
    dataset = log_dataset(table.rows, settings.dataset, "promotion")
    if table.labels is None:
        drift = candidate.drift(table.scores.score, table.inputs)
        log_drift(drift, dataset)
        return checks + _unlabelled(drift, champion, table, settings)
    check_two_classes(table.labels.astype(np.bool_), settings.label)
    if champion is None:
        return [*checks, _training_share(candidate, settings)]
    return checks + _labelled(candidate, champion, table, table.labels, settings)


def gain_interval(
    labels: Labels, before: Floats, after: Floats, statistic: Callable[[Labels, Floats], float]
) -> tuple[float, float, float]:
    """How much better a statistic is on the same rows, with its paired bootstrap interval.

    Both classes are resampled by themselves, so that no resample lacks one.

    Args:
        labels: 1 for an anomaly, shape (n,), of both classes.
        before: scores or decisions of the champion, shape (n,).
        after: those of the candidate for the same rows.
        statistic: higher is better.

    Returns:
        The gain, and the lower and upper end of its percentile interval at `CONFIDENCE_LEVEL`.
    """
    generator = np.random.default_rng(0)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    gains = np.empty(RESAMPLES)
    for at in range(RESAMPLES):
        rows = np.concatenate([generator.choice(members, len(members)) for members in classes])
        gains[at] = statistic(labels[rows], after[rows]) - statistic(labels[rows], before[rows])
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(gains, [tail, 1 - tail])
    return statistic(labels, after) - statistic(labels, before), float(low), float(high)


def phi(labels: Labels, called: Floats) -> float:
    """Matthews' correlation of labels and decisions, both 0 or 1, shape (n,): Pearson's, and 0 of decisions all alike.

    The same as scikit-learn's, from no table of counts: thousands of resamples are asked for it.
    """
    spread = labels.std() * called.std()
    return float((labels * called).mean() - labels.mean() * called.mean()) / float(spread) if spread else 0.0


def _golden(candidate: Bundle) -> Check:
    try:
        candidate.check_golden()
    except BundleError as error:
        return Check("golden rows", str(error), "the scores of training time", False)
    return Check("golden rows", "the same scores", "the scores of training time", True)


def _schema(candidate: Bundle, champion: Bundle) -> Check:
    """Whoever sends rows to the champion must be able to send the same rows to the candidate."""
    known = champion.schema.graph_order
    problems = [
        f"{column.name} is {column.kind}" if column.name in known else f"{column.name} is new"
        for column in candidate.schema.not_in(champion.schema)
    ]
    return Check("columns", listed(problems) or "compatible", "the champion's, of the same kinds", not problems)


def _latency(candidate: Bundle, champion: Bundle) -> Check:
    """The fastest of several scorings of the champion's golden rows, by turns: the machine's load falls out."""
    seconds: dict[bool, float] = {True: np.inf, False: np.inf}
    for _ in range(LATENCY_ROUNDS):
        for own, bundle in ((True, candidate), (False, champion)):
            start = time.perf_counter()
            bundle.score(champion.golden["rows"])
            seconds[own] = min(seconds[own], time.perf_counter() - start)
    return _at_most("scoring time beside the champion's", seconds[True] / seconds[False], MAX_SLOWDOWN)


def _training_share(candidate: Bundle, settings: PromoteSettings) -> Check:
    share = candidate.histogram["region_shares"]["abnormal"]
    return _at_most("abnormal share of its training rows", share, settings.max_abnormal)


def _labelled(
    candidate: Bundle, champion: Bundle, table: ScoredTable, labels: Labels, settings: PromoteSettings
) -> list[Check]:
    """Average precision must gain, forced decisions must not be surely worse, and anomalies be called abnormal still.

    All on the same rows. The regions are none of the ranking, nor of where a decision is forced.
    """
    few = _at_least("labelled anomalies", int(labels.sum()), MIN_ANOMALIES)
    if not few.passed:
        return [few]
    before, after = champion.score(table.rows), table.scores
    finite = bool(np.isfinite(before.score).all() and np.isfinite(after.score).all())
    if not finite:
        return [Check("scores of the labelled rows", "some are not finite", "all are finite", False)]
    gain, low, high = gain_interval(labels, before.score, after.score, sk.average_precision_score)
    mlflow.log_metrics({"ap_gain": gain, "ap_gain_low": low, "ap_gain_high": high})
    ranking = _at_least("gain in average precision", low, settings.min_gain, _interval(gain, low, high))
    champions, candidates = (
        (scores.score > bundle.curve.decision).astype(np.float64)
        for bundle, scores in ((champion, before), (candidate, after))
    )
    gain, low, high = gain_interval(labels, champions, candidates, phi)
    mlflow.log_metrics({"mcc_gain": gain, "mcc_gain_low": low, "mcc_gain_high": high})
    return [
        few,
        ranking,
        _at_least("gain in MCC, upper end", high, 0.0, _interval(gain, low, high)),
        _alarms("anomalies called abnormal", before.region[labels == 1], after.region[labels == 1]),
    ]


def _unlabelled(drift: Drift, champion: Bundle | None, table: ScoredTable, settings: PromoteSettings) -> list[Check]:
    """The candidate must know these rows, call few of them abnormal but some, and not contradict the champion."""
    column, moved = drift.moved[0]
    checks = [
        _at_least("unlabelled rows", drift.rows, MIN_UNLABELLED_ROWS),
        _at_most("stability index of its scores", drift.score_psi, settings.max_drift),
        _at_most(
            "stability index of the column that moved most",
            moved,
            settings.max_drift,
            f"{told_beside(moved, settings.max_drift)} ({column[:100]})",
        ),
        _at_most("share called abnormal", drift.region_shares["abnormal"], settings.max_abnormal),
    ]
    if champion is None:
        return checks
    before, after = champion.score(table.rows), table.scores
    contradicted = np.mean(np.abs(before.codes - after.codes) == CONTRADICTION)
    same_order = stats.spearmanr(before.score, after.score).statistic
    return [
        *checks,
        _alarms("rows called abnormal", before.region, after.region),
        _at_least("rows not contradicted", 1 - float(contradicted), MIN_AGREEMENT),
        _at_least("rank correlation of the scores", float(same_order), MIN_RANK_CORRELATION),
    ]


def _alarms(name: str, before: npt.NDArray[np.str_], after: npt.NDArray[np.str_]) -> Check:
    """Of rows by their regions, shape (n,) of champion and candidate: some must be called abnormal still."""
    champions, candidates = (int((regions == "abnormal").sum()) for regions in (before, after))
    return _at_least(name, candidates, max(0, math.ceil(MIN_ALARMS * champions - BY_CHANCE)))


def _at_most(name: str, value: float, limit: float, told: str = "") -> Check:
    return Check(name, told or told_beside(value, limit), f"at most {limit:.15g}", bool(value <= limit))


def _at_least(name: str, value: float, limit: float, told: str = "") -> Check:
    """NaN is at least nothing, so that what cannot be measured does not pass."""
    return Check(name, told or told_beside(value, limit), f"at least {limit:.15g}", bool(value >= limit))


def _interval(gain: float, low: float, high: float) -> str:
    return f"{gain:+.4g} ({CONFIDENCE_LEVEL:.0%}: {low:+.4g} to {high:+.4g})"
