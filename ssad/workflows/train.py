"""Train: from a table to a tracked run and a registered version."""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import MLFlowLogger

from ssad.aside import fetching_folder
from ssad.bundle import Bundle
from ssad.bundle.bundle import file_digest
from ssad.bundle.intervals import same_scores, told
from ssad.bundle.logged_model import registered_tag
from ssad.datamodules.splits import MIN_PART_ROWS, holdout_split, thin_anomalies
from ssad.datasets.labels import AUTO, check_normal, check_two_classes, split_row_labels
from ssad.datasets.schema import survey_rows
from ssad.datasets.table_rows import TableRows, open_rows
from ssad.datasets.tables import LABEL, fetched
from ssad.detectors import FitSettings, FittedDetector, Hardware, Plan, fit_detector
from ssad.errors import DatasetError, RowsError, SettingsError, TrainingError, check_settings, listed, without_secrets
from ssad.loggers import mlflow_logger as to_mlflow
from ssad.loggers.training_figures import Recalibration
from ssad.metrics import threshold_metrics
from ssad.workflows.processes import Processes, Together, trains_along
from ssad.workflows.registry import Registered, check_may_register, log_bundle, name_problems, register
from ssad.workflows.resume import newest_checkpoint, resumable, take_over
from ssad.workflows.signature import describe_rows
from ssad.workflows.stopping import heard_while_waiting, too_late_to_stop
from ssad.workflows.tracking import log_new_params, log_rows, project_elsewhere, tracked_run
from ssad.workflows.tracking_store import FAILURES, check_server, explained, make_database

TEST_SHARE = 0.3
"""Share of a labelled table that is held out for test: ADBench's [Han et al., NeurIPS 2022]."""

PROGRESS_BATCHES = 20
"""Batches between two steps of the progress bar, each of which takes as long as a small batch."""

LOST_CONNECTION = "gloo"
"""In the message of a process whose peer is gone."""

PARITY_ROWS = 1000
"""Training rows whose scores by the network and by the exported graph are compared."""


@dataclass(frozen=True)
class TrainSettings:
    """What `main` takes, see `docs/settings.md`.

    Attributes:
        dataset: name, path or URI of the training table.
        test_dataset: likewise for test; empty holds out a part of a labelled training table.
        label: name of the label column.
        normal: label values that mean normal.
        confidence: path of a CSV with the initial confidence; empty for the detector's own.
        contamination: share to which training anomalies are thinned; None leaves them.
        model_name: name in the registry.
        resume: id of a run that was cut off, to go on from; empty for none.
        fit: the detector and its settings.
        hardware: where training runs.
    """

    dataset: str
    test_dataset: str = ""
    label: str = LABEL
    normal: str = AUTO
    confidence: str = ""
    contamination: float | None = None
    model_name: str = "ssad"
    resume: str = ""
    fit: FitSettings = field(default_factory=FitSettings)
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        problems = name_problems(self.model_name)
        if self.contamination is not None and not 0 <= self.contamination < 0.5:
            problems.append(f"contamination must be in [0, 0.5), got {self.contamination}; or leave it at auto")
        if self.confidence and (self.contamination is not None or self.fit.alpha is not None):
            problems.append(
                "confidence has a row for each training row, and contamination and alpha leave some out that nobody "
                "knows before; give it without them"
            )
        check_settings(problems)


@dataclass(frozen=True)
class Tables:
    """Training rows without labels, and test rows with them where there are any."""

    train: TableRows
    test: TableRows | None
    test_anomalous: npt.NDArray[np.bool_] | None


@dataclass(frozen=True)
class TrainResult:
    """What training left behind, for the summary.

    Attributes:
        run_id: the MLflow run.
        registered: the version.
        detector: the trained detector.
        metrics: `test_` metrics; empty without labels.
        project: what `mlflow run` takes this project by, where the user is not in its folder; else None.
    """

    run_id: str
    registered: Registered
    detector: FittedDetector
    metrics: dict[str, float]
    project: str | None


