"""One page that says what a run did: its figures and numbers in a file that opens anywhere, offline."""

from __future__ import annotations

import base64
import errno
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ssad.errors import disk_is_full, without_secrets

REPORT = "report.html"

FIGURES = {
    "score_distribution.svg": "The distribution of the training scores, and where it was cut. Dashed: the normal "
    "threshold; solid: the abnormal one.",
    "region_shares.svg": "How many training rows each region held.",
    "confidence_before_after.svg": "Confidence of the training rows when training began and when it ended: what "
    "the loss weighed them by. That which is served is graded within each region.",
    "test_roc.png": "How the scores rank labelled rows.",
    "test_pr.png": "The same for the anomalies alone.",
    "test_risk_coverage.png": "What leaving the least confident rows undecided saves.",
    "test_reliability.png": "Whether confidence is the probability that it is read as.",
}
"""Artifacts that the report shows, in this order, each with what it says."""

IN_RECALIBRATIONS = ("rows_normal", "rows_unknown", "rows_abnormal", "threshold_normal", "threshold_abnormal")
"""Metrics with a value for each recalibration."""

MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Picture:
    """A figure inside the page.

    Attributes:
        name: of the artifact.
        caption: what it says.
        uri: the image itself, as a data URI.
    """

    name: str
    caption: str
    uri: str


def report_html(client: MlflowClient, run_id: str) -> str:
    """The report of a run, from what is logged in it: parameters, metrics, figures."""
    run = client.get_run(run_id)
    environment = Environment(loader=PackageLoader("ssad.loggers", "."), autoescape=True)
    return environment.get_template("report.html.j2").render(
        run=run.info,
        # `mlflow run` had logged them as it was given them.
        params=sorted((name, without_secrets(value)) for name, value in run.data.params.items()),
        # Results alone: no clocks, and not what the machine was doing.
        metrics=sorted((name, value) for name, value in run.data.metrics.items() if name.startswith("test_")),
        columns=IN_RECALIBRATIONS,
        recalibrations=_recalibrations(client, run_id),
        pictures=_pictures(client, run_id),
    )


def _recalibrations(client: MlflowClient, run_id: str) -> dict[int, dict[str, float]]:
    """For each epoch that recalibrated, the metrics that it logged."""
    table: dict[int, dict[str, float]] = {}
    for name in IN_RECALIBRATIONS:
        for metric in client.get_metric_history(run_id, name):
            table.setdefault(metric.step, {})[name] = metric.value
    return dict(sorted(table.items()))


def _pictures(client: MlflowClient, run_id: str) -> list[Picture]:
    """The figures that the run has, as data URIs: a file of its own needs no server.

    Raises:
        OSError: there is no room for copies of them.
    """
    logged = {artifact.path for artifact in client.list_artifacts(run_id)}
    with tempfile.TemporaryDirectory() as folder:
        try:
            return [
                Picture(name, caption, _data_uri(Path(client.download_artifacts(run_id, name, folder))))
                for name, caption in FIGURES.items()
                if name in logged
            ]
        except MlflowException as error:
            if disk_is_full(error, folder):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder) from error
            raise


def _data_uri(path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{MEDIA_TYPES[path.suffix]};base64,{content}"
