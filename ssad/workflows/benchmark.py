"""Compare the presets with other libraries' detectors, by ADBench's protocol, side by side in one run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import track
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler

from ssad.bundle.intervals import Floats
from ssad.datamodules.splits import thin_anomalies
from ssad.datasets.labels import split_labels
from ssad.datasets.tables import read_table
from ssad.detectors import PRESETS, AnomalyDetector
from ssad.errors import DatasetError, SettingsError, nearest
from ssad.metrics import ranking_metrics
from ssad.workflows.tracking import log_new_params, tracked_run

MAX_ROWS = 10_000
TEST_SHARE = 0.3
"""ADBench's protocol [Han et al., NeurIPS 2022]: stratified 70/30, at most 10,000 rows."""

CONTAMINATIONS = (0.0, 0.05, 0.1, 0.2)
"""Shares of anomalies to which suite `nsl-kdd` thins its training part."""

PEERS = {
    "MCD": "mcd",
    "IForest": "iforest",
    "ECOD": "ecod",
    "KNN": "knn",
    "GMM": "gmm",
    "HBOS": "hbos",
    "CBLOF": "cblof",
    "PCA": "pca",
    "INNE": "inne",
    "AutoEncoder": "auto_encoder",
    "VAE": "vae",
    "DeepSVDD": "deep_svdd",
}
"""PyOD's detectors that are compared with, each with its own defaults, and the module each is in."""

SUITES = ("adbench", "nsl-kdd")
KEYS = ["set", "seed", "detector"]


@dataclass(frozen=True)
class BenchmarkSettings:
    """What `benchmark` takes.

    Attributes:
        suite: `adbench` for a folder of `.npz` files, `nsl-kdd` for one with train and test Parquet.
        data: that folder.
        peers: names out of `PEERS`, `all` or `none`, by commas.
        detectors: names of presets, by commas.
        seeds: whole numbers, by commas.
        results: CSV file that is gone on with; what it holds is not measured again.
    """

    suite: str
    data: Path
    peers: str = "all"
    detectors: str = "ssad"
    seeds: str = "1,2,3"
    results: Path = Path("benchmark.csv")

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise SettingsError(f"there is no suite {self.suite!r}; {nearest(self.suite, SUITES)}.")
        self.names()
        self.seed_numbers()

    def names(self) -> list[str]:
        """The detectors to compare, ours first."""
        ours = _words(self.detectors)
        peers = list(PEERS) if self.peers == "all" else [word for word in _words(self.peers) if word != "none"]
        for names, known in ((ours, PRESETS), (peers, PEERS)):
            for name in names:
                if name not in known:
                    raise SettingsError(f"there is no detector {name!r} to compare; {nearest(name, known)}.")
        return ours + peers

    def seed_numbers(self) -> list[int]:
        """The seeds, at least one."""
        if not _words(self.seeds) or not all(word.isdigit() for word in _words(self.seeds)):
            raise SettingsError(f"seeds must be whole numbers by commas, got {self.seeds!r}.")
        return [int(word) for word in _words(self.seeds)]


@dataclass(frozen=True)
class Task:
    """Rows to fit and rows to test on; the training labels are gone already.

    Attributes:
        name: of the data set.
        seed: of the split.
        train: shape (n, d), float64.
        test: shape (m, d).
        labels: of the test rows, 1 for an anomaly, shape (m,).
    """

    name: str
    seed: int
    train: Floats
    test: Floats
    labels: npt.NDArray[np.int64]


def benchmark(settings: BenchmarkSettings, progress: bool = True) -> pd.DataFrame:
    """Fit and test every detector on every task; go on where an earlier run stopped.

    Returns:
        A row for each set, seed and detector: auc, ap, seconds to fit and to score.

    Raises:
        SettingsError: a name or a number that cannot be used, or PyOD is not installed.
        DatasetError: the folder does not hold the suite.
    """
    names = settings.names()
    tasks = _TASKS[settings.suite](settings)
    done = pd.read_csv(settings.results) if settings.results.exists() else pd.DataFrame(columns=KEYS)
    known = set(done[KEYS].itertuples(index=False, name=None))
    rows: list[dict[Any, Any]] = done.to_dict("records")
    for task in track(list(tasks), description=settings.suite, disable=not progress):
        for name in names:
            if (task.name, task.seed, name) not in known:
                rows.append({"set": task.name, "seed": task.seed, "detector": name, **_measure(name, task)})
        pd.DataFrame(rows).to_csv(settings.results, index=False)
    table = pd.DataFrame(rows)
    measured = table[table["detector"].isin(names) & table["seed"].isin(settings.seed_numbers())]
    _log(settings, measured)
    return measured


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """A row a detector, best first: mean AUROC and average precision, mean ranks, and seconds a suite."""
    by_set = table.groupby(["set", "detector"])[["auc", "ap"]].mean()
    ranks = by_set.groupby("set").rank(ascending=False).groupby("detector").mean().add_suffix("_rank")
    seconds = table.groupby(["seed", "detector"])[["fit_seconds", "score_seconds"]].sum().groupby("detector").mean()
    means = by_set.groupby("detector").mean()
    return pd.concat([means, ranks, seconds], axis=1).sort_values("auc", ascending=False)


