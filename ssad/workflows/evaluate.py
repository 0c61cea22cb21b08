"""Evaluate any model of this project against any table, labelled or not."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow import MlflowClient
from mlflow.data.pandas_dataset import PandasDataset, from_pandas
from mlflow.entities import LoggedModelInput
from mlflow.exceptions import MlflowException
from mlflow.metrics import MetricValue, make_metric

from ssad.aside import fetching_folder
from ssad.bundle import REGIONS, Bundle, Drift, Scores
from ssad.bundle.explain import contributions
from ssad.bundle.intervals import Floats
from ssad.datasets.labels import AUTO
from ssad.datasets.tables import LABEL
from ssad.loggers.comparison import column_drift_figure, score_distributions_figure
from ssad.loggers.curves import precision_recall_figure, reliability_figure, risk_coverage_figure, roc_figure
from ssad.metrics import (
    Labels,
    anomaly_probability,
    calibration_error,
    decision_metrics,
    has_both_classes,
    ranking_metrics,
)
from ssad.workflows.registry import FetchedModel, fetch_model
from ssad.workflows.scored_table import ANOTHER_POPULATION, ScoredTable, log_drift
from ssad.workflows.tracking import log_dataset, log_new_params, tracked_run
from ssad.workflows.tracking_store import NOT_ALLOWED

logger = logging.getLogger(__name__)

MOST_ABNORMAL = 20
SHOWN_CONTRIBUTORS = 3
"""Rows, and columns of each, that the table of the most abnormal rows shows."""

MAX_CLASSES = 100
"""Label values up to which each has its recall measured; more are no classes."""

LABEL_LENGTH = 200
"""Characters of a label in a metric's name, which may have 250 in MLflow."""

EvalFn = Callable[..., float | MetricValue]
"""A metric as MLflow calls it, by its parameters' names."""


@dataclass(frozen=True)
class EvaluateSettings:
    """What `evaluate` takes.

    Attributes:
        model: a model URI, or the path of a bundle.
        dataset: name, path or URI of the table.
        label: name of the label column; a table without it is unlabelled.
        normal: label values that mean normal.
    """

    model: str
    dataset: str
    label: str = LABEL
    normal: str = AUTO


@dataclass(frozen=True)
class EvaluateResult:
    """What an evaluation found.

    Attributes:
        run_id: the MLflow run.
        model: what was evaluated, with the version in place of an alias.
        metrics: as they were logged.
        regions: a row a region.
        drift: how far the rows are from training.
    """

    run_id: str
    model: str
    metrics: dict[str, float]
    regions: pd.DataFrame
    drift: Drift


def evaluate(settings: EvaluateSettings) -> EvaluateResult:
    """Evaluate a model on a table as one run; the metrics are attached to the logged model too.

    Where this account may read the model and not write it, they are in the run alone, and a warning says so.

    Raises:
        SsadError: a mistake of the user.
    """
    with tracked_run("evaluate", system_metrics=False) as run, fetching_folder() as folder:
        log_new_params(run, vars(settings))
        model = fetch_model(settings.model, folder)
        mlflow.set_tags({"model": model.uri, "model_id": model.model_id or ""})
        unwritten = []
        if model.model_id and not _may(mlflow.log_input, model=LoggedModelInput(model.model_id)):
            unwritten, model = [f"the logged model {model.model_id}"], replace(model, model_id=None)
        table = ScoredTable.read(model.bundle, settings.dataset, settings.label, settings.normal)
        dataset = log_dataset(table.rows, settings.dataset, "evaluation")
        drift = model.bundle.drift(table.scores.score, table.inputs)
        metrics = _log_state(drift, table, model, dataset)
        regions = region_table(table)
        mlflow.log_table(regions, "regions.json")
        mlflow.log_table(most_abnormal(table, model.bundle), "most_abnormal.json")
        if table.labels is not None:
            metrics |= _log_quality(table, table.labels, regions, model, dataset)
        if model.name and model.version:
            tag = {"key": "evaluated_by", "value": run.info.run_id}
            if not _may(MlflowClient().set_model_version_tag, model.name, model.version, **tag):
                unwritten.append(f"version {model.version} of {model.name}")
        if unwritten:
            logger.warning(
                "the results are in this run and not at %s, to which this account may not write; to attach them, ask "
                "for the permission EDIT on the registered model with the experiment that it is from",
                " and ".join(unwritten),
            )
    return EvaluateResult(run.info.run_id, model.uri, metrics, regions, drift)


