"""Any data module, with a confidence for each of its training rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    default_collate,
    default_convert,
)

from ssad.datasets.interfaces import DatasetWithInputDim
from ssad.datasets.rows import (
    DatasetWithConfidence,
    RowBatches,
    RowLoader,
    data_and_label,
    init_confidence_from_csv,
)

CPU = torch.device("cpu")

BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
"""Lightning's, of a data module: what they are given has no confidence."""


class SelfSupervisionDataModule(L.LightningDataModule):
    """Wraps any `LightningDataModule`: its training rows get a confidence that travels with them.

    Attributes:
        datamodule: the wrapped module; its validation and test loaders are used as they are.
        train: the training rows with their confidence.
        input_dim: number of features of a row.
        batch_size: rows in a training batch.
    """

    def __init__(self, datamodule: L.LightningDataModule, path_confidence: str | Path | None = None) -> None:
        """Prepare and set up `datamodule` for fitting; start from the confidence in a CSV, or from all ones.

        Raises:
            DatasetError: the CSV does not fit the training rows.
            TypeError: `datamodule` is none, or changes batches or picks rows, of which those here would know nothing.
        """
        super().__init__()
        if not isinstance(datamodule, L.LightningDataModule):
            raise TypeError(
                f"expected a LightningDataModule to wrap, got {type(datamodule).__name__}; "
                "LightningDataModule.from_datasets makes one of datasets."
            )
        own = [f"{hook}()" for hook in BATCH_HOOKS if is_overridden(hook, datamodule)]
        if own:
            raise TypeError(_of_its_own(datamodule, own))
        self.datamodule = datamodule
        datamodule.prepare_data()
        datamodule.setup("fit")
        rows, self.batch_size = _training_rows(datamodule)
        self.train = DatasetWithConfidence(rows, init_confidence_from_csv(rows, path_confidence))
        self.input_dim = (
            rows.input_dim() if isinstance(rows, DatasetWithInputDim) else data_and_label(rows[0])[0].numel()
        )

    def setup(self, stage: str) -> None:
        """Set up the wrapped module for what fitting, done at construction, did not; its trainer is this one's."""
        self.datamodule.trainer = self.trainer
        if stage != "fit":
            self.datamodule.setup(stage)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches in random order, dicts with `data`, `label` and `confidence`."""
        return self._loader(self.batch_size, shuffle=True)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: every row's confidence, and what the wrapped module keeps."""
        return {"confidence": self.train.confidence, "wrapped": self.datamodule.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the confidence of a checkpoint, and let the wrapped module take up its own."""
        self.train.confidence.copy_(state_dict["confidence"])
        self.datamodule.load_state_dict(state_dict["wrapped"])

    def val_dataloader(self) -> Any:
        """The wrapped module's validation batches; none where it has none."""
        return self._wrapped("val_dataloader")

    def test_dataloader(self) -> Any:
        """The wrapped module's test batches, likewise."""
        return self._wrapped("test_dataloader")

    def predict_dataloader(self) -> Any:
        """The wrapped module's batches to predict, likewise."""
        return self._wrapped("predict_dataloader")

    def _wrapped(self, loader: str) -> Any:
        return getattr(self.datamodule, loader)() if is_overridden(loader, self.datamodule) else []

    def teardown(self, stage: str) -> None:
        """Leave nothing on a GPU, and let the wrapped module put away what `setup` let it set up."""
        self.train.keep_on(CPU)
        if stage != "fit":  # whose rows are in here for good
            self.datamodule.teardown(stage)

    def supervision_dataloader(self) -> DataLoader[Any]:
        """Every training row once, in dataset order; of several processes each has a stretch of it."""
        return self._loader(SCORING_BATCH)

    def _loader(self, batch_size: int, shuffle: bool = False) -> DataLoader[Any]:
        trainer = self.trainer
        ranks, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        self.train.keep_on(trainer.strategy.root_device if trainer and trainer.training else CPU)
        return RowLoader(self.train, sampler=RowBatches(len(self.train), batch_size, shuffle, ranks, rank))


SCORING_BATCH = 8192
"""Rows handed to scoring at once: enough that a loader's step does not count; the module cuts them as it likes."""


def _training_rows(datamodule: L.LightningDataModule) -> tuple[Any, int]:
    """The training dataset and the batch size, from the module's attributes or its training loader."""
    rows, batch_size = getattr(datamodule, "train", None), getattr(datamodule, "batch_size", None)
    known = rows is not None and batch_size is not None
    if known and not is_overridden("train_dataloader", datamodule):
        return rows, batch_size or SCORING_BATCH
    try:
        loader = datamodule.train_dataloader()
    except AttributeError:  # one that asks its trainer, which there is not yet, cannot be looked at
        if known and datamodule.trainer is None:
            return rows, batch_size or SCORING_BATCH
        raise
    rows = _dataset_of(datamodule, loader, rows)
    own = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    return rows, (own if batch_size is None else batch_size) or SCORING_BATCH


def _dataset_of(datamodule: L.LightningDataModule, loader: Any, rows: Any) -> Any:
    """The dataset of a training loader, or the module's own, if the loader gives its rows as they are.

    Raises:
        TypeError: it does not.
    """
    name = type(datamodule).__name__
    if not isinstance(loader, DataLoader):
        raise TypeError(
            f"{name}.train_dataloader() gives a {type(loader).__name__}, expected one DataLoader of all training rows."
        )
    rows = loader.dataset if rows is None else rows
    if isinstance(loader.dataset, IterableDataset):
        raise TypeError(
            f"{name} trains on a {type(loader.dataset).__name__}, an iterable dataset, whose rows have no numbers; "
            "confidence belongs to a row by its number, so give it a dataset with __getitem__ and __len__."
        )
    if loader.collate_fn not in (default_collate, default_convert):
        raise TypeError(_of_its_own(datamodule, ["its loader's collate_fn"]))
    batches = loader.batch_sampler
    sampler = batches.sampler if type(batches) is BatchSampler else loader.sampler if batches is None else batches
    picks = loader.dataset if isinstance(loader.dataset, Subset) and loader.dataset is not rows else sampler
    if not _takes_every_row(picks):
        raise TypeError(
            f"{name} picks rows by a {type(picks).__name__}, expected every training row once an epoch; leave the "
            "others out of its training dataset."
        )
    return rows


def _takes_every_row(sampler: Any) -> bool:
    if isinstance(sampler, RandomSampler):
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return isinstance(sampler, SequentialSampler | DistributedSampler)


def _of_its_own(datamodule: L.LightningDataModule, parts: list[str]) -> str:
    return (
        f"{type(datamodule).__name__} changes batches by {', '.join(parts)}, expected rows that are batched as they "
        "are; change the rows where its training dataset gives them."
    )
