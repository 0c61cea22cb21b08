"""What training writes to MLflow, and under which name. Works on the run of Lightning's `MLFlowLogger`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import lightning as L
import numpy as np
import psutil
import pynvml
from lightning.pytorch.loggers import MLFlowLogger
from matplotlib.figure import Figure
from mlflow import MlflowClient

from ssad.bundle import Thresholds
from ssad.bundle.intervals import Floats
from ssad.confidence_estimators import SupportsConfidenceEstimation
from ssad.datasets.rows import DatasetWithConfidence, save_confidence_to_csv
from ssad.distribution_analyzers import SupportsDistributionAnalysis
from ssad.loggers import curves, training_figures
from ssad.loggers.report import REPORT, report_html
from ssad.loggers.training_figures import Recalibration
from ssad.metrics import Labels

PLOT_SIZE = (9.0, 8.0)
"""Inches: readable in MLflow's artifact viewer without scrolling."""


class RunLogger(MLFlowLogger):
    """Logs to a run that a workflow opened and closes: the end of training is not that of the run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log what Lightning tells at the epoch that it is of, not at its batch: as all else of the run is."""
        step = int(metrics["epoch"]) if "epoch" in metrics else step
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    def finalize(self, status: str = "success") -> None:
        """Leave the run open."""


def get_mlflow_logger(trainer: L.Trainer) -> MLFlowLogger | None:
    """The trainer's first MLflow logger; None where it has none."""
    return next((logger for logger in trainer.loggers if isinstance(logger, MLFlowLogger)), None)


