"""Train on a folder of Parquet files that is streamed, and watch the memory that is the process's own.

    python benchmarks/larger_than_memory.py --rows 20000000 --columns 30 --max-epochs 1

Writes the folder, trains on it by `ssad train` in an empty store, and prints how long that took and the most memory
that was the process's own (RssAnon of Linux): what the page cache holds of mapped files goes when others need it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILE_ROWS = 1_000_000
ANOMALIES = 0.02
GAPS = 0.01
KINDS = np.asarray(["tcp", "udp", "icmp"])
POLL_SECONDS = 0.05


def write_folder(folder: Path, rows: int, columns: int) -> None:
    """Correlated numbers, one column of them with gaps, and a column of words; a few rows are far from the others."""
    mix = np.random.default_rng(0).normal(size=(5, columns - 1))
    for number, start in enumerate(range(0, rows, FILE_ROWS)):
        generator = np.random.default_rng([1, number])
        size = min(FILE_ROWS, rows - start)
        values = generator.normal(size=(size, 5)) @ mix + generator.normal(size=(size, columns - 1))
        values[generator.random(size) < ANOMALIES] *= 4
        table = {f"x{at}": values[:, at] for at in range(columns - 1)}
        table["x0"] = pa.array(table["x0"], mask=generator.random(size) < GAPS)
        table["kind"] = KINDS[generator.choice(3, size, p=[0.7, 0.2, 0.1])]
        pq.write_table(pa.table(table), folder / f"part-{number:03}.parquet", row_group_size=FILE_ROWS // 4)


def memory(process: int) -> dict[str, float]:
    """Resident memory in GiB: the process's own, and what is mapped from files."""
    status = Path(f"/proc/{process}/status").read_text()
    return {name: int(kib) / 2**20 for name, kib in re.findall(r"^(RssAnon|RssFile):\s+(\d+) kB", status, re.MULTILINE)}


def watch(command: list[str], environment: dict[str, str], folder: Path) -> tuple[float, dict[str, float]]:
    """Seconds that a command took, and its peaks of memory."""
    start, peaks = time.monotonic(), {"RssAnon": 0.0, "RssFile": 0.0}
    process = subprocess.Popen(command, cwd=folder, env=environment)
    while process.poll() is None:
        peaks = {name: max(peaks[name], found) for name, found in memory(process.pid).items()} or peaks
        time.sleep(POLL_SECONDS)
    if process.returncode:
        sys.exit(process.returncode)
    return time.monotonic() - start, peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--columns", type=int, default=30)
    parser.add_argument("--max-epochs", default="1")
    parser.add_argument("--detector", default="ssad")
    parser.add_argument("--folder", type=Path, help="where to put the table, and find it again; else a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        table = arguments.folder or Path(temporary) / "table"
        if not table.exists():
            table.mkdir(parents=True)
            write_folder(table, arguments.rows, arguments.columns)
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": f"sqlite:///{temporary}/mlflow.db",
            "SSAD_DATA": f"{temporary}/cache",
        }
        settings = ["--max-epochs", arguments.max_epochs, "--detector", arguments.detector]
        command = [sys.executable, "-m", "ssad.cli", "train", "--dataset", str(table.resolve()), *settings]
        seconds, peaks = watch(command, environment, Path(temporary))
        print(f"{seconds:.0f} s, own memory {peaks['RssAnon']:.2f} GiB, mapped {peaks['RssFile']:.2f} GiB")


if __name__ == "__main__":
    main()