def _may(write: Callable[..., object], *arguments: Any, **named: Any) -> bool:
    """Write to a model, if this account may: who may only read it wants to know how good it is, too."""
    try:
        write(*arguments, **named)
    except MlflowException as error:
        if error.error_code != NOT_ALLOWED:
            raise
        return False
    return True


def _log_state(drift: Drift, table: ScoredTable, model: FetchedModel, dataset: PandasDataset) -> dict[str, float]:
    """Log what needs no labels: region shares, and how far scores and columns are from training."""
    bundle = model.bundle
    metrics = log_drift(drift, dataset, model.model_id)
    mlflow.log_figure(column_drift_figure(drift.column_psi, ANOTHER_POPULATION), "drift.png")
    ends = [("intervals", bundle.curve.thresholds)]
    mlflow.log_figure(score_distributions_figure(bundle.histogram, table.scores.score, ends), "scores.png")
    return metrics


def region_table(table: ScoredTable) -> pd.DataFrame:
    """A row a region: rows and their share and, with labels, anomalies, their share, and the error there.

    Normal rows in `abnormal` and anomalies in `normal` are errors; `unknown` decides nothing and has none. A share of
    nothing, as the error of an empty region, is NaN.
    """
    rows = []
    for code, region in enumerate(REGIONS):
        members = table.scores.codes == code
        row: dict[str, Any] = {"region": region, "rows": int(members.sum()), "share": float(members.mean())}
        if table.labels is not None:
            anomalies = int(table.labels[members].sum())
            wrong = {"normal": anomalies, "unknown": np.nan, "abnormal": row["rows"] - anomalies}[region]
            row |= {"anomalies": anomalies, "share_of_anomalies": _share(anomalies, int(table.labels.sum()))}
            row["error"] = _share(wrong, row["rows"])
        rows.append(row)
    return pd.DataFrame(rows)


def most_abnormal(table: ScoredTable, bundle: Bundle) -> pd.DataFrame:
    """The rows with the highest scores, and the columns that contribute most to each with their values."""
    top = np.argsort(-table.scores.score, kind="stable")[:MOST_ABNORMAL]
    columns, shares = contributions(bundle, table.inputs[top], SHOWN_CONTRIBUTORS)
    names = np.asarray(bundle.schema.graph_order)[columns]
    told = [
        ", ".join(
            f"{name}={_cell(table.rows[name].iloc[row])} ({share:.0%})" for name, share in zip(*pair, strict=True)
        )
        for row, pair in zip(top, zip(names, shares, strict=True), strict=True)
    ]
    scores = {name: np.asarray(values)[top] for name, values in table.scores.columns().items()}
    label = {} if table.classes is None else {"label": table.classes.to_numpy()[top]}
    # What MLflow's page shows of a wide table are the first columns.
    return pd.DataFrame({"row": top} | label | {"contributors": told} | scores)


def _cell(value: Any) -> str:
    """A value as a person reads it: a number without what binary arithmetic adds to it, a gap as one."""
    if pd.isna(value):
        return "missing"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def decided_error(regions: pd.DataFrame) -> float:
    """Share of the rows in `normal` and `abnormal` that are in the wrong one; NaN where no row is decided."""
    decided = regions[regions["region"] != "unknown"]
    return _share(float((decided["error"] * decided["rows"]).sum()), int(decided["rows"].sum()))


def _share(part: float, whole: int) -> float:
    return part / whole if whole else float("nan")


def _log_quality(
    table: ScoredTable, labels: Labels, regions: pd.DataFrame, model: FetchedModel, dataset: PandasDataset
) -> dict[str, float]:
    """Log what labels tell, through MLflow's evaluation where that carries it."""
    metrics = _evaluated(table.scores.score, labels, model, dataset)
    error = calibration_error(anomaly_probability(table.scores.confidence), labels)
    more = {"decided_error": decided_error(regions), "calibration_error": error}
    assert table.classes is not None
    recalls = _class_recalls(table.classes, labels, model.bundle, table.scores.score)
    if len(recalls):
        mlflow.log_table(recalls, "classes.json")
        named = zip(metric_names(recalls["label"].map(str)), recalls["decision"], strict=True)
        more |= {f"recall/{name}": float(recall) for name, recall in named}
    more = {name: value for name, value in more.items() if np.isfinite(value)}
    mlflow.log_metrics(more, model_id=model.model_id, dataset=dataset)
    _log_curves(table.scores, labels)
    return metrics | more


