"""From training rows to a detector that can be written as a bundle. Sees no labels."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
from ssad.detectors.plan import HELD_BACK_SHARE, FitSettings, Plan
from ssad.detectors.presets import Preset, preset
from ssad.detectors.same_for_all import SameForAll
from ssad.detectors.scoring_graph import export_onnx
from ssad.distribution_analyzers import ConformalThresholding
from ssad.distribution_analyzers.conformal import rows_to_promise
from ssad.errors import DatasetError, SettingsError, rows_from
from ssad.loggers.logging_config import quiet
from ssad.models import TableEncoder
from ssad.modules import SelfSupervisionCallback, SelfSupervisionModule
from ssad.sampling import spread

GOLDEN_ROWS = 16
"""Training rows that a bundle keeps with their scores, from the least to the most abnormal."""


class EncodedRows(L.LightningDataModule):
    """Unlabelled feature tensors as a data module without loaders: `SelfSupervisionDataModule` makes the batches.

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
        # Copies, as two layers may share their weights and safetensors takes no tensor twice.
        weights = {name: tensor.clone().contiguous() for name, tensor in self.module.state_dict().items()}
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
        DatasetError: nothing to learn from, the confidence does not fit the rows, or another process has other rows.
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
    callbacks = [
        SameForAll(rows, plan, trainer.get("precision"), confidence, checkpoint),
        *trainer.pop("callbacks", ()),
    ]
    # Notes on hardware, an advertisement, and advice on loaders, which are ours to choose.
    notes = quiet("lightning.pytorch.utilities.rank_zero", logging.WARNING, r"lightning\.")
    with _interruptible(), notes, _same_network(checkpoint):
        fit = lightning_trainer(plan, callbacks, **trainer)
        fit.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    module.trainer = None  # which holds all features
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
