"""What a recalibration costs beside an epoch of training, on synthetic rows.

    python benchmarks/recalibration.py --detector radon --rows 1000000 --columns 30

Prints seconds of each part, the least of a few, and its share of an epoch; the figure and the files that a
recalibration leaves in a run are listed apart. By the clock on the wall and on as many threads as training has: a
recalibration uses them well, steps of a small network hardly. `--threads 1` compares the work.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from epoch_clock import EpochClock

from ssad.confidence_estimators import fit_estimator
from ssad.datamodules import SelfSupervisionDataModule
from ssad.datasets.rows import TensorRows, save_confidence_to_csv
from ssad.detectors import PRESETS, FitSettings, Plan
from ssad.detectors.fit import EncodedRows, lightning_trainer

REPEATS = 3
"""Of an epoch and of every part: the fastest is what other work on the machine disturbed least."""


def timed(action: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(detector: str, rows: int, columns: int) -> dict[str, float]:
    data = torch.rand(rows, columns, generator=torch.Generator().manual_seed(0))
    plan = Plan.of(FitSettings(detector, max_epochs=REPEATS), rows)
    datamodule = SelfSupervisionDataModule(EncodedRows(TensorRows(data), plan.batch_size))
    module = PRESETS[detector].build(data, REPEATS, plan.learning_rate)
    clock = EpochClock(time.perf_counter)
    lightning_trainer(plan, [clock]).fit(module, datamodule=datamodule)
    estimator, analyzer = module.confidence_estimator, module.distr_analyzer
    scores = module.score_rows(datamodule.supervision_dataloader())

    def cut() -> None:
        estimator.configuration = analyzer.analyze_distribution(scores, estimator.configuration)

    def confidence() -> None:
        fit_estimator(estimator, scores)
        datamodule.train.confidence.copy_(estimator.estimate_confidence(scores))

    with tempfile.TemporaryDirectory() as folder:
        return {
            "epoch": min(clock.seconds),
            "references": timed(lambda: module.prepare_scoring(datamodule)),
            "scores, float32": timed(lambda: module.score_rows(datamodule.supervision_dataloader(), torch.float32)),
            "intervals": timed(cut),
            "confidence": timed(confidence),
            "apart: scores, float64": timed(lambda: module.score_rows(datamodule.supervision_dataloader())),
            "apart: figure": timed(lambda: analyzer.plot_analysis(plot_size=(9, 8)).savefig(Path(folder) / "a.svg")),
            "apart: confidence.csv": timed(lambda: save_confidence_to_csv(datamodule.train, Path(folder) / "a.csv")),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="radon", choices=sorted(PRESETS))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seconds = measure(arguments.detector, arguments.rows, arguments.columns)
    for name, value in seconds.items():
        print(f"{name:28} {value:8.3f} s  {value / seconds['epoch']:6.1%} of an epoch")
    parts = [value for name, value in seconds.items() if name != "epoch" and not name.startswith("apart")]
    print(f"{'recalibration':28} {sum(parts):8.3f} s  {sum(parts) / seconds['epoch']:6.1%} of an epoch")


if __name__ == "__main__":
    main()