def called_anomalies(bundle: Bundle, scores: Floats) -> dict[str, npt.NDArray[np.bool_]]:
    """The rows called anomalies at each threshold and where a decision is forced, each of shape (n,)."""
    regions = bundle.curve.thresholds.regions(scores)
    return {
        "normal": regions != "normal",
        "decision": scores > bundle.curve.decision,
        "abnormal": regions == "abnormal",
    }


def _evaluated(scores: Floats, labels: Labels, model: FetchedModel, dataset: PandasDataset) -> dict[str, float]:
    """Ranking, and decisions at both thresholds and where they are forced, by `mlflow.models.evaluate`."""
    wanted = {f"at_{at}": _decisions(model.bundle, at) for at in ("normal", "decision", "abnormal")}
    if has_both_classes(labels):
        wanted |= {name: _ranking(name) for name in ("auc", "ap")}
    make: Any = make_metric  # MLflow leaves both without types
    run: Any = mlflow.models.evaluate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints on whole numbers, of no use here
        # Named as the table that was scored, so that MLflow finds its runs by name and digest.
        rows = from_pandas(
            pd.DataFrame({"score": scores, "label": labels}),
            source=dataset.source,
            name=dataset.name,
            digest=dataset.digest,
            targets="label",
            predictions="score",
        )
        result = run(
            data=rows,
            extra_metrics=[make(eval_fn=of, greater_is_better=True, name=name) for name, of in wanted.items()],
            model_id=model.model_id,
        )
    mlflow.clear_active_model()  # evaluate leaves it set, and what this process logs later would be attached to it
    return {name: float(value) for name, value in result.metrics.items()}


def _decisions(bundle: Bundle, at: str) -> EvalFn:
    def eval_fn(predictions: pd.Series, targets: pd.Series, metrics: Any) -> MetricValue:
        called, labels = called_anomalies(bundle, predictions.to_numpy())[at], targets.to_numpy()
        found = decision_metrics(called, labels)
        # All but one are of the anomalies.
        return MetricValue(aggregate_results=found if labels.any() else {"accuracy": found["accuracy"]})

    return eval_fn


def _ranking(name: str) -> EvalFn:
    def eval_fn(predictions: pd.Series, targets: pd.Series, metrics: Any) -> float:
        return ranking_metrics(predictions.to_numpy(), targets.to_numpy())[name]

    return eval_fn


def _class_recalls(classes: pd.Series, labels: Labels, bundle: Bundle, scores: Floats) -> pd.DataFrame:
    """For each class of anomalies, its rows and the share of them called anomalies; empty for a single class."""
    if not 1 < classes[labels == 1].nunique() <= MAX_CLASSES:
        return pd.DataFrame()
    grouped = pd.DataFrame({"label": classes} | called_anomalies(bundle, scores))[labels == 1].groupby("label")
    recalls: pd.DataFrame = grouped.mean().assign(rows=grouped.size())
    return recalls.sort_values("rows", ascending=False).reset_index()


def _log_curves(scores: Scores, labels: Labels) -> None:
    mlflow.log_figure(reliability_figure(scores.confidence, labels), "reliability.png")
    mlflow.log_figure(risk_coverage_figure(scores.confidence, labels), "risk_coverage.png")
    if has_both_classes(labels):
        mlflow.log_figure(roc_figure(scores.score, labels), "roc.png")
        mlflow.log_figure(precision_recall_figure(scores.score, labels), "precision_recall.png")


def metric_names(labels: Iterable[str]) -> list[str]:
    """Labels as parts of metrics' names, which MLflow allows few signs and `LABEL_LENGTH` of in; no two are alike."""
    names: list[str] = []
    for label in labels:
        plain = re.sub(r"[^\w\-. ]", "_", label)[:LABEL_LENGTH]
        plain = name = plain if plain.strip(".") else "_"  # dots alone would be a folder
        number = 1
        while name in names:
            number += 1
            name = f"{plain} {number}"
        names.append(name)
    return names