def _adbench(settings: BenchmarkSettings) -> Iterator[Task]:
    files = sorted(settings.data.glob("*.npz"))
    if not files:
        raise DatasetError(f"{settings.data.absolute()} holds no .npz files; name a folder of ADBench's data sets.")
    for seed in settings.seed_numbers():
        for file in files:
            rows, anomalous = split_labels(read_table(str(file)))
            if anomalous is None:
                raise DatasetError(f"{file} has no labels y; a benchmark needs them to test.")
            values, labels = rows.to_numpy(dtype=np.float64), anomalous.astype(np.int64)
            if len(values) > MAX_ROWS:
                _, values, _, labels = train_test_split(
                    values, labels, test_size=MAX_ROWS, stratify=labels, random_state=seed
                )
            train, test, _, test_labels = train_test_split(
                values, labels, test_size=TEST_SHARE, stratify=labels, random_state=seed
            )
            scaler = MinMaxScaler().fit(train)
            yield Task(file.stem, seed, scaler.transform(train), scaler.transform(test), test_labels)


def _nsl_kdd(settings: BenchmarkSettings) -> Iterator[Task]:
    rows, anomalous = split_labels(read_table(str(settings.data / "train.parquet")))
    test, test_anomalous = split_labels(read_table(str(settings.data / "test.parquet")))
    if anomalous is None or test_anomalous is None:
        raise DatasetError(f"the tables in {settings.data} have no label column; a benchmark needs it.")
    for seed in settings.seed_numbers():
        for contamination in CONTAMINATIONS:
            kept = rows.iloc[thin_anomalies(anomalous, contamination, seed)]
            train = pd.get_dummies(kept, dtype=float)
            answers = pd.get_dummies(test, dtype=float).reindex(columns=train.columns, fill_value=0.0)
            scaler = MinMaxScaler().fit(train)
            name = f"nsl-kdd {contamination:.0%}"
            yield Task(name, seed, scaler.transform(train), scaler.transform(answers), test_anomalous.astype(np.int64))


_TASKS: dict[str, Callable[[BenchmarkSettings], Iterator[Task]]] = {"adbench": _adbench, "nsl-kdd": _nsl_kdd}


def _measure(name: str, task: Task) -> dict[str, float]:
    """Fit and score once; a detector that fails gets what chance would."""
    start = time.perf_counter()
    try:
        score = _ours(name, task) if name in PRESETS else _peer(name, task)
        fitted = time.perf_counter()
        scores = score()
        seconds = {"fit_seconds": fitted - start, "score_seconds": time.perf_counter() - fitted}
        return ranking_metrics(np.nan_to_num(scores, posinf=np.finfo(np.float64).max), task.labels) | seconds
    except (ValueError, RuntimeError, np.linalg.LinAlgError) as error:
        logging.getLogger(__name__).warning("%s failed on %s: %s", name, task.name, error)
        seconds = {"fit_seconds": time.perf_counter() - start, "score_seconds": 0.0}
        return {"auc": 0.5, "ap": float(task.labels.mean())} | seconds


def _ours(name: str, task: Task) -> Callable[[], Floats]:
    detector = AnomalyDetector(name, random_state=task.seed).fit(task.train)
    return lambda: detector.anomaly_score(task.test)


def _peer(name: str, task: Task) -> Callable[[], Floats]:
    try:
        kind = getattr(import_module(f"pyod.models.{PEERS[name]}"), name)
    except ImportError as error:
        raise SettingsError(
            'peers need PyOD; install it by pip install -c constraints.txt -e ".[benchmark]".'
        ) from error
    offered: dict[str, Any] = {"random_state": task.seed, "n_features": task.train.shape[1]}
    taken = signature(kind).parameters
    settings = {key: value for key, value in offered.items() if key in taken}
    detector = kind(**settings)
    detector.fit(task.train)
    return lambda: np.asarray(detector.decision_function(task.test), dtype=np.float64)


def _log(settings: BenchmarkSettings, table: pd.DataFrame) -> None:
    """Log every measurement, the summary and the settings as one run."""
    summary = summarize(table)
    with tracked_run() as run:
        log_new_params(run, {name: str(value) for name, value in vars(settings).items()})
        mlflow.log_text(table.to_csv(index=False), "measurements.csv")
        mlflow.log_text(summary.to_csv(), "summary.csv")
        mlflow.log_metrics(
            {f"{name}_{detector}": float(row[name]) for detector, row in summary.iterrows() for name in ("auc", "ap")}
        )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
