"""From training rows to a detector that can be written as a bundle. Sees no labels."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from safetensors.torch import save as save_safetensors

from ssad.bundle import TableSchema, write_bundle
from ssad.bundle.bundle import WEIGHTS
from ssad.bundle.intervals import Floats
from ssad.confidence_estimators import served_curve
from ssad.datamodules import SelfSupervisionDataModule
from ssad.datamodules.features import feature_rows
from ssad.datamodules.splits import holdout_split
from ssad.datasets.rows import TensorRows
from ssad.datasets.schema import Survey, survey_rows
from ssad.datasets.table_rows import TableRows, table_rows
from ssad.detectors.presets import Preset, preset
from ssad.detectors.scoring_graph import export_onnx
from ssad.distribution_analyzers import ConformalThresholding
from ssad.distribution_analyzers.conformal import rows_to_promise
from ssad.errors import DatasetError, SettingsError, check_settings, nearest, rows_from
from ssad.loggers.logging_config import quiet
from ssad.models import TableEncoder
from ssad.modules import SelfSupervisionCallback, SelfSupervisionModule
from ssad.sampling import spread

EPOCH_BATCHES = 16
"""Batches an epoch of a small table is cut into, so that each epoch makes some progress."""

MIN_BATCH, MAX_BATCH = 32, 1024

COUNTS = ("max_epochs", "every_n_epochs", "batch_size")
"""Settings that are whole numbers of at least 1."""

MOST = 2**31 - 1
"""Of any of them: beyond it torch cannot count."""

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
STRATEGIES = ("auto", "ddp")
"""Those of Lightning's under which every process has the whole network, which scores and the bundle need."""

GOLDEN_ROWS = 16
"""Training rows that a bundle keeps with their scores, from the least to the most abnormal."""

HELD_BACK_SHARE = 0.3
"""Of the training rows, where a promise is asked for: ADBench's share of a test part."""


@dataclass(frozen=True)
class FitSettings:
    """What the user may set; None leaves it to the detector.

    Attributes:
        detector: name of a preset, or `module:attribute` of your own.
        max_epochs: epochs, at least 1.
        every_n_epochs: epochs between recalibrations, at least 1.
        batch_size: rows in a batch, at least 1.
        learning_rate: of Adam, above 0.
        seed: fixes the result, bit for bit on one machine.
        alpha: share of normal rows that may be called abnormal, in (0, 1): a part of the training rows is held
            back to keep that; None for no such promise.
    """

    detector: str = "ssad"
    max_epochs: int | None = None
    every_n_epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    alpha: float | None = None

    def __post_init__(self) -> None:
        preset(self.detector)
        check_settings(self._kind_problems())
        problems = [
            f"{name} must be in [1, {MOST}], got {value}"
            for name in COUNTS
            if (value := getattr(self, name)) is not None and not 1 <= value <= MOST
        ]
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            problems.append(f"learning_rate must be above 0, got {self.learning_rate}")
        if self.alpha is not None and not 0 < self.alpha < 1:
            problems.append(f"alpha must be in (0, 1), got {self.alpha}")
        if not 0 <= self.seed < 2**32:
            problems.append(f"seed must be in [0, 2**32), got {self.seed}")
        check_settings(problems)

    def _kind_problems(self) -> list[str]:
        """Settings that are no numbers of their kind; NumPy's own, as a grid search gives, are."""
        kinds = {**dict.fromkeys((*COUNTS, "seed"), Integral), "learning_rate": Real, "alpha": Real}
        return [
            f"{name} must be a {'whole number' if kind is Integral else 'number'}, got {value!r}"
            for name, kind in kinds.items()
            if (value := getattr(self, name)) is not None and not isinstance(value, kind)
        ]


@dataclass(frozen=True)
class Hardware:
    """Where training runs; the names are those of Lightning's `Trainer`.

    Attributes:
        devices: processes on each node, at least 1, each with a GPU where there are any.
        strategy: how they work together: `auto` or `ddp`.
        num_nodes: machines, at least 1.
        precision: of training; scores of the final weights are in the precision in which they are served.
    """

    devices: int = 1
    strategy: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, got {value}"
            for name in ("devices", "num_nodes")
            if (value := getattr(self, name)) < 1
        ]
        if self.precision not in PRECISIONS:
            problems.append(f"there is no precision {self.precision!r}; {nearest(self.precision, PRECISIONS)}")
        if self.strategy not in STRATEGIES:
            problems.append(f"there is no strategy {self.strategy!r}; {nearest(self.strategy, STRATEGIES)}")
        check_settings(problems)


