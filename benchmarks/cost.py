"""How the time and memory of a training grow with rows, columns and epochs; draws `docs/images/cost.svg`.

    python benchmarks/cost.py

Each training is a process of its own on one thread, from a folder of Parquet to a fitted detector; what is printed is
its processor seconds without imports, and the most memory that was its own (RssAnon of Linux). One thing varies
at a time, the others being those of `BASE`.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import tempfile
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from larger_than_memory import memory, write_folder
from matplotlib import rcParams
from matplotlib.figure import Figure

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "cost.svg"
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Size:
    """What a training is asked for."""

    rows: int = 10_000
    columns: int = 10
    epochs: int = 1


BASE = Size()
SWEEPS = {
    "rows": [1_000, 10_000, 100_000, 1_000_000, 10_000_000],
    "columns": [10, 30, 100, 300, 1000],
    "epochs": [1, 4, 16, 64],
}


@dataclass(frozen=True)
class Cost:
    """What it took."""

    seconds: float
    gib: float


def train(folder: Path, detector: str, epochs: int) -> Cost:
    """Train on a folder; for a process of its own."""
    import torch

    from ssad.datasets.table_rows import open_rows
    from ssad.detectors import FitSettings, fit_detector

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(POLL_SECONDS):
            peak = max(peak, memory(os.getpid())["RssAnon"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    try:
        fit_detector(open_rows(str(folder)), FitSettings(detector, max_epochs=epochs))
    finally:
        done.set()
        watcher.join()
    return Cost(time.process_time() - start, peak)


def measure(size: Size, detector: str) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table"
        table.mkdir()
        write_folder(table, size.rows, size.columns)
        os.environ["SSAD_DATA"] = f"{folder}/cache"
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            return process.submit(train, table, detector, size.epochs).result()


def draw(costs: dict[Size, Cost], sweeps: dict[str, list[Size]]) -> Figure:
    """Seconds above, memory below, each against rows, columns and epochs."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    panels = figure.subplots(2, len(sweeps), sharex="col", sharey="row")
    for (name, sizes), (above, below) in zip(sweeps.items(), panels.T, strict=True):
        at = [getattr(size, name) for size in sizes]
        for axes, what in ((above, "seconds"), (below, "gib")):
            values = [getattr(costs[size], what) for size in sizes]
            axes.plot(at, values, marker="o", color="#0072B2")
            axes.set(xscale="log", yscale="log")
            axes.grid(alpha=0.3)
        fixed = ", ".join(f"{value:,} {other}" for other, value in asdict(BASE).items() if other != name)
        above.set_title(f"at {fixed}", fontsize="small")
        below.set_xlabel(name)
    panels[0, 0].set_ylabel("processor seconds")
    panels[1, 0].set_ylabel("own memory, GiB")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="ssad")
    parser.add_argument("--most-rows", type=int, default=10_000_000, help="leave out tables of more rows")
    arguments = parser.parse_args()
    sweeps = {name: [replace(BASE, **{name: value}) for value in values] for name, values in SWEEPS.items()}
    costs: dict[Size, Cost] = {}
    for name, sizes in sweeps.items():
        sizes[:] = [size for size in sizes if size.rows <= arguments.most_rows]
        for size in sizes:
            costs[size] = costs.get(size) or measure(size, arguments.detector)
            values = costs[size]
            print(f"{name:8} {getattr(size, name):12,} {values.seconds:9.1f} s {values.gib:6.2f} GiB", flush=True)
        steps = np.diff(np.log([[getattr(size, name), costs[size].seconds] for size in sizes[-2:]]), axis=0)[0]
        print(f"{name:8} the last step: time grows with power {steps[1] / steps[0]:.2f}", flush=True)
    rcParams["svg.hashsalt"] = "ssad"  # the same picture is the same file
    draw(costs, sweeps).savefig(IMAGE, metadata={"Date": None})


if __name__ == "__main__":
    main()
