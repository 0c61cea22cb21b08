"""The end of a training as a person wants to read it."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ssad.bundle.intervals import told
from ssad.detectors import FittedDetector
from ssad.errors import on_one_line, without_secrets
from ssad.workflows.registry import CHALLENGER, CHAMPION, Registered
from ssad.workflows.train import TrainResult, TrainSettings

SHOWN_METRICS = {"test_auc": "AUROC", "test_ap": "average precision", "test_f1": "F1"}


def show(settings: TrainSettings, result: TrainResult) -> None:
    """Print what was trained, how well it does, where it is registered and what to do next."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in _lines(settings, result):
        table.add_row(name, on_one_line(text))
    with Console(highlight=False) as console:  # in one piece: a reader may leave after the first line
        console.print()
        console.print(table)
        console.print()
        console.print(next_step(result.registered, result.project), soft_wrap=True)


def next_step(registered: Registered, project: str | None = None) -> str:
    """What to type next: a champion is served, another version compared with it first.

    Args:
        registered: what was trained.
        project: what `mlflow run` takes this project by, where the user is not in its folder.
    """
    action, aim, parameter, alias = (
        ("Serve", "serve", "model", CHAMPION)
        if CHAMPION in registered.aliases
        else ("Promote", "promote", "candidate", CHALLENGER)
    )
    uri = shlex.quote(f"models:/{registered.name}@{alias}")
    if project or Path("MLproject").is_file():
        return f"{action} it:  mlflow run {project or '.'} --env-manager local -e {aim} -P {parameter}={uri}"
    return f"{action} it:  ssad {aim} --{parameter} {uri}"


def _lines(settings: TrainSettings, result: TrainResult) -> list[tuple[str, str]]:
    detector, thresholds = result.detector, result.detector.curve.thresholds
    shares = thresholds.shares(detector.training_scores)
    lines = [
        ("data set", without_secrets(settings.dataset)),
        ("training rows", f"{len(detector.training_scores):,}"),
        ("features", f"{detector.encoder.output_dim} from {len(detector.schema.columns)} columns"),
        ("detector", f"{detector.plan.detector}, {_epochs(detector)}"),
        ("regions", ", ".join(f"{region} {share:.1%}" for region, share in shares.items())),
        ("thresholds", f"normal up to {told(thresholds.normal, 4)}, abnormal from {told(thresholds.abnormal, 4)}"),
        ("test", _metrics(result)),
        ("run", result.run_id),
        ("model", f"{result.registered.name} version {result.registered.version}"),
        ("aliases", ", ".join(result.registered.aliases)),
    ]
    if detector.schema.dropped:
        lines.insert(3, ("left out", detector.schema.left_out))
    return lines


def _epochs(detector: FittedDetector) -> str:
    """How long it trained: to its last recalibration, which is before the last epoch where regions have settled."""
    trained, most = detector.module.recalibrations[-1].epoch + 1, detector.plan.max_epochs
    if trained < most:
        return f"{trained} of {most} epochs, then its regions had settled"
    return "1 epoch" if trained == 1 else f"{trained} epochs"


def _metrics(result: TrainResult) -> str:
    if not result.metrics:
        return "no labels, so no metrics"
    return ", ".join(
        f"{text} {result.metrics[name]:.3f}" for name, text in SHOWN_METRICS.items() if name in result.metrics
    )
