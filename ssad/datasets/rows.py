"""Rows and their confidence as contiguous tensors: a batch is one indexing, never a loop over rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from ssad.errors import DatasetError

UNLABELLED = -1
"""The label of a row that nobody labelled."""

Batch = dict[str, torch.Tensor]


class DataFrameToTensor:
    """A DataFrame, Series or scalar as a float32 tensor of the same shape; labels are rounded by no one."""

    def __call__(self, df: Any) -> torch.Tensor:
        """Convert; raises ValueError where a cell is not a number."""
        return torch.from_numpy(np.asarray(df, dtype=np.float32))


class DataFrameWithLabels(Dataset[tuple[Any, Any]]):
    """Rows of a numeric DataFrame and the column that labels them.

    Without transforms, or with `DataFrameToTensor`, all rows are converted once; another transform is
    applied to each row as it is asked for.
    """

    def __init__(
        self,
        data: pd.DataFrame,
        label_column_name: str,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        """Take rows `data`, with the label (0 normal, 1 anomaly) in `label_column_name`.

        Raises:
            DatasetError: there is no such column.
        """
        if label_column_name not in data:
            raise DatasetError(
                f"no label column {label_column_name!r} in the data; its columns are {', '.join(map(str, data))}."
            )
        self.label_column_name = label_column_name
        self.features = data.drop(columns=label_column_name)
        self.labels = data[label_column_name]
        self.transform = transform
        self.target_transform = target_transform
        self._by_row = any(
            t is not None and not isinstance(t, DataFrameToTensor) for t in (transform, target_transform)
        )
        if not self._by_row:
            self._features = DataFrameToTensor()(self.features)
            self._labels = DataFrameToTensor()(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, idx: int) -> tuple[Any, Any]:
        if not self._by_row:
            return self._features[idx], self._labels[idx]
        convert, convert_label = (
            self.transform or DataFrameToTensor(),
            self.target_transform or DataFrameToTensor(),
        )
        return convert(self.features.iloc[idx]), convert_label(self.labels.iloc[idx])

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A whole batch at once, collated: data (n, d) and labels (n,)."""
        if self._by_row:
            batch: tuple[torch.Tensor, torch.Tensor] = tuple(default_collate([self[i] for i in indices]))
            return batch
        at = torch.as_tensor(indices)
        return self._features[at], self._labels[at]

    def collate(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows as a batch; one from `__getitems__` is one already."""
        collated: tuple[torch.Tensor, torch.Tensor] = collate(batch)
        return collated

    def input_dim(self) -> int:
        """Number of features of a row."""
        return self.features.shape[1]

    def get_stats(self) -> tuple[int, int, int]:
        """Rows in all, normal ones, anomalies."""
        anomalies = int((self.labels != 0).sum())
        return len(self), len(self) - anomalies, anomalies


class TensorRows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Rows that are tensors already.

    Attributes:
        data: features, shape (n, d), float32.
        labels: 0 normal, 1 anomaly, `UNLABELLED`; shape (n,), float32.
    """

    def __init__(self, data: torch.Tensor, labels: torch.Tensor | None = None) -> None:
        self.data = data
        self.labels = torch.full((len(data),), float(UNLABELLED)) if labels is None else labels.float()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.data[idx], self.labels[idx]

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A whole batch at once, collated."""
        at = torch.as_tensor(indices)
        return self.data[at], self.labels[at]

    def input_dim(self) -> int:
        """Number of features of a row."""
        return self.data.shape[1]


class DatasetWithConfidence(Dataset[Batch]):
    """Any dataset with a confidence for each of its rows.

    Items and batches are dicts with `data`, `label` and `confidence`; rows are found by their index in
    the dataset, so that confidence stays with its row however a sampler shuffles.

    Attributes:
        dataset: items are (data, label), a dict with `data`, or data alone.
        confidence: shape (n,), float32, in [-1, 1].
    """

    def __init__(self, dataset: Any, confidence: torch.Tensor) -> None:
        """Attach `confidence`, shape (len(dataset),).

        Raises:
            DatasetError: another number of values than rows.
        """
        if confidence.shape != (len(dataset),):
            raise DatasetError(
                f"expected one confidence for each of the {len(dataset)} rows, got shape {tuple(confidence.shape)}."
            )
        self.dataset = dataset
        self.confidence = confidence.float()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> Batch:
        data, label = data_and_label(self.dataset[idx])
        label = torch.tensor(UNLABELLED) if label is None else torch.as_tensor(label)
        return {"data": data, "label": label, "confidence": self.confidence[idx]}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once: data (n, ...), label (n,), confidence (n,)."""
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(indices) if fetch else [self.dataset[i] for i in indices]
        data, label = data_and_label(items if _is_batch(items) else default_collate(items))
        label = torch.full((len(data),), UNLABELLED) if label is None else label
        return {"data": data, "label": label, "confidence": self.confidence[torch.as_tensor(indices)]}


def data_and_label(item: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Data and label of a row or a batch: a pair, a dict, or data alone, whose label is None."""
    if isinstance(item, Mapping):
        data, label = item["data"], item.get("label")
    elif isinstance(item, tuple | list):
        data, label = item[0], item[1] if len(item) > 1 else None
    else:
        data, label = item, None
    return torch.as_tensor(data), label


def collate(items: Any) -> Any:
    """Make a batch of rows; what a dataset's `__getitems__` gave as a batch passes through."""
    return items if _is_batch(items) else default_collate(items)


def _is_batch(items: Any) -> bool:
    return isinstance(items, Mapping | tuple | torch.Tensor)


def row_loader(dataset: Any, batch_size: int, shuffle: bool = False) -> DataLoader[Any]:
    """A loader over rows of this module's datasets, which fetch a batch in one indexing."""
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, collate_fn=collate)


def init_confidence_from_csv(dataset: Any, path: str | Path | None) -> torch.Tensor:
    """Confidence for each row of `dataset`, shape (n,), float32.

    Args:
        dataset: the training rows.
        path: a CSV with one column `confidence` and a row a sample in dataset order; None: all ones.

    Raises:
        DatasetError: no such file, another number of rows, or a value outside [-1, 1].
    """
    if path is None:
        return torch.ones(len(dataset))
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"the initial confidence {path} cannot be read ({error}); give a CSV file.") from error
    if table.shape != (len(dataset), 1):
        raise DatasetError(
            f"the initial confidence {path} has {table.shape[0]} rows and {table.shape[1]} columns, expected one "
            f"column with a row for each of the {len(dataset)} training rows."
        )
    values = pd.to_numeric(table.iloc[:, 0], errors="coerce").to_numpy(dtype=np.float32)
    if not (np.abs(values) <= 1).all():
        raise DatasetError(f"the initial confidence {path} has values outside [-1, 1]; -1 is surely abnormal.")
    return torch.from_numpy(values)


def save_confidence_to_csv(dataset: DatasetWithConfidence, path: str | Path) -> None:
    """Write one column `confidence`, a row a sample in dataset order, as `init_confidence_from_csv` reads it."""
    pd.DataFrame({"confidence": dataset.confidence.cpu().numpy()}).to_csv(path, index=False)