def log_confidence(mlf_logger: MLFlowLogger, dataset: DatasetWithConfidence, num_epoch: int) -> None:
    """Log every training row's confidence as `confidence_epoch_<n>.csv`, in dataset order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"confidence_epoch_{num_epoch}.csv"
        save_confidence_to_csv(dataset, path)
        _client(mlf_logger).log_artifact(_run_id(mlf_logger), str(path))


def log_confidence_analysis(
    distr_analyzer: SupportsDistributionAnalysis, mlf_logger: MLFlowLogger, num_epoch: int
) -> None:
    """Log the figure of the last analysis as `confidence_analysis_epoch_<n>.svg`."""
    figure = distr_analyzer.plot_analysis(plot_size=PLOT_SIZE)
    log_figure(figure, mlf_logger, f"confidence_analysis_epoch_{num_epoch}.svg")


def log_confidence_intervals(
    confidence_estimator: SupportsConfidenceEstimation, mlf_logger: MLFlowLogger, num_epoch: int
) -> None:
    """Log the intervals in force as `confidence_intervals_epoch_<n>.json`; nothing before there are any."""
    if confidence_estimator.configuration is not None:
        intervals = confidence_estimator.configuration.as_dict()
        _client(mlf_logger).log_dict(_run_id(mlf_logger), intervals, f"confidence_intervals_epoch_{num_epoch}.json")


def log_regions(thresholds: Thresholds, scores: Floats, mlf_logger: MLFlowLogger, num_epoch: int) -> None:
    """Log how many of the training rows, whose scores have shape (n,), each region holds, and the finite thresholds."""
    counts = {f"rows_{region}": float(rows) for region, rows in thresholds.counts(scores).items()}
    ends = {"threshold_normal": thresholds.normal, "threshold_abnormal": thresholds.abnormal}
    mlf_logger.log_metrics(counts | {name: end for name, end in ends.items() if np.isfinite(end)}, step=num_epoch)


def log_history(history: Sequence[Recalibration], mlf_logger: MLFlowLogger) -> None:
    """Log the figures of a whole training: region shares, score distributions, confidence before and after."""
    log_figure(training_figures.region_shares_figure(history), mlf_logger, "region_shares.svg")
    log_figure(training_figures.score_distribution_figure(history), mlf_logger, "score_distribution.svg")
    log_figure(training_figures.confidence_change_figure(history), mlf_logger, "confidence_before_after.svg")


CHECKPOINT_FOLDER = "checkpoint"
CHECKPOINTS = (f"{CHECKPOINT_FOLDER}/0.ckpt", f"{CHECKPOINT_FOLDER}/1.ckpt")
"""Artifacts that hold the last two checkpoints of a run: a crash while one is written leaves the other."""


def log_checkpoint(trainer: L.Trainer, number: int) -> None:
    """Log all that training needs to go on from here, in the place of the last checkpoint but one.

    Every process calls it; it does nothing without an MLflow logger.
    """
    mlf_logger = get_mlflow_logger(trainer)
    if mlf_logger is None:
        return
    folder, name = CHECKPOINTS[number % len(CHECKPOINTS)].split("/")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        trainer.save_checkpoint(path, weights_only=False)  # that is, with the optimizer and all else
        if trainer.is_global_zero:
            _client(mlf_logger).log_artifact(_run_id(mlf_logger), str(path), folder)


def log_test_results(
    scores: Floats, labels: Labels, at_thresholds: Sequence[Mapping[str, float]], mlf_logger: MLFlowLogger
) -> None:
    """Log the test metrics at every threshold as `test_metrics_threshold=<t>.json`, and ROC and precision-recall."""
    for metrics in at_thresholds:
        name = f"test_metrics_threshold={metrics['threshold']:.6g}.json"
        _client(mlf_logger).log_dict(_run_id(mlf_logger), dict(metrics), name)
    log_figure(curves.roc_figure(scores, labels), mlf_logger, "test_roc.png")
    log_figure(curves.precision_recall_figure(scores, labels), mlf_logger, "test_pr.png")


def log_test_confidence(confidence: Floats, labels: Labels, mlf_logger: MLFlowLogger) -> None:
    """Log the risk-coverage curve and the reliability diagram of labelled rows."""
    log_figure(curves.risk_coverage_figure(confidence, labels), mlf_logger, "test_risk_coverage.png")
    log_figure(curves.reliability_figure(confidence, labels), mlf_logger, "test_reliability.png")


def log_report(mlf_logger: MLFlowLogger) -> None:
    """Log `report.html`, the run so far on one page."""
    client, run_id = _client(mlf_logger), _run_id(mlf_logger)
    client.log_text(run_id, report_html(client, run_id), REPORT)


def log_system_metrics(mlf_logger: MLFlowLogger, epoch: int) -> None:
    """Log what this machine is doing as metrics at step `epoch`; GPUs where there are any."""
    mlf_logger.log_metrics(system_metrics(), step=epoch)


def log_figure(figure: Figure, mlf_logger: MLFlowLogger, name: str) -> None:
    """Log a figure as an artifact, in the format its name ends on."""
    _client(mlf_logger).log_figure(_run_id(mlf_logger), figure, name)


def system_metrics() -> dict[str, float]:
    """Load of CPU and memory in percent and MiB, and of each GPU by NVIDIA's management library."""
    memory = psutil.virtual_memory()
    metrics = {
        "cpu_percent": psutil.cpu_percent(),
        "ram_percent": memory.percent,
        "ram_process_mib": psutil.Process().memory_info().rss / 2**20,
    }
    return metrics | gpu_metrics()


def gpu_metrics() -> dict[str, float]:
    """Utilization in percent and memory in MiB of each GPU; empty where there is none."""
    try:
        pynvml.nvmlInit()
        cards = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return {}
    metrics: dict[str, float] = {}
    try:
        for index in range(cards):
            with suppress(pynvml.NVMLError):  # a card cut into parts tells some of it only
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                metrics[f"gpu_{index}_memory_mib"] = pynvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20
                metrics[f"gpu_{index}_percent"] = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
    finally:
        pynvml.nvmlShutdown()
    return metrics


def _client(mlf_logger: MLFlowLogger) -> MlflowClient:
    return cast("MlflowClient", mlf_logger.experiment)


def _run_id(mlf_logger: MLFlowLogger) -> str:
    return str(mlf_logger.run_id)
