"""The report says what its run holds, and needs nothing else to be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import mlflow
import pytest
from lightning.pytorch.loggers import MLFlowLogger
from matplotlib.figure import Figure
from mlflow import MlflowClient

from ssad.loggers.mlflow_logger import log_figure, log_report
from ssad.loggers.report import FIGURES, report_html
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = QUIET_LIBRARIES


class Links(HTMLParser):
    """Collects every address that a page names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]


@pytest.fixture
def run_id(tracking: str) -> Iterator[str]:
    with mlflow.start_run() as run:
        mlflow.log_params({"dataset": "<b>flows</b>", "test_dataset": "s3://me:s3cret@host/t.csv?sig=s3cret"})
        mlflow.log_metrics({"test_auc": 0.875, "cpu_percent": 12.5})
        mlflow.log_metric("rows_unknown", 1_234_567, step=2)
        for step, threshold in ((2, 4.25), (4, 3.5)):
            mlflow.log_metrics({"rows_normal": 90 + step, "threshold_normal": threshold}, step=step)
        yield run.info.run_id


def test_the_report_has_the_numbers_and_escapes_words(run_id: str) -> None:
    page = report_html(MlflowClient(), run_id)
    for text in ("0.875", "4.25", "3.5", '<td class="number">92</td>', "&lt;b&gt;flows&lt;/b&gt;", ">1,234,567<"):
        assert text in page
    assert "12.5" not in page
    assert "s3://host/t.csv" in page
    assert "s3cret" not in page  # as `mlflow run -P` had logged it
    assert "nowhere" in page  # an infinite threshold is not logged


def test_the_report_carries_its_figures_and_asks_nothing_of_a_network(run_id: str, tracking: str) -> None:
    mlf_logger = MLFlowLogger(tracking_uri=tracking, run_id=run_id)
    names = ["region_shares.svg", "test_roc.png"]
    for name in names:
        log_figure(Figure(), mlf_logger, name)
    log_report(mlf_logger)
    page = mlflow.artifacts.load_text(f"runs:/{run_id}/report.html")
    links = Links()
    links.feed(page)
    assert [link[:20] for link in links.found] == ["data:image/svg+xml;b", "data:image/png;base6"]
    assert [name for name in FIGURES if f"<code>{name}</code>" in page] == names
    assert not re.findall(r"url\(|@import|https?://", page)
