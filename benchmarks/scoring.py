"""Rows a second and memory of `score`, from Parquet to Parquet, beside scikit-learn's IsolationForest.

    python benchmarks/scoring.py                       # speed, on a million rows
    python benchmarks/scoring.py --rows 1 50 --rounds 1 --no-peer  # memory, on one and on fifty million

Thirty numeric columns; every child process may use one core, the two take turns, and what is printed are medians.
The peer scores the same file through pandas with its default 100 trees, fitted to the same rows as the detector.
Seconds are of the whole work after imports: read, score, write. CPU seconds leave out what else the machine was doing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = [f"x{at}" for at in range(30)]
TRAINING_ROWS = 5000
MILLION = 1_000_000


def rows(generator: np.random.Generator, count: int) -> np.ndarray:
    """Correlated rows of two decimals, as sensors give them."""
    mix = np.random.default_rng(0).normal(size=(len(COLUMNS), len(COLUMNS))) / 5 + np.eye(len(COLUMNS))
    return (generator.normal(size=(count, len(COLUMNS))) @ mix).round(2)


def write_rows(path: Path, millions: int) -> None:
    """A Parquet file with a row group a million rows."""
    generator = np.random.default_rng(1)
    schema = pa.schema([(name, pa.float64()) for name in COLUMNS])
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(millions):
            columns = dict(zip(COLUMNS, rows(generator, MILLION).T, strict=True))
            writer.write_table(pa.table(columns, schema=schema), row_group_size=MILLION)


def train(folder: Path) -> None:
    """The detector's bundle, and the rows it was trained on."""
    from ssad.detectors import FitSettings, fit_detector

    table = pd.DataFrame(rows(np.random.default_rng(2), TRAINING_ROWS), columns=COLUMNS)
    table.to_parquet(folder / "training.parquet")
    fit_detector(table, FitSettings()).write_bundle(folder / "bundle")


def score_ours(folder: Path, source: Path) -> Callable[[], None]:
    """Scoring by the entry point's own code, without the tracking around it."""
    from ssad.workflows.registry import fetch_model
    from ssad.workflows.score import ScoreSettings, score_locally

    settings = ScoreSettings(str(folder / "bundle"), str(source), str(folder / f"ours-{source.stem}"))
    model = fetch_model(settings.model, folder)

    def work() -> None:
        score_locally(settings, model, progress=False)

    return work


def score_peer(folder: Path, source: Path) -> Callable[[], None]:
    """IsolationForest as a script would use it."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(random_state=0).fit(pd.read_parquet(folder / "training.parquet"))

    def work() -> None:
        scores = -forest.score_samples(pd.read_parquet(source))
        pd.DataFrame({"score": scores}).to_parquet(folder / f"peer-{source.stem}.parquet")

    return work


WORK = {"ssad": score_ours, "IsolationForest": score_peer}


def child(name: str, folder: Path, source: Path) -> None:
    """Do the work of one detector on one core and print what it took."""
    work = WORK[name](folder, source)
    start, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    status = Path("/proc/self/status").read_text()  # getrusage has the parent's peak where that was higher
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**10
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak}))


def measure(name: str, folder: Path, source: Path) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", name, str(folder), str(source)]
    one_core = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        env=os.environ | one_core,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    shutil.rmtree(folder / f"ours-{source.stem}", ignore_errors=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[1], help="millions of rows of each file")
    parser.add_argument("--rounds", type=int, default=5, help="of each, by turns")
    parser.add_argument("--no-peer", action="store_true", help="leave the peer out, which takes all in memory")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, folder, source = arguments.child
        return child(name, Path(folder), Path(source))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(folder)
        for millions in arguments.rows:
            source = folder / f"{millions}m.parquet"
            write_rows(source, millions)
            peers = ["ssad"] if arguments.no_peer else list(WORK)
            rounds = [{peer: measure(peer, folder, source) for peer in peers} for _ in range(arguments.rounds)]
            found = {peer: pd.DataFrame([one[peer] for one in rounds]).median() for peer in peers}
            for peer, took in found.items():
                print(
                    f"{peer:16} {millions:3} M rows  {millions * MILLION / took['seconds']:12,.0f} rows/s  "
                    f"{millions * MILLION / took['cpu_seconds']:12,.0f} rows/CPU s  {took['peak_mib']:6,.0f} MiB",
                    flush=True,
                )
            if len(found) > 1:
                ratio = found["IsolationForest"]["cpu_seconds"] / found["ssad"]["cpu_seconds"]
                print(f"ssad takes 1/{ratio:.1f} of IsolationForest's CPU time", flush=True)
            source.unlink()
    return None


if __name__ == "__main__":
    main()
