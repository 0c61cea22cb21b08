"""What regions and confidence are worth, of measurements that have them: errors, and how far claims can be believed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ssad.bundle import REGIONS
from ssad.bundle.intervals import Floats
from ssad.metrics import anomaly_probability, calibration_error, risk_at_coverage
from ssad.workflows.benchmark.measurements import KEYS, Measured, Measurement, mean_over_sets, table_of

_, UNKNOWN, ABNORMAL = range(len(REGIONS))

COVERAGES = tuple(share / 20 for share in range(1, 21))
"""Shares of the rows at which the risk-coverage curve is drawn."""


def regions(one: Measurement) -> dict[str, float]:
    """Share of the rows and of anomalies in each region, and the error of decided, forced and unknown rows.

    NaN stands for what an empty region does not have.
    """
    codes, anomalous, forced_wrong = one.codes(), one.labels == 1, (one.confidence < 0) != (one.labels == 1)
    decided = codes != UNKNOWN
    wrong = np.where(codes == ABNORMAL, ~anomalous, anomalous)
    facts = {f"rows_{region}": float((codes == code).mean()) for code, region in enumerate(REGIONS)}
    facts |= {f"anomalies_{region}": _mean(anomalous[codes == code]) for code, region in enumerate(REGIONS)}
    return facts | {
        "decided": float(decided.mean()),
        "error_decided": _mean(wrong[decided]),
        "error_forced": float(forced_wrong.mean()),
        "error_unknown_forced": _mean(forced_wrong[~decided]),
    }


def summarize_regions(table: pd.DataFrame) -> pd.DataFrame:
    """A row a detector: the mean over the sets, and the error of decided rows as a share of the forced one."""
    means = mean_over_sets(table, "detector")
    return means.assign(error_ratio=means["error_decided"] / means["error_forced"])


def risk_table(measured: Measured) -> pd.DataFrame:
    """A row a detector, a column a coverage: share decided wrongly of the surest rows, mean over the sets."""
    table = table_of(
        measured,
        lambda one: {coverage: risk_at_coverage(one.confidence, one.labels, coverage) for coverage in COVERAGES},
    )
    return mean_over_sets(table, "detector")


def calibration_table(measured: Measured, with_peers: bool) -> pd.DataFrame:
    """A row for each set, seed, detector and way to get a probability from the same scores.

    The probability is that of an anomaly. A decision is the more probable class, but ExCeeD's is PyOD's.
    `ece` is the error of the probability, `ece_right` that of the probability that the decision is right,
    `claimed` the mean of the latter and `right` the share of decisions that are.
    """
    rows = []
    for key, one in measured.items():
        for way, claim in _claims(one, with_peers):
            rows.append(dict(zip(KEYS, key, strict=True)) | {"way": way} | claim)
    return pd.DataFrame(rows)


def summarize_calibration(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each detector and way: means over the sets."""
    return mean_over_sets(table, "detector", "way")


def probabilities(one: Measurement, with_peers: bool) -> dict[str, Floats]:
    """Probability that each test row is an anomaly, by each way there is."""
    ways = {"confidence": anomaly_probability(one.confidence)}
    if with_peers:
        from ssad.workflows.benchmark.pyod_probability import pyod_probabilities

        ways |= pyod_probabilities(one.train, one.test)
    return ways


def _claims(one: Measurement, with_peers: bool) -> Iterator[tuple[str, dict[str, float]]]:
    for way, probability in probabilities(one, with_peers).items():
        right = (probability > 0.5) == (one.labels == 1)
        claimed = np.maximum(probability, 1 - probability)
        yield way, {"ece": calibration_error(probability, one.labels), **_rightness(claimed, right)}
    if with_peers:
        from ssad.workflows.benchmark.pyod_probability import exceed

        claimed, called = exceed(one.train, one.test)
        yield "ExCeeD", {"ece": np.nan, **_rightness(claimed, called == (one.labels == 1))}


def _rightness(claimed: np.ndarray, right: np.ndarray) -> dict[str, float]:
    return {
        "ece_right": calibration_error(claimed, right.astype(np.int64)),
        "claimed": float(claimed.mean()),
        "right": float(right.mean()),
    }


def _mean(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else np.nan
