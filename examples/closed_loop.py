"""The life of a detector, as one story: train, serve, drift, recalibrate, promote, refuse, roll back.

    python examples/closed_loop.py --figure closed_loop.png

Starts an MLflow server and the service, streams traffic to it without a pause, and changes what is normal. The
service's drift metric rises and so do false alarms; the detector is recalibrated on the recent rows and promoted;
the running service takes the new version over without losing a request. Then a bad candidate is refused, and a
rollback goes back. Needs nothing but an installed project and about two minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import requests
from matplotlib.figure import Figure

from ssad.errors import RefusedError
from ssad.loggers import setup_logging
from ssad.workflows.promote import PromoteSettings, promote
from ssad.workflows.recalibrate import RecalibrateSettings, recalibrate
from ssad.workflows.train import TrainSettings, train

COLUMNS = ["requests", "bytes_in", "bytes_out", "duration", "sessions", "errors", "cpu", "memory"]
ANOMALIES = 0.05
BATCH = 50
WINDOW = 2000
"""Rows that the service compares with training, and that a recalibration takes."""

PAUSE_SECONDS = 0.01
"""Between two requests: traffic, not a load test."""

LOG_END = 4000
"""Characters of a server's log that are shown where it did not do what was waited for."""

SECONDS = 600.0
"""How long anything may take that is waited for, on a busy machine."""


class Traffic:
    """Rows of a machine under load: eight readings that two hidden causes move, and anomalies that break the rule.

    Attributes:
        noise: spread of a normal row around the rule; a new release of the software makes it larger.
    """

    def __init__(self, seed: int = 0) -> None:
        self._generator = np.random.default_rng(seed)
        self._rule = self._generator.normal(size=(2, len(COLUMNS)))
        self.noise = 0.3

    def rows(self, count: int, anomalies: float = ANOMALIES) -> tuple[pd.DataFrame, np.ndarray]:
        """So many rows, and which of them are anomalies."""
        anomalous = self._generator.random(count) < anomalies
        values = self._generator.normal(size=(count, 2)) @ self._rule
        values += self._generator.normal(scale=self.noise, size=values.shape)
        values[anomalous] += self._generator.normal(size=(int(anomalous.sum()), len(COLUMNS)))
        return pd.DataFrame(values, columns=COLUMNS), anomalous


