"""Whether the service's memory grows: 100,000 requests, of which every tenth is malformed.

    python benchmarks/serving/memory.py [--requests 100000]

It prints the resident memory after a tenth of the requests and after each further tenth, and the growth since.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from compare import KEY, free_port, make_table, prepare, resident, server

CLIENTS = 4
MALFORMED = (b"", b"{", b"\xff", b'{"records": []}', b'{"records": [{"f0": "x"}]}', b"[" * 5000, b"NaN")


def send(url: str, requests: int) -> Counter[int]:
    """Statuses of so many answers to rows good and bad."""
    records = make_table(10, 1).round(6).to_dict("records")
    good = json.dumps({"records": records}).encode()
    headers = {"Content-Type": "application/json", "X-API-Key": KEY}
    seen: Counter[int] = Counter()
    with httpx.Client(headers=headers, timeout=60) as client:
        for at in range(requests):
            body = good if at % 10 else MALFORMED[at // 10 % len(MALFORMED)]
            seen[client.post(url, content=body).status_code] += 1
    return seen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=100_000)
    share = parser.parse_args().requests // (10 * CLIENTS)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(CLIENTS) as pool:
        folder, port = Path(name), free_port()
        os.environ |= prepare(folder)
        serve = [sys.executable, "-m", "ssad.cli", "serve", "--model", "models:/bench@champion", "--port", str(port)]
        with server(serve, port, "/readyz", folder) as (process, _):
            held: list[float] = []
            seen: Counter[int] = Counter()
            for _ in range(10):
                url = f"http://127.0.0.1:{port}/v1/score"
                for part in pool.map(send, [url] * CLIENTS, [share] * CLIENTS):
                    seen += part
                held.append(resident(process))
                print(f"{sum(seen.values()):,} requests: {held[-1]:.1f} MiB", flush=True)
            print(f"growth {held[-1] / held[0] - 1:+.1%}; answers by status {dict(sorted(seen.items()))}")


if __name__ == "__main__":
    main()
