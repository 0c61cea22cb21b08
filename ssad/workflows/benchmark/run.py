"""Measure what is not measured yet, make the tables and figures, and log them as one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from rich.progress import Progress

from ssad.workflows.benchmark import decisions, figures, ranking
from ssad.workflows.benchmark.competitors import require
from ssad.workflows.benchmark.measurements import KEYS, Measured, Measurement, measure, table_of
from ssad.workflows.benchmark.settings import BenchmarkSettings
from ssad.workflows.benchmark.store import check_same_data, kept_or_made
from ssad.workflows.benchmark.suites import SUITES, Rows, Task
from ssad.workflows.benchmark.thresholding import (
    ANALYZERS,
    PYTHRESH,
    SCORERS,
    Calls,
    gain,
    summarize_gains,
    threshold,
)
from ssad.workflows.tracking import log_new_params, tracked_run


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        tables: by name, `summary` among them, which is the one to read first.
        figures: by name.
    """

    tables: dict[str, pd.DataFrame]
    figures: dict[str, Figure]


def benchmark(settings: BenchmarkSettings, progress: bool = True) -> Report:
    """Compare every detector, or method of thresholding, on every data set; go on where an earlier run stopped.

    Raises:
        SettingsError: a peer's package is not installed.
        DatasetError: the folder does not hold the suite.
    """
    thresholding = settings.suite == "thresholds"
    if settings.peer_names() or thresholding:
        require("pyod")
    if thresholding and set(settings.peer_names()) & set(PYTHRESH):
        require("pythresh")
    report = _compare_thresholds(settings, progress) if thresholding else _compare_detectors(settings, progress)
    _log(settings, report)
    return report


def _compare_detectors(settings: BenchmarkSettings, progress: bool) -> Report:
    ours, peers = settings.detector_names(), settings.peer_names()
    measured = dict(_measurements(settings, ours + peers, progress))
    tables = _ranking_tables(measured, ours, peers)
    drawn = {"ranking": figures.ranking_bars(tables["summary"], ours)}
    deciding = {key: one for key, one in measured.items() if len(one.confidence)}
    if deciding:
        tables |= _decision_tables(deciding, bool(peers))
        drawn["risk_coverage"] = figures.risk_coverage(tables["risk_coverage"])
        for name in dict.fromkeys(detector for _, _, detector in deciding):
            drawn[f"reliability_{name}"] = figures.reliability(deciding, name, bool(peers))
    return Report(tables, drawn)


def _ranking_tables(measured: Measured, ours: list[str], peers: list[str]) -> dict[str, pd.DataFrame]:
    table, pairs = ranking.rank_table(measured), ranking.pair_table(measured, peers)
    best = ranking.best_pairs(pairs)
    tops = {best[metric].idxmax() for metric in ranking.METRICS if len(best)}
    with_tops = pd.concat([table, pairs[pairs["detector"].isin(tops)]])
    return {
        "summary": ranking.summarize(table),
        "measurements": table.set_index(KEYS),
        "pairs": best,
        "thirds": ranking.thirds(with_tops),
        "paired": pd.concat([ranking.paired(with_tops, name) for name in ours]),
    }


def _decision_tables(deciding: Measured, with_peers: bool) -> dict[str, pd.DataFrame]:
    regions = table_of(deciding, decisions.regions)
    calibration = decisions.calibration_table(deciding, with_peers)
    return {
        "risk_coverage": decisions.risk_table(deciding),
        "regions": decisions.summarize_regions(regions),
        "regions_by_set": regions.set_index(KEYS),
        "calibration": decisions.summarize_calibration(calibration),
        "calibration_by_set": calibration.set_index(KEYS),
    }


def _compare_thresholds(settings: BenchmarkSettings, progress: bool) -> Report:
    methods = [*ANALYZERS, *settings.peer_names()]
    measured = dict(_measurements(settings, [*SCORERS, *settings.detector_names()], progress))
    rows = []
    with _bar(settings.suite, len(measured) * len(methods), progress) as advance:
        for (name, seed, scorer), one in measured.items():
            for method in methods:
                calls = _calls(settings, (name, seed, scorer), method, one)
                found = {"gain": gain(one.train, one.labels, calls.called), "called": calls.called.mean()}
                cost = {"seconds": calls.seconds, "failed": bool(calls.failure)}
                rows.append({"set": name, "seed": seed, "scorer": scorer, "method": method} | found | cost)
                advance()
    table = pd.DataFrame(rows)
    summary = summarize_gains(table)
    default = next(iter(ANALYZERS))
    tables = {
        "summary": summary,
        "gains": table.set_index(["set", "seed", "scorer", "method"]),
        "paired": ranking.paired(table.rename(columns={"method": "detector"}), default, ["gain"]),
    }
    return Report(tables, {"gains": figures.gain_bars(summary, list(ANALYZERS))})


def _measurements(
    settings: BenchmarkSettings, detectors: list[str], progress: bool
) -> Iterator[tuple[tuple[str, int, str], Measurement]]:
    """Every measurement of the suite, those that are kept as they are; a task's rows are read where one is not."""
    tasks = SUITES[settings.suite](settings.data, settings.seed_numbers())
    for name, files in {task.name: task.files for task in tasks}.items():
        check_same_data(settings.kept_of(name), files)
    with _bar(settings.suite, len(tasks) * len(detectors), progress) as advance:
        for task in tasks:
            load = cache(task.load)
            for detector in detectors:
                yield (task.name, task.seed, detector), _measured(settings, task, detector, load)
                advance()


def _measured(settings: BenchmarkSettings, task: Task, detector: str, load: Callable[[], Rows]) -> Measurement:
    path = settings.kept_of(task.name) / f"{detector}-{task.seed}.npz"
    return kept_or_made(path, Measurement, lambda: measure(detector, load(), task.seed))


def _calls(settings: BenchmarkSettings, key: tuple[str, int, str], method: str, one: Measurement) -> Calls:
    """What a method calls anomalies; only PyThresh's, which take long, are kept."""
    if method in ANALYZERS:
        return threshold(method, one.train)
    name, seed, scorer = key
    path = settings.kept_of(name) / f"{scorer}-{seed}" / f"{method}.npz"
    return kept_or_made(path, Calls, lambda: threshold(method, one.train))


@contextmanager
def _bar(title: str, steps: int, shown: bool) -> Iterator[Callable[[], None]]:
    """A progress bar; yields what moves it on by a step."""
    with Progress(disable=not shown) as progress:
        bar = progress.add_task(title, total=steps)
        yield lambda: progress.advance(bar)


def _log(settings: BenchmarkSettings, report: Report) -> None:
    """Log settings, tables, figures and the means of the summary as one run."""
    summary = report.tables["summary"]
    with tracked_run("benchmark") as run:
        log_new_params(run, {name: str(value) for name, value in vars(settings).items()})
        for name, table in report.tables.items():
            mlflow.log_text(table.to_csv(), f"{name}.csv")
        for name, figure in report.figures.items():
            mlflow.log_figure(figure, f"{name}.svg")
        for column in summary.columns.intersection(["auc", "ap", "gain"]):
            mlflow.log_metrics({f"{column}_{row}": float(value) for row, value in summary[column].items()})