def prepare(settings: TrainSettings) -> Tables:
    """Open tables on this machine, take the labels off, hold out test rows and thin the training anomalies.

    Raises:
        DatasetError: a table cannot be used so.
        SettingsError: a contamination is asked for without labels.
    """
    rows, anomalous = split_row_labels(open_rows(settings.dataset), settings.label, settings.normal)
    if settings.test_dataset:
        opened = open_rows(settings.test_dataset, rows.words())
        test, test_anomalous = split_row_labels(opened, settings.label, settings.normal)
        train_at = np.arange(len(rows))
    elif anomalous is not None:
        check_two_classes(anomalous, settings.label)
        train_at, test_at = holdout_split(len(rows), anomalous, TEST_SHARE, settings.fit.seed)
        test, test_anomalous = rows.at(test_at), anomalous[test_at]
    else:
        test, test_anomalous, train_at = None, None, np.arange(len(rows))
    check_normal(settings.normal, settings.label, anomalous, test_anomalous)
    if test_anomalous is not None:
        check_two_classes(test_anomalous, settings.label)
    if settings.contamination is not None:
        if anomalous is None:
            raise SettingsError(
                f"contamination thins labelled anomalies, but {settings.dataset} has no label column "
                f"{settings.label!r}; leave contamination at auto."
            )
        train_at = train_at[thin_anomalies(anomalous[train_at], settings.contamination, settings.fit.seed)]
    if len(train_at) < MIN_PART_ROWS:
        raise DatasetError(f"{len(train_at)} training rows are too few, expected at least {MIN_PART_ROWS}; bring more.")
    train = rows.at(train_at)
    if test is not None:
        _check_test_columns(train, test, settings.test_dataset)
    return Tables(train, test, test_anomalous)


def _check_test_columns(train: TableRows, test: TableRows, name: str) -> None:
    """Refuse test rows without a column that would be learned from, before it is.

    Raises:
        DatasetError: they lack one.
    """
    missing = set(train.columns) - set(test.columns)
    lacking = [column.name for column in survey_rows(train).schema.columns if column.name in missing] if missing else []
    if lacking:
        raise DatasetError(
            f"the test table {name} lacks columns {listed(lacking)}; bring every one that is trained on."
        )


def train(settings: TrainSettings, progress: bool = True) -> TrainResult:
    """Train, track, bundle, test and register.

    A process that helps the first one trains with it, and then exits.

    Raises:
        SsadError: a mistake of the user, or a server or disk that fails; then nothing is registered.
    """
    check_server(mlflow.get_tracking_uri())
    with fetched(settings.dataset) as dataset, fetched(settings.test_dataset) as test_dataset:
        tables = prepare(replace(settings, dataset=dataset, test_dataset=test_dataset))
        return _train(settings, tables, progress)


def _train(settings: TrainSettings, tables: Tables, progress: bool) -> TrainResult:
    if trains_along(settings.hardware.num_nodes):
        _train_along(settings, tables)
    with tracked_run("main") as run:
        run_id = run.info.run_id
        mlf_logger = to_mlflow.RunLogger(tracking_uri=mlflow.get_tracking_uri(), run_id=run_id)
        log_rows(tables.train, settings.dataset, "training")
        if tables.test is not None:
            log_rows(tables.test, settings.test_dataset or settings.dataset, "test")
        log_new_params(run, _flat_params(settings) | _plan_params(settings, len(tables.train)))
        check_may_register(settings.model_name)
        if settings.resume:
            take_over(settings.resume, run)
        with resumable(run), tempfile.TemporaryDirectory() as folder:
            detector = _fit(settings, tables, mlf_logger, progress, run_id)
            if detector.plan.alpha is not None:
                _log_promise(detector, mlf_logger)
            bundle_path = Path(folder) / "bundle"
            detector.write_bundle(bundle_path)
            first = tables.train.head(PARITY_ROWS)
            _check_bundle(Bundle(bundle_path), detector, first)
            metrics = _test(detector, tables, mlf_logger)
            to_mlflow.log_report(mlf_logger)
            model_uri = log_bundle(bundle_path, describe_rows(detector.schema, first, detector.survey.whole))
            tags = registered_tag(bundle_path)
            too_late_to_stop()
            registered = register(model_uri, settings.model_name, _description(settings, detector), tags)
    return TrainResult(run_id, registered, detector, metrics, project_elsewhere(run))


def _description(settings: TrainSettings, detector: FittedDetector) -> str:
    """What the registry's page says of the version."""
    ends = detector.curve.thresholds
    return (
        f"{detector.plan.detector}, trained on {len(detector.training_scores):,} rows of "
        f"{without_secrets(settings.dataset)}: normal up to {told(ends.normal)}, abnormal from {told(ends.abnormal)}"
    )


