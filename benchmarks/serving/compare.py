"""The service beside `mlflow models serve` and a bare route: one run, interleaved, one process each, by wrk.

    python benchmarks/serving/compare.py [--rounds 3] [--seconds 4]

One registered model of 30 numeric features, keep-alive, 8 connections; the service with key, validation,
metrics and log on. It prints a table of medians and of ratios.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
from pyarrow import parquet

FEATURES = 30
KEY = "benchmark"
BATCH_ROWS = 1_000_000


def make_table(rows: int, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(6, FEATURES))
    values = generator.normal(size=(rows, 6)) @ mixing + generator.normal(0, 0.3, (rows, FEATURES))
    return pd.DataFrame(values, columns=[f"f{at}" for at in range(FEATURES)])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def server(command: list[str], port: int, probe: str, folder: Path) -> Iterator[tuple[psutil.Process, float]]:
    """A server's process and the seconds it took to be ready."""
    started = time.perf_counter()
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            while True:
                assert process.poll() is None, (folder / f"{port}.log").read_text()
                try:
                    if httpx.get(f"http://127.0.0.1:{port}{probe}", timeout=5).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.02)
            yield psutil.Process(process.pid), time.perf_counter() - started
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def wrk(url: str, body: bytes, seconds: int, folder: Path) -> tuple[float, float]:
    """Requests per second and the 99th percentile in milliseconds; a failed answer is an error."""
    script = folder / "post.lua"
    headers = {"Content-Type": "application/json", "X-API-Key": KEY}
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    script.write_text("\n".join(['wrk.method = "POST"', *lines, f"wrk.body = {json.dumps(body.decode())}"]))
    command = ["wrk", "-t1", "-c8", f"-d{seconds}", "--latency", "--timeout", "30", "-s", str(script), url]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in printed, printed
    slow, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", printed).groups()  # type: ignore[union-attr]  # wrk says so
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    assert rate is not None
    return float(rate[1]), float(slow) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def resident(process: psutil.Process) -> float:
    """MiB of a server's process and its workers; helpers that have MLflow are told apart by their command."""
    family = [process, *process.children(recursive=True)]
    serving = [one for one in family if "serving.registry" not in " ".join(one.cmdline())]
    return sum(one.memory_info().rss for one in serving) / 2**20


def batches(table: pd.DataFrame) -> dict[str, bytes]:
    rows = pa.Table.from_pandas(table, preserve_index=False)
    packed, stream = io.BytesIO(), io.BytesIO()
    parquet.write_table(rows, packed)
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=65_536)
    return {
        "application/vnd.apache.parquet": packed.getvalue(),
        "application/vnd.apache.arrow.stream": stream.getvalue(),
    }


def measure_batches(port: int, process: psutil.Process) -> None:
    for kind, body in batches(make_table(BATCH_ROWS, 2)).items():
        headers = {"Content-Type": kind, "X-API-Key": KEY, "Accept": "application/vnd.apache.arrow.stream"}
        before, started = resident(process), time.perf_counter()
        # Not httpx: it copies what is left of a body at every send, and would be most of what is measured.
        connection = HTTPConnection("127.0.0.1", port, timeout=300)
        connection.request("POST", "/v1/score", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        seconds = time.perf_counter() - started
        assert answer.status == 200, content
        print(f"{kind}: {BATCH_ROWS / seconds:,.0f} rows/s; body {len(body) / 2**20:.0f} MiB, ", end="")
        print(f"resident {before:.0f} -> {resident(process):.0f} MiB")


def compare(ports: dict[str, int], rounds: int, seconds: int, folder: Path) -> None:
    for rows in (1, 100):
        records = make_table(rows, 1).round(6).to_dict("records")
        bodies = {
            "service": ("/v1/score", json.dumps({"records": records}).encode()),
            "bare": ("/v1/score", json.dumps({"records": records}).encode()),
            "mlflow": ("/invocations", json.dumps({"dataframe_records": records}).encode()),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in bodies}
        for _ in range(rounds):
            for name, (path, body) in bodies.items():
                found[name].append(wrk(f"http://127.0.0.1:{ports[name]}{path}", body, seconds, folder))
        rate = {name: statistics.median(r for r, _ in runs) for name, runs in found.items()}
        slow = {name: statistics.median(p for _, p in runs) for name, runs in found.items()}
        for name in bodies:
            print(f"{rows} rows, {name}: {rate[name]:,.0f} requests/s, p99 {slow[name]:.2f} ms")
        print(f"{rows} rows: {rate['service'] / rate['mlflow']:.1f} x mlflow, ", end="")
        print(f"{rate['service'] / rate['bare']:.2f} of bare, p99 1/{slow['mlflow'] / slow['service']:.1f} of mlflow's")


def prepare(folder: Path) -> dict[str, str]:
    """Register the model in a store of its own; the environment of its service."""
    environment = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "OMP_NUM_THREADS": "1",
        "SSAD_SERVE_CACHE": str(folder / "cache"),
        "SSAD_SERVE_API_KEYS": hashlib.sha256(KEY.encode()).hexdigest(),
        "SSAD_SERVE_DRAIN_SECONDS": "0",
    }
    make_table(3000, 0).to_csv(folder / "bench.csv", index=False)
    train = ["-m", "ssad.cli", "train", "--dataset", "bench.csv", "--max-epochs", "2", "--model-name", "bench"]
    subprocess.run([sys.executable, *train], cwd=folder, check=True, capture_output=True, env=os.environ | environment)
    return environment


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        os.environ |= prepare(folder)
        ssad, model = [sys.executable, "-m", "ssad.cli"], "models:/bench@champion"
        ports = {name: free_port() for name in ("service", "bare", "mlflow")}
        serve = [*ssad, "serve", "--model", model, "--port", str(ports["service"])]
        with server(serve, ports["service"], "/readyz", folder) as (_, first):
            print(f"ready after {first:.2f} s where the bundle must be fetched first; now it is in the cache")
        process, ready = stack.enter_context(server(serve, ports["service"], "/readyz", folder))
        app = ["-m", "uvicorn", "--app-dir", str(Path(__file__).parent), "bare:app", "--no-access-log"]
        bare = [sys.executable, *app, "--port", str(ports["bare"])]
        stack.enter_context(server(bare, ports["bare"], "/health", folder))
        peer = ["-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local", "-p", str(ports["mlflow"])]
        other, _ = stack.enter_context(server([sys.executable, *peer], ports["mlflow"], "/ping", folder))
        compare(ports, arguments.rounds, arguments.seconds, folder)
        print(f"ready after {ready:.2f} s; resident {resident(process):.0f} MiB, mlflow {resident(other):.0f} MiB")
        measure_batches(ports["service"], process)


if __name__ == "__main__":
    main()