class Client(threading.Thread):
    """Sends batch after batch to the service and notes what comes back.

    Attributes:
        notes: for each answer: time, version, normal rows, false alarms.
        lost: requests that were not answered by 200.
    """

    def __init__(self, url: str, traffic: Traffic) -> None:
        super().__init__(daemon=True)
        self._url, self._traffic = url, traffic
        self._enough = threading.Event()
        self.notes: list[tuple[float, str, int, int]] = []
        self.sent: list[pd.DataFrame] = []
        self.lost = 0

    def run(self) -> None:
        """Send until told to stop."""
        session = requests.Session()
        while not self._enough.wait(PAUSE_SECONDS):
            rows, anomalous = self._traffic.rows(BATCH)
            try:
                answer = session.post(f"{self._url}/v1/score", json={"records": rows.to_dict("records")}, timeout=30)
                answer.raise_for_status()
            except requests.RequestException:
                self.lost += 1
                continue
            alarms = np.asarray([row["confidence"] < 0 for row in answer.json()["predictions"]])
            false_alarms = int(alarms[~anomalous].sum())
            self.sent.append(rows)
            self.notes.append((time.time(), answer.headers["X-Model-Version"], int((~anomalous).sum()), false_alarms))

    def false_alarm_rate(self, rows: int = WINDOW) -> float:
        """Share of normal rows with a confidence below 0, from now on for about so many rows."""
        start = len(self.notes)
        wait(lambda: len(self.notes) >= start + rows // BATCH, "answers")
        notes = self.notes[start:]
        return sum(note[3] for note in notes) / sum(note[2] for note in notes)

    def wait_for(self, version: str) -> None:
        """Until answers come from a version."""
        wait(lambda: self.notes[-1:] and self.notes[-1][1] == version, f"version {version}")

    def recent(self, rows: int = WINDOW) -> pd.DataFrame:
        """The rows sent last."""
        return pd.concat(self.sent[-rows // BATCH :], ignore_index=True)

    def stop(self) -> None:
        """Send no more."""
        self._enough.set()
        self.join()


def wait(condition, what: str) -> None:  # type: ignore[no-untyped-def]  # any function that says yes or no
    """Until a condition holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {SECONDS:.0f} s for {what}")
        time.sleep(0.05)


@contextmanager
def running(command: list[str], health: str, folder: Path, **environment: str) -> Iterator[None]:
    """A server, from its first answer on to the end of the block."""
    with (folder / f"{command[1]}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=os.environ | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait(lambda: answers(health), health)
            yield
        except TimeoutError:
            print((folder / log.name).read_text(errors="replace")[-LOG_END:], file=sys.stderr)
            raise
        finally:
            os.killpg(process.pid, 15)
            process.wait()


def answers(url: str) -> bool:
    """Whether a server answers there."""
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def free_url() -> str:
    """An address on this machine that nothing listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def score_drift(service: str) -> float:
    """What the service says of how far scores have moved: a population stability index."""
    found = re.search(r"^ssad_drift_score_psi (\S+)$", requests.get(f"{service}/metrics", timeout=30).text, re.M)
    assert found is not None
    return float(found[1])


def tell(text: str) -> None:
    """Print a line of the story."""
    print(text, flush=True)


def story(service: str, folder: Path, traffic: Traffic, client: Client) -> list[tuple[float, str]]:
    """What happens once the service answers; gives the moments to mark in the figure."""
    marks = []

    def mark(what: str) -> None:
        marks.append((time.time(), what))

    usual = client.false_alarm_rate(3 * WINDOW)
    tell(f"version 1 serves: drift {score_drift(service):.3f}, false alarms {usual:.1%}")

    traffic.noise *= 1.45
    mark("a new release\nchanges what is normal")
    client.false_alarm_rate()  # until the window holds rows of after the change alone
    drifted = client.false_alarm_rate()
    tell(f"normal behaviour has changed: drift {score_drift(service):.3f}, false alarms {drifted:.1%}")

    client.recent().to_parquet(folder / "recent.parquet")
    result = recalibrate(RecalibrateSettings("models:/ssad@champion", str(folder / "recent.parquet")))
    tell(f"recalibrated: normal up to {result.new.normal:.3g}, was {result.old.normal:.3g}; the weights are the same")
    promote(PromoteSettings(dataset=str(folder / "recent.parquet")))
    client.wait_for("2")
    mark("version 2")
    tell(f"version 2 serves: false alarms {client.false_alarm_rate():.1%}, drift {score_drift(service):.3f}")

    traffic_of_an_attack, _ = Traffic().rows(WINDOW, anomalies=0.9)
    traffic_of_an_attack.to_parquet(folder / "attack.parquet")
    attack = RecalibrateSettings("models:/ssad@champion", str(folder / "attack.parquet"), max_abnormal=1.0, force=True)
    bad = recalibrate(attack).registered.version
    rows, anomalous = traffic.rows(2 * WINDOW)
    rows.assign(label=anomalous.astype(int)).to_parquet(folder / "labelled.parquet")
    try:
        promote(PromoteSettings(f"models:/ssad/{bad}", str(folder / "labelled.parquet")))
    except RefusedError as refusal:
        tell(f"refused: {refusal}")

    promote(PromoteSettings(rollback=True))
    client.wait_for("1")
    mark("rolled back\nto version 1")
    tell(f"rolled back: version 1 serves, false alarms {client.false_alarm_rate():.1%}")
    return marks


def draw(client: Client, marks: list[tuple[float, str]], path: Path) -> None:
    """False alarms over time, with the moments that changed them."""
    times, versions, normal, alarms = (np.asarray(column) for column in zip(*client.notes, strict=True))
    width = WINDOW // BATCH // 2
    kernel = np.ones(width)
    rate = np.convolve(alarms, kernel, "valid") / np.convolve(normal, kernel, "valid")
    at = times[width - 1 :] - times[0]
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for version, color in (("1", "#0072B2"), ("2", "#D55E00")):
        served = versions[width - 1 :] == version
        axes.plot(at, np.where(served, 100 * rate, np.nan), color=color, label=f"version {version} serves")
    for moment, text in marks:
        axes.axvline(moment - times[0], color="#999999", linestyle="--")
        place, above = ("data", "axes fraction"), {"xytext": (4, -4), "textcoords": "offset points", "va": "top"}
        axes.annotate(text, (moment - times[0], 1), xycoords=place, fontsize=8, **above)
    axes.set(xlabel="seconds", ylabel="false alarms, % of normal rows", ylim=(0, None), xlim=(0, 1.12 * at[-1]))
    axes.set_title(f"{len(times) * BATCH:,} rows in {len(times):,} requests, {client.lost} lost")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Tell the story in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, default=Path("closed_loop.png"), help="picture to leave")
    arguments = parser.parse_args()
    setup_logging("ERROR")
    tracking, traffic = free_url(), Traffic()
    host, port = tracking.removeprefix("http://").split(":")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mlflow_server = ["mlflow", "server", "--host", host, "--port", port, "--workers", "1"]
        mlflow_server += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
        mlflow_server += ["--artifacts-destination", str(folder / "artifacts")]
        settings = {"MLFLOW_TRACKING_URI": tracking, "SSAD_SERVE_POLL_SECONDS": "0.5"}
        settings |= {"SSAD_SERVE_DRIFT_ROWS": str(WINDOW), "SSAD_SERVE_CACHE": str(folder / "cache")}
        with running(mlflow_server, f"{tracking}/health", folder):
            mlflow.set_tracking_uri(tracking)
            rows, _ = traffic.rows(2 * WINDOW)
            rows.to_parquet(folder / "rows.parquet")
            trained = train(TrainSettings(str(folder / "rows.parquet")), progress=False)
            tell(f"trained on {len(rows):,} unlabelled rows: version {trained.registered.version}")
            service = free_url()  # not before it is needed: another program may be given it meanwhile
            serve = ["ssad.cli", "serve", "--port", service.rsplit(":", 1)[1]]
            with running(serve, f"{service}/readyz", folder, **settings):
                client = Client(service, traffic)
                client.start()
                try:
                    marks = story(service, folder, traffic, client)
                finally:
                    client.stop()
    draw(client, marks, arguments.figure)
    tell(f"{len(client.notes):,} requests answered, {client.lost} lost; the picture is {arguments.figure}")


if __name__ == "__main__":
    main()