def _fit(
    settings: TrainSettings, tables: Tables, mlf_logger: MLFlowLogger, progress: bool, run_id: str | None = None
) -> FittedDetector:
    """Train, from the last checkpoint of the run to resume if there is one; `run_id` is of the run that is logged to.

    Raises:
        TrainingError: training fails, here or in another process.
    """
    processes = Processes(run_id)
    hardware = vars(settings.hardware)
    alone = settings.hardware.devices * settings.hardware.num_nodes == 1
    try:
        with fetching_folder() as folder, nullcontext() if alone else heard_while_waiting(processes.stop):
            return fit_detector(
                tables.train,
                settings.fit,
                Path(settings.confidence) if settings.confidence else None,
                newest_checkpoint(settings.resume, folder) if settings.resume else None,
                logger=mlf_logger,
                enable_progress_bar=progress,
                callbacks=[processes, *([TQDMProgressBar(PROGRESS_BATCHES)] if progress else [])],
                **hardware if alone else hardware | {"strategy": Together(processes)},
            )
    except Exception as error:
        if not processes.ended:
            raise
        raise processes.failure() from error


def _train_along(settings: TrainSettings, tables: Tables) -> NoReturn:
    """Train as a process that helps the first one, and exit."""
    uri = mlflow.get_tracking_uri()
    try:
        make_database(uri)  # or the logger would, while the first process does
    except FAILURES as error:
        raise explained(error) from error
    try:
        _fit(settings, tables, MLFlowLogger(tracking_uri=uri), progress=False)
    except RuntimeError as error:
        if LOST_CONNECTION not in str(error):
            raise
        sys.exit(1)  # another process is gone, which the first one tells of
    sys.exit()


def _flat_params(settings: TrainSettings) -> dict[str, object]:
    """The settings under the names of the entry point's parameters."""
    flat = {**vars(settings), **vars(settings.fit), **vars(settings.hardware)}
    del flat["fit"], flat["hardware"]
    return {name: AUTO if value is None else value for name, value in flat.items()}


def _plan_params(settings: TrainSettings, rows: int) -> dict[str, object]:
    """What must be the same to resume, with the first confidence by its digest: its file may change."""
    plan = {f"plan.{name}": value for name, value in vars(Plan.of(settings.fit, rows)).items()}
    path = Path(settings.confidence)
    return plan | ({"plan.confidence": file_digest(path)} if path.is_file() else {})


def _log_promise(detector: FittedDetector, mlf_logger: MLFlowLogger) -> None:
    """Log the intervals that keep a promise, an epoch after the last: what a run says last is what is served."""
    last = detector.module.recalibrations[-1]
    epoch, thresholds = last.epoch + 1, detector.curve.thresholds
    promised = Recalibration.of(epoch, thresholds, detector.training_scores, last.after, last.after)
    to_mlflow.log_regions(thresholds, detector.training_scores, mlf_logger, epoch)
    to_mlflow.log_confidence_intervals(detector.module.confidence_estimator, mlf_logger, epoch)
    to_mlflow.log_history([*detector.module.recalibrations, promised], mlf_logger)


def _check_bundle(bundle: Bundle, detector: FittedDetector, rows: pd.DataFrame) -> None:
    """Refuse a bundle that scores the first training rows differently from the network it came from.

    Raises:
        TrainingError: it does.
    """
    bundle.check_golden()
    expected = detector.score(rows)  # not `training_scores`: rows may have been held back from those
    found = bundle.score(rows).score
    if not same_scores(found, expected):
        raise TrainingError(
            f"the exported graph's scores differ from the network's by up to {np.abs(found - expected).max():.3g}; "
            "check that torch, onnxscript and onnxruntime are of the versions in constraints.txt."
        )


def _test(detector: FittedDetector, tables: Tables, mlf_logger: MLFlowLogger) -> dict[str, float]:
    """Score the labelled test rows; log metrics at both thresholds and of the forced decision, and curves.

    Returns:
        `test_` metrics of the forced decision; empty without labels.
    """
    if tables.test is None or tables.test_anomalous is None:
        return {}
    try:
        scores, labels = detector.score(tables.test), tables.test_anomalous.astype(np.int64)
    except RowsError as error:
        raise DatasetError(f"the test table does not fit the training table: {error}") from error
    ends, decision = detector.curve.thresholds, detector.curve.decision
    finite = [t for t in sorted({ends.normal, decision, ends.abnormal}) if np.isfinite(t)]
    at_thresholds = [threshold_metrics(scores, labels, threshold) for threshold in finite]
    to_mlflow.log_test_results(scores, labels, at_thresholds, mlf_logger)
    to_mlflow.log_test_confidence(detector.curve(scores), labels, mlf_logger)
    forced = threshold_metrics(scores, labels, decision)
    metrics = {f"test_{name}": value for name, value in forced.items() if np.isfinite(value)}
    mlflow.log_metrics(metrics)
    return metrics
