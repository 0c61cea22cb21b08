"""Recalibrate: new intervals from new, unlabelled rows; the weights stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import torch

from ssad.aside import fetching_folder
from ssad.bundle import Bundle, ConfidenceCurve, Drift, Thresholds, write_bundle
from ssad.bundle.bundle import NETWORK
from ssad.bundle.intervals import Floats, told
from ssad.bundle.logged_model import registered_tag
from ssad.bundle.schema import GraphInputs
from ssad.confidence_estimators import ConfidenceIntervalsConfiguration, served_curve
from ssad.datasets.tables import read_table
from ssad.detectors.presets import preset
from ssad.distribution_analyzers import ConformalThresholding
from ssad.distribution_analyzers.conformal import rows_to_promise
from ssad.errors import RefusedError, SettingsError, check_settings, listed, without_secrets
from ssad.loggers.comparison import score_distributions_figure
from ssad.workflows.registry import (
    FetchedModel,
    Registered,
    check_may_register,
    fetch_model,
    log_bundle,
    mlflow_model,
    name_problems,
    register,
)
from ssad.workflows.scored_table import MIN_UNLABELLED_ROWS, limit_problems, log_drift, told_beside
from ssad.workflows.signature import DescribedRows, describe_rows
from ssad.workflows.stopping import too_late_to_stop
from ssad.workflows.tracking import log_dataset, log_new_params, project_elsewhere, tracked_run

SHOWN = 6
"""What is named of what moved beyond the limit: the scores, and the columns that moved farthest."""


@dataclass(frozen=True)
class RecalibrateSettings:
    """What `recalibrate` takes.

    Attributes:
        model: a model URI, or the path of a bundle.
        dataset: name, path or URI of the new rows; a label column in it is not read.
        max_drift: stability index of the scores and of every column up to which rows are those of the same
            detector. For two unit normal distributions the index is the square of the distance of their
            means, so 1 is a shift of one standard deviation.
        max_abnormal: share of the new rows that may be abnormal by the new intervals.
        force: whether to go on where the rows have drifted further.
        model_name: name in the registry; empty for the model's own.
        detector: the model's own `module:attribute` again, which imports it; empty for the other detectors.
    """

    model: str
    dataset: str
    max_drift: float = 1.0
    max_abnormal: float = 0.25
    force: bool = False
    model_name: str = ""
    detector: str = ""

    def __post_init__(self) -> None:
        named = name_problems(self.model_name) if self.model_name else []
        check_settings(limit_problems(self.max_drift, self.max_abnormal) + named)


@dataclass(frozen=True)
class RecalibrateResult:
    """What recalibration left.

    Attributes:
        registered: the new version.
        parent: the model whose weights it has.
        old: the parent's thresholds.
        new: the new ones.
        shares: share of the new rows in each region by the new intervals.
        project: what `mlflow run` takes this project by, where the user is not in its folder; else None.
    """

    registered: Registered
    parent: str
    old: Thresholds
    new: Thresholds
    shares: dict[str, float]
    project: str | None


def recalibrate(settings: RecalibrateSettings) -> RecalibrateResult:
    """Register a version with the same weights and the intervals of new rows, as one run.

    Raises:
        RefusedError: the rows are too few, too different, or too many of them would be abnormal.
        SsadError: a mistake of the user; in every case nothing is registered.
    """
    with tracked_run("recalibrate", system_metrics=False) as run, fetching_folder() as folder:
        log_new_params(run, vars(settings))
        parent = fetch_model(settings.model, folder)
        check_detector(parent, settings.detector)
        name = settings.model_name or parent.name
        if not name:
            raise SettingsError(f"{parent.uri} has no name in the registry; give one by model_name.")
        check_may_register(name)
        mlflow.set_tags({"model": parent.uri, "model_id": parent.model_id or ""})
        table = read_table(settings.dataset, parent.bundle.schema.words)
        dataset = log_dataset(table, settings.dataset, "recalibration")
        inputs = parent.bundle.schema.inputs(table)
        scores = parent.bundle.score_inputs(inputs)
        drift = parent.bundle.drift(scores, inputs)
        log_drift(drift, dataset)
        check_rows(drift, settings, parent.bundle.manifest["plan"]["alpha"])
        bundle = recalibrated(parent, inputs, scores, settings, folder / "bundle")
        old, new, shares = parent.bundle.curve.thresholds, bundle.curve.thresholds, bundle.histogram["region_shares"]
        _log_shift(parent.bundle, bundle, scores)
        model_uri = log_bundle(bundle.path, _described(parent, table))
        source = without_secrets(settings.dataset)
        description = _description(parent.uri, source, old, new)
        tags = {"parent": parent.uri, "recalibrated_on": source} | registered_tag(bundle.path)
        too_late_to_stop()
        registered = register(model_uri, name, description, tags)
    return RecalibrateResult(registered, parent.uri, old, new, shares, project_elsewhere(run))


def check_detector(parent: FetchedModel, detector: str) -> None:
    """Refuse to import what only the model names: who wrote its manifest need not be who is trusted to run code here.

    Raises:
        SettingsError: the user did not name it, or named another one.
    """
    own = str(parent.bundle.manifest["plan"]["detector"])
    if detector != own and (detector or ":" in own):
        mend = "name that one if you trust its code, which is imported" if ":" in own else "leave detector out"
        raise SettingsError(f"{parent.uri} was trained as detector {own!r}, got {detector!r}; {mend}.")


def recalibrated(
    parent: FetchedModel, inputs: GraphInputs, scores: Floats, settings: RecalibrateSettings, path: Path
) -> Bundle:
    """Write the parent's bundle with the intervals of new rows, and those as what drift is measured against.

    Args:
        parent: whose network scored them.
        inputs: the rows, n of them.
        scores: theirs, shape (n,).
        settings: the limits.
        path: folder to write.

    Raises:
        RefusedError: too many of the rows would be abnormal.
    """
    old = parent.bundle
    curve = new_curve(old, scores)
    _check_abnormal(curve.thresholds.shares(scores)["abnormal"], settings)
    facts = {name: value for name, value in old.manifest.items() if name not in ("format_version", "versions", "files")}
    golden = old.golden["rows"], np.asarray(old.golden["scores"], dtype=np.float64)
    network = {file: (old.path / file).read_bytes() for file in NETWORK}
    parentage = {"recalibrated_from": parent.uri, "recalibrated_rows": len(scores)}
    write_bundle(path, network, old.schema, curve, scores, inputs, golden, facts | parentage)
    new = Bundle(path)
    _check_weights(old, new)
    return new


def new_curve(bundle: Bundle, scores: Floats) -> ConfidenceCurve:
    """Intervals and confidence for new scores, shape (n,), by the analyzer of the bundle's detector.

    A promise about false alarms that the detector was trained with, `alpha`, is kept.
    """
    plan = bundle.manifest["plan"]
    # The analyzer comes with a network, whose weights are of no use here: any rows do.
    any_rows = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    module = preset(plan["detector"]).build(any_rows, plan["every_n_epochs"], plan["learning_rate"])
    ends = bundle.curve.thresholds
    in_force = ConfidenceIntervalsConfiguration.from_thresholds(ends.normal, ends.abnormal)
    found = module.distr_analyzer.analyze_distribution(torch.from_numpy(scores), in_force)
    if plan["alpha"] is not None:  # the new rows are as good as held back: no weight has seen them
        found = ConformalThresholding(plan["alpha"]).analyze_distribution(torch.from_numpy(scores), found)
    return served_curve(found, scores)


def check_rows(drift: Drift, settings: RecalibrateSettings, alpha: float | None) -> None:
    """Refuse rows that intervals cannot be found by.

    Raises:
        RefusedError: they are too few, for a promise `alpha` too, or another population than the detector's.
    """
    at_least = MIN_UNLABELLED_ROWS if alpha is None else max(MIN_UNLABELLED_ROWS, rows_to_promise(alpha))
    if drift.rows < at_least:
        raise RefusedError(
            f"{drift.rows} rows are too few to find intervals by, expected at least {at_least}; bring more."
        )
    moved = [("the scores", drift.score_psi), *((f"column {name}", index) for name, index in drift.moved)]
    limit = settings.max_drift
    far = [f"{what} by {told_beside(index, limit)}" for what, index in moved if index > limit]
    if far and not settings.force:
        raise RefusedError(
            f"the rows are another population than the detector's: {listed(far, SHOWN)} in stability index, the limit "
            f"is {limit:.15g}; train on them, or set force if the detector still fits them."
        )


def _check_abnormal(share: float, settings: RecalibrateSettings) -> None:
    limit = settings.max_abnormal
    if share > limit:
        raise RefusedError(
            f"the new intervals would call a share of {told_beside(share, limit)} of the rows abnormal, the limit is "
            f"{limit:.15g}; bring rows of normal operation, or raise max_abnormal if so many are."
        )


def _check_weights(old: Bundle, new: Bundle) -> None:
    """Prove by their digests that weights and graphs are the parent's, and log them."""
    digests = {file: new.manifest["files"][file] for file in NETWORK}
    if digests != {file: old.manifest["files"][file] for file in NETWORK}:
        raise RefusedError("the weights changed on the way; nothing was registered, check the disk and run again.")
    mlflow.set_tags({f"sha256.{file}": value for file, value in digests.items()})


