"""Time, memory and quality of `mlflow run` from an empty store, as a newcomer meets them.

    python benchmarks/training.py --data ../shared/data/nsl-kdd

Prints a row a run: seconds from start to end of the whole command, peak memory of its largest process,
and the test metrics it logged. Needs nothing but an installed project; NSL-KDD is left out without --data.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow

PROJECT = Path(__file__).parents[1]


def measure(name: str, *parameters: str) -> None:
    """Run the entry point `main` in an empty store and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/mlflow.db"
        arguments = [word for parameter in parameters for word in ("-P", parameter)]
        command = [sys.executable, "-m", "mlflow", "run", str(PROJECT), "--env-manager", "local", *arguments]
        start = time.monotonic()
        done = subprocess.run(
            command, cwd=folder, env=os.environ | {"MLFLOW_TRACKING_URI": store}, capture_output=True, text=True
        )
        seconds = time.monotonic() - start
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stdout}\n{done.stderr}")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        run = mlflow.MlflowClient(store).search_runs(["0"])[0]
        metrics = {key: round(run.data.metrics[key], 4) for key in ("test_auc", "test_ap", "test_f1")}
        print(f"{name:30} {seconds:6.1f} s  {peak:5.2f} GiB  {metrics}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with NSL-KDD's train.parquet and test.parquet")
    parser.add_argument("--detectors", nargs="*", default=["ssad"], help="presets to run on NSL-KDD")
    arguments = parser.parse_args()
    measure("breast-cancer", "dataset=breast-cancer")
    if arguments.data is None:
        return
    data = arguments.data.resolve()
    for detector in arguments.detectors:
        measure(
            f"nsl-kdd, 10 %, {detector}",
            f"dataset={data / 'train.parquet'}",
            f"test_dataset={data / 'test.parquet'}",
            "contamination=0.1",
            f"detector={detector}",
        )


if __name__ == "__main__":
    main()
