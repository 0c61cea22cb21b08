"""The promise of `alpha` on NSL-KDD: share of normal rows called abnormal, and of anomalies found.

    python benchmarks/guarantee.py <folder of NSL-KDD>

A detector is trained on rows of the training table thinned to a contamination, 30 % of them held back; it is
tested on normal rows and anomalies of the same table that neither part has seen, because the promise is about
rows that are exchangeable with those held back, and those of the test table are not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from ssad.datamodules.splits import holdout_split, thin_anomalies
from ssad.datasets.labels import split_labels
from ssad.datasets.table_rows import table_rows
from ssad.datasets.tables import read_table
from ssad.detectors import FitSettings, fit_detector
from ssad.detectors.fit import hold_back
from ssad.workflows.benchmark.suites import CONTAMINATIONS

ALPHAS = (0.01, 0.05, 0.1)
SEEDS = range(5)
ROWS = 4_000


def shares(rows: pd.DataFrame, anomalous: np.ndarray, contamination: float, seed: int) -> list[dict[str, float]]:
    fitted_at, tested_at = holdout_split(len(rows), anomalous, 0.5, seed)
    fitted_at = fitted_at[thin_anomalies(anomalous[fitted_at], contamination, seed)]
    fitted_at = np.random.default_rng(seed).permutation(fitted_at)[:ROWS]
    train, held_back = hold_back(table_rows(rows.iloc[fitted_at]), min(ALPHAS), seed)
    detector = fit_detector(train, FitSettings(seed=seed))
    own = detector.curve.thresholds
    scores, labels = detector.score(rows.iloc[tested_at]), anomalous[tested_at]
    found = []
    for alpha in (None, *ALPHAS):
        if alpha is not None:
            detector.promise(alpha, held_back)
        thresholds = own if alpha is None else detector.curve.thresholds
        abnormal = thresholds.regions(scores) == "abnormal"
        facts = {"called normal rows": abnormal[~labels].mean(), "found anomalies": abnormal[labels].mean()}
        found.append({"alpha": alpha or "own", "contamination": contamination, "seed": seed} | facts)
    return found


def main(folder: Path) -> None:
    rows, anomalous = split_labels(read_table(str(folder / "train.parquet")))
    assert anomalous is not None
    table = pd.DataFrame([fact for c in CONTAMINATIONS for seed in SEEDS for fact in shares(rows, anomalous, c, seed)])
    summary = table.drop(columns="seed").groupby(["alpha", "contamination"], sort=False).agg(["mean", "std"])
    print(summary.round(3).unstack("contamination").to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