def _log_shift(old: Bundle, new: Bundle, scores: Floats) -> None:
    """Log both thresholds before and after, their shift, and both score distributions."""
    before, after = vars(old.curve.thresholds), vars(new.curve.thresholds)
    metrics = {}
    for side in ("normal", "abnormal"):
        metrics[f"threshold_{side}"] = after[side]
        metrics[f"threshold_{side}_before"] = before[side]
        metrics[f"threshold_{side}_shift"] = after[side] - before[side]
    metrics |= {f"share_{region}_after": share for region, share in new.histogram["region_shares"].items()}
    mlflow.log_metrics({name: value for name, value in metrics.items() if np.isfinite(value)})
    ends = [("before", old.curve.thresholds), ("after", new.curve.thresholds)]
    mlflow.log_figure(score_distributions_figure(old.histogram, scores, ends), "recalibration.png")


def _described(parent: FetchedModel, table: pd.DataFrame) -> DescribedRows:
    """The parent's types and example, so that its signature stays; a bundle alone has none, and the table's do."""
    if parent.logged is not None:
        logged = mlflow_model(parent.logged)
        types, example = logged.signature and logged.signature.inputs, logged.load_input_example(parent.logged.as_uri())
        if isinstance(example, pd.DataFrame) and types and types.has_input_names():
            return DescribedRows(types, example)
    return describe_rows(parent.bundle.schema, table)


def _description(parent: str, dataset: str, old: Thresholds, new: Thresholds) -> str:
    """What the new version is, in a sentence."""
    return (
        f"{parent} recalibrated on {dataset}: normal up to {told(new.normal)} (was {told(old.normal)}), "
        f"abnormal from {told(new.abnormal)} (was {told(old.abnormal)}); the weights are the same."
    )
