"""What self-supervision gains RADON and GRAnD over the same network without it, and where it loses.

    python benchmarks/classics.py --data ../shared/data/nsl-kdd --images digits

NSL-KDD: the training part thinned to a contamination, AUROC and average precision on the test part. Images:
one class is normal, half of its images train with so many others among them, and half of the test images are
anomalous, as in the papers; every class is normal once. Without self-supervision every confidence stays 1.
Prints a row for each set, contamination and detector: means over the seeds (or classes), the lowest AUROC,
and training rows per second, recalibrations included.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.datasets import fetch_openml, load_digits

from ssad.datamodules.splits import thin_anomalies
from ssad.datasets.labels import split_labels
from ssad.datasets.tables import read_table
from ssad.detectors import FitSettings, Plan, fit_detector
from ssad.metrics import ranking_metrics
from ssad.workflows.benchmark.suites import CONTAMINATIONS

DETECTORS = ("radon", "grand")

IMAGES: dict[str, Callable[[], Any]] = {
    "digits": lambda: load_digits(return_X_y=True),
    "mnist": lambda: fetch_openml("mnist_784", return_X_y=True, as_frame=False),
}


@dataclass(frozen=True)
class Task:
    """Unlabelled rows to train on, rows to test on, and which of these are anomalies."""

    name: str
    contamination: float
    seed: int
    train: pd.DataFrame
    test: pd.DataFrame
    anomalous: npt.NDArray[np.bool_]


def nsl_kdd(folder: Path, seeds: list[int]) -> Iterator[Task]:
    """The training part at each contamination, by seed."""
    (train, anomalous), (test, test_anomalous) = (
        split_labels(read_table(str(folder / f"{part}.parquet"))) for part in ("train", "test")
    )
    assert anomalous is not None  # the set comes with its labels
    assert test_anomalous is not None
    for contamination in CONTAMINATIONS:
        for seed in seeds:
            kept = train.iloc[thin_anomalies(anomalous, contamination, seed)]
            yield Task("nsl-kdd", contamination, seed, kept, test, test_anomalous)


def images(name: str) -> Iterator[Task]:
    """Each class as the normal one, at each contamination; the class is the seed."""
    pixels, classes = IMAGES[name]()
    table, classes = pd.DataFrame(pixels).add_prefix("pixel"), classes.astype(int)
    for contamination in CONTAMINATIONS:
        for normal in range(10):
            generator = np.random.default_rng(normal)
            inliers = generator.permutation(np.flatnonzero(classes == normal))
            others = generator.permutation(np.flatnonzero(classes != normal))
            half = len(inliers) // 2
            among = round(contamination / (1 - contamination) * half)
            test = np.concatenate([inliers[half:], others[among : among + len(inliers) - half]])
            train = generator.permutation(np.concatenate([inliers[:half], others[:among]]))
            yield Task(name, contamination, normal, table.iloc[train], table.iloc[test], classes[test] != normal)


def measure(task: Task, settings: FitSettings) -> dict[str, float]:
    """Train and test once."""
    start = time.perf_counter()
    detector = fit_detector(task.train.reset_index(drop=True), settings)
    seconds = time.perf_counter() - start
    plan = detector.plan
    scores = detector.score(task.test.reset_index(drop=True))
    ranking = ranking_metrics(scores, task.anomalous.astype(np.int64))
    return ranking | {"rows_per_second": plan.max_epochs * len(task.train) / seconds}


def compare(task: Task, detector: str) -> dict[str, Any]:
    """The detector with and without self-supervision, from the same seed."""
    supervised = FitSettings(detector, seed=task.seed)
    epochs = Plan.of(supervised, len(task.train)).max_epochs
    alone = replace(supervised, max_epochs=epochs, every_n_epochs=epochs)  # only once training has ended
    found = {"with": measure(task, supervised), "without": measure(task, alone)}
    return {"set": task.name, "contamination": task.contamination, "detector": detector} | {
        f"{metric} {how}": value for how, metrics in found.items() for metric, value in metrics.items()
    }


def summarize(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Means over seeds, and the lowest AUROC with self-supervision."""
    groups = pd.DataFrame(rows).groupby(["set", "detector", "contamination"])
    lowest = groups["auc with"].min().rename("lowest auc with")
    return pd.concat([groups.mean(), lowest], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with NSL-KDD's train.parquet and test.parquet")
    parser.add_argument("--images", nargs="*", choices=IMAGES, default=[], help="sets of images")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3], help="of NSL-KDD")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    tasks = [task for name in arguments.images for task in images(name)]
    tasks += [] if arguments.data is None else list(nsl_kdd(arguments.data, arguments.seeds))
    rows = [compare(task, detector) for task in tasks for detector in DETECTORS]
    print(summarize(rows).round(3).to_string())


if __name__ == "__main__":
    main()