@dataclass(frozen=True)
class Plan:
    """Settings with every value decided, for a number of training rows; those that are held back are none."""

    detector: str
    max_epochs: int
    every_n_epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    alpha: float | None = None

    @classmethod
    def of(cls, settings: FitSettings, rows: int) -> Plan:
        """Fill in what the user left to the detector; NumPy's numbers become Python's, which JSON knows."""
        chosen = preset(settings.detector)
        if settings.alpha is not None:
            rows -= round(rows * HELD_BACK_SHARE)
        batch_size = int(settings.batch_size or batch_size_for(rows))
        max_epochs = int(settings.max_epochs or chosen.max_epochs(math.ceil(rows / batch_size)))
        return cls(
            settings.detector,
            max_epochs,
            int(settings.every_n_epochs or max(1, max_epochs // (chosen.recalibrations + 1))),
            batch_size,
            float(settings.learning_rate or chosen.learning_rate),
            int(settings.seed),
            None if settings.alpha is None else float(settings.alpha),
        )


def batch_size_for(rows: int) -> int:
    """A power of two that makes about `EPOCH_BATCHES` batches, within `MIN_BATCH` and `MAX_BATCH`."""
    wanted = 1 << round(math.log2(max(rows / EPOCH_BATCHES, 1)))
    return min(MAX_BATCH, max(MIN_BATCH, wanted))


class EncodedRows(L.LightningDataModule):
    """Unlabelled feature tensors as a data module, for one that gives out its batches.

    Attributes:
        train: training rows.
        batch_size: rows in a batch.
    """

    def __init__(self, train: TensorRows, batch_size: int) -> None:
        super().__init__()
        self.train, self.batch_size = train, batch_size


class FittedDetector:
    """A trained detector: everything a bundle is made of.

    Attributes:
        plan: how it was trained.
        survey: what the columns are, and some of the training rows.
        schema: the columns.
        encoder: raw columns to features.
        module: the trained module, its intervals those of the final weights.
        training_scores: shape (n,), float64, in the order of the training rows.
        curve: thresholds and confidence.
    """

    def __init__(
        self,
        plan: Plan,
        survey: Survey,
        encoder: TableEncoder,
        module: SelfSupervisionModule,
    ) -> None:
        """Put together what training left."""
        self.plan = plan
        self.survey = survey
        self.schema: TableSchema = survey.schema
        self.encoder = encoder
        self.module = module
        self.training_scores = module.training_scores.numpy()
        self.curve = served_curve(module.confidence_estimator.configuration, self.training_scores)
        self._golden = self._golden_rows()

    def score(self, rows: pd.DataFrame | TableRows, dtype: torch.dtype | None = None) -> Floats:
        """Scores of raw rows by the torch network, shape (n,), computed in `dtype`; None: as they are served.

        Raises:
            RowsError: the rows do not fit the schema.
        """
        rows = table_rows(rows)
        scores, start = np.empty(len(rows)), 0
        for batch in rows.batches():
            with rows_from(start):
                features = self.encoder.encode(self.schema.inputs(batch))
            scored = self.module.score_rows([features], dtype)
            scores[start : start + len(batch)] = scored.numpy()
            start += len(batch)
        return scores

    def promise(self, alpha: float, held_back: TableRows) -> None:
        """Move the abnormal threshold so that at most a share `alpha` of normal rows is called abnormal.

        Args:
            alpha: in (0, 1).
            held_back: raw rows that training has not seen.
        """
        estimator, scores = self.module.confidence_estimator, torch.from_numpy(self.score(held_back))
        analyzer = ConformalThresholding(alpha)
        estimator.configuration = analyzer.analyze_distribution(scores, estimator.configuration)
        self.plan = replace(self.plan, alpha=float(alpha))
        self.curve = served_curve(estimator.configuration, self.training_scores)

    def write_bundle(self, path: Path) -> None:
        """Write the bundle into a folder."""
        weights = {name: tensor.contiguous() for name, tensor in self.module.state_dict().items()}
        facts: Mapping[str, Any] = {
            "detector": self.plan.detector,
            "plan": vars(self.plan),
            "training_rows": len(self.training_scores),
        }
        write_bundle(
            path,
            {**export_onnx(self.encoder, self.module, self.survey.sample), WEIGHTS: save_safetensors(weights)},
            self.schema,
            self.curve,
            self.training_scores,
            self.survey.sample,
            self._golden,
            facts,
        )

    def _golden_rows(self) -> tuple[dict[str, list[Any]], Floats]:
        """Sampled rows evenly spread over the order of their scores, as they were read, with the scores."""
        scores = self.training_scores[self.survey.sampled]
        order = np.argsort(scores, kind="stable")
        chosen = order[spread(len(order), GOLDEN_ROWS)]
        return self.schema.plain_values(self.survey.sample[chosen]), scores[chosen]


def hold_back(rows: TableRows, alpha: float, seed: int) -> tuple[TableRows, TableRows]:
    """Training rows, and random rows that training may not see.

    Raises:
        DatasetError: too few are held back for a conformal p-value as small as `alpha`.
    """
    train, held_back = holdout_split(len(rows), None, HELD_BACK_SHARE, seed)
    if len(held_back) < rows_to_promise(alpha):
        raise DatasetError(
            f"alpha={alpha:g} needs at least {rows_to_promise(alpha)} held-back rows, {HELD_BACK_SHARE:.0%} of "
            f"{len(rows)} training rows are {len(held_back)}; bring more rows or ask for a larger alpha."
        )
    return rows.at(train), rows.at(held_back)


def fit_detector(
    rows: pd.DataFrame | TableRows,
    settings: FitSettings,
    confidence: Path | None = None,
    checkpoint: Path | None = None,
    **trainer: Any,
) -> FittedDetector:
    """Train a detector on unlabelled rows.

    Args:
        rows: raw columns, in memory or in files; there must be no label among them.
        settings: the detector and what the user sets of it.
        confidence: a CSV with the initial confidence of each row that is not held back; None leaves it to the
            detector.
        checkpoint: of a training on the same rows with the same settings, to go on from.
        trainer: what else Lightning's `Trainer` takes: logger, callbacks, devices, strategy, precision.

    Raises:
        DatasetError: nothing to learn from, or the confidence does not fit the rows.
        SettingsError: the checkpoint is of another network.
        TrainingError: the loss or a score is not finite.
    """
    rows = table_rows(rows)
    if settings.alpha is not None:
        train, held_back = hold_back(rows, settings.alpha, settings.seed)
        detector = fit_detector(train, replace(settings, alpha=None), confidence, checkpoint, **trainer)
        detector.promise(settings.alpha, held_back)
        return detector
    plan = Plan.of(settings, len(rows))
    chosen: Preset = preset(plan.detector)
    L.seed_everything(plan.seed, workers=True, verbose=False)
    survey = survey_rows(rows)
    encoder = TableEncoder(survey.schema, survey.sample, survey.gaps)
    features = feature_rows(rows, encoder)
    datamodule = SelfSupervisionDataModule(
        EncodedRows(TensorRows(features), plan.batch_size), path_confidence=confidence
    )
    if confidence is None and chosen.first_confidence is not None:
        datamodule.train.confidence.copy_(chosen.first_confidence(features, plan.seed))
    module = chosen.build(features, plan.every_n_epochs, plan.learning_rate)
    # Notes on hardware, an advertisement, and advice on loaders, which are ours to choose.
    notes = quiet("lightning.pytorch.utilities.rank_zero", logging.WARNING, r"lightning\.")
    with _interruptible(), notes, _same_network(checkpoint):
        fit = lightning_trainer(plan, **trainer)
        fit.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    module._trainer = None  # which holds all features
    return FittedDetector(plan, survey, encoder, module)


@contextmanager
def _same_network(checkpoint: Path | None) -> Iterator[None]:
    """Say so where a checkpoint does not fit the network, of which torch tells by a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        if checkpoint is None or "state_dict" not in str(error):
            raise
        raise SettingsError(
            "the checkpoint is of another network than the detector has now; train without resume, or by the version "
            "of the detector that wrote it."
        ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is a `KeyboardInterrupt`, of which Lightning makes an exit, and ignores every further one."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise stop.__context__ from None


def lightning_trainer(plan: Plan, callbacks: Sequence[L.Callback] = (), **settings: Any) -> L.Trainer:
    """A trainer for a plan; `settings` are further ones of Lightning's, and go before those here."""
    return L.Trainer(
        max_epochs=plan.max_epochs,
        callbacks=[SelfSupervisionCallback(stop_when_settled=True), *callbacks],
        deterministic="warn",
        **{
            "accelerator": "auto",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            **settings,
        },
    )
