"""What a benchmark measures on: data sets split by a protocol, their training labels hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler

from ssad.bundle.intervals import Floats
from ssad.datamodules.splits import thin_anomalies
from ssad.datasets.labels import split_labels
from ssad.datasets.tables import read_table
from ssad.errors import DatasetError
from ssad.metrics import Labels

MAX_ROWS = 10_000
TEST_SHARE = 0.3
"""ADBench's protocol [Han et al., NeurIPS 2022]: stratified 70/30, at most 10,000 rows."""

MIN_OF_CLASS = 2
"""Normal rows, and anomalies, that a set has at least: one to train on and one to test."""

MAX_THRESHOLD_ROWS = 3_000
"""Rows of a set that are thresholded: several of PyThresh's methods are quadratic in them."""

CONTAMINATIONS = (0.0, 0.05, 0.1, 0.2)
"""Shares of anomalies to which suite `nsl-kdd` thins its training part."""


@dataclass(frozen=True)
class Rows:
    """Rows to fit and rows to test on; the training labels are gone already.

    Attributes:
        train: shape (n, d), float64, scaled to [0, 1].
        test: shape (m, d), by the same scale.
        labels: of the test rows, 1 for an anomaly, shape (m,).
        size: rows by which the sets are sorted: of the whole set, or of the part that is trained on.
        contamination: share of anomalies among those.
    """

    train: Floats
    test: Floats
    labels: Labels
    size: int
    contamination: float


@dataclass(frozen=True)
class Task:
    """One split of one data set.

    Attributes:
        name: of the data set.
        seed: of the split and of every detector.
        files: what it is read from.
        load: reads and splits it.
    """

    name: str
    seed: int
    files: tuple[Path, ...]
    load: Callable[[], Rows]


def adbench(folder: Path, seeds: list[int]) -> list[Task]:
    """Every `.npz` of a folder, split 70/30.

    Raises:
        DatasetError: the folder holds none.
    """
    return [Task(file.stem, seed, (file,), partial(_split, file, seed)) for file, seed in _files(folder, seeds)]


def thresholds(folder: Path, seeds: list[int]) -> list[Task]:
    """Every `.npz` of a folder, fitted and thresholded whole, as PyThresh's own benchmark does.

    Raises:
        DatasetError: the folder holds none.
    """
    return [Task(file.stem, seed, (file,), partial(_whole, file, seed)) for file, seed in _files(folder, seeds)]


def nsl_kdd(folder: Path, seeds: list[int]) -> list[Task]:
    """`train.parquet` thinned to each of `CONTAMINATIONS`, tested on `test.parquet`."""
    files = folder / "train.parquet", folder / "test.parquet"
    return [
        Task(f"nsl-kdd {contamination:.0%}", seed, files, partial(_thinned, *files, contamination, seed))
        for seed in seeds
        for contamination in CONTAMINATIONS
    ]


SUITES = {"adbench": adbench, "nsl-kdd": nsl_kdd, "thresholds": thresholds}


def _files(folder: Path, seeds: list[int]) -> Iterator[tuple[Path, int]]:
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise DatasetError(f"{folder.absolute()} holds no .npz files; name a folder of ADBench's data sets.")
    return ((file, seed) for seed in seeds for file in files)


def _split(file: Path, seed: int) -> Rows:
    values, labels, size, contamination = _sampled(file, MAX_ROWS, seed)
    train, test, _, test_labels = train_test_split(
        values, labels, test_size=TEST_SHARE, stratify=labels, random_state=seed
    )
    scaler = MinMaxScaler().fit(train)
    return Rows(scaler.transform(train), scaler.transform(test), test_labels, size, contamination)


def _whole(file: Path, seed: int) -> Rows:
    values, labels, size, contamination = _sampled(file, MAX_THRESHOLD_ROWS, seed)
    scaled = MinMaxScaler().fit_transform(values)
    return Rows(scaled, scaled, labels, size, contamination)


def _thinned(train_file: Path, test_file: Path, contamination: float, seed: int) -> Rows:
    rows, anomalous = _labelled(train_file)
    test, test_anomalous = _labelled(test_file)
    _check_classes(test_file, test_anomalous)
    train = pd.get_dummies(rows.iloc[thin_anomalies(anomalous, contamination, seed)], dtype=float)
    answers = pd.get_dummies(test, dtype=float).reindex(columns=train.columns, fill_value=0.0)
    scaler = MinMaxScaler().fit(train)
    return Rows(
        scaler.transform(train), scaler.transform(answers), test_anomalous.astype(np.int64), len(train), contamination
    )


def _sampled(file: Path, rows: int, seed: int) -> tuple[Floats, Labels, int, float]:
    """So many rows of a set at most, infinity in them missing, their labels, its size and its contamination."""
    table, anomalous = _labelled(file)
    _check_classes(file, anomalous)
    try:
        values = table.to_numpy(dtype=np.float64, copy=True)
    except ValueError as error:
        raise DatasetError(f"{file} holds more than numbers ({error}); write words as numbers.") from error
    values[~np.isfinite(values)] = np.nan
    values, labels = _at_most(rows, values, anomalous.astype(np.int64), seed)
    _check_classes(file, labels == 1)  # of very few there are none among the sampled
    return values, labels, len(anomalous), float(anomalous.mean())


def _labelled(file: Path) -> tuple[pd.DataFrame, npt.NDArray[np.bool_]]:
    table = read_table(str(file))
    try:
        rows, anomalous = split_labels(table)
    except DatasetError as error:
        reason = str(error).rsplit("; ", 1)[0]  # what to do is of a setting that there is not here
        raise DatasetError(
            f"the labels of {file} cannot be used ({reason}); write 0 for normal rows and 1 for anomalies."
        ) from error
    if anomalous is None:
        raise DatasetError(f"{file} has no labels (y, or a column label); a benchmark needs them to test.")
    return rows, anomalous


def _check_classes(file: Path, anomalous: npt.NDArray[np.bool_]) -> None:
    """Refuse a set that cannot be split so that both parts have both classes.

    Raises:
        DatasetError: it has too few rows of one.
    """
    anomalies = int(anomalous.sum())
    normal = len(anomalous) - anomalies
    if min(normal, anomalies) < MIN_OF_CLASS:
        raise DatasetError(
            f"{file} leaves {normal} normal rows and {anomalies} anomalies to compare on, expected at least "
            f"{MIN_OF_CLASS} of each; take it out of the folder, or bring more."
        )


def _at_most(rows: int, values: Floats, labels: Labels, seed: int) -> tuple[Floats, Labels]:
    """A stratified sample of so many rows, or all of them."""
    if len(values) <= rows:
        return values, labels
    _, values, _, labels = train_test_split(values, labels, test_size=rows, stratify=labels, random_state=seed)
    return values, labels
