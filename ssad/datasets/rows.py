"""Rows and their confidence as contiguous tensors: a batch is one indexing, never a loop over rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pyarrow import csv
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate
from torch.utils.data.distributed import DistributedSampler

from ssad.errors import DatasetError

UNLABELLED = -1
"""The label of a row that nobody labelled."""

Batch = dict[str, torch.Tensor]

Picked = slice | torch.Tensor
"""Rows of a batch: a stretch of the dataset, or positions in it, shape (n,), int64."""

KEPT_SHARE = 0.5
"""Of a GPU's free memory that rows may take; the rest is for the network and what a batch makes of it."""


class DataFrameToTensor:
    """A DataFrame, Series, tensor or scalar as a float32 tensor of the same shape, NaN where a value is missing.

    Labels are not rounded.
    """

    def __call__(self, df: Any) -> torch.Tensor:
        """Convert; raises ValueError where a cell is not a number."""
        if isinstance(df, torch.Tensor):
            return df.float()
        if isinstance(df, pd.DataFrame | pd.Series):  # a copy: the table stays its owner's
            return torch.from_numpy(df.to_numpy(dtype=np.float32, na_value=np.nan, copy=True))
        return torch.from_numpy(np.array(df, dtype=np.float32))


class DataFrameWithLabels(Dataset[tuple[Any, Any]]):
    """Rows of a numeric DataFrame and the column that labels them, converted once.

    A transform other than `DataFrameToTensor` is applied to each row, or label, as it is asked for. A row is a tensor
    of shape (d,), a label one of shape (); the published library's label has shape (1,).

    Attributes:
        data: features, shape (n, d), float32.
        labels: shape (n,), float32.
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
            ValueError: a cell is not a number.
        """
        if label_column_name not in data:
            raise DatasetError(
                f"no label column {label_column_name!r} in the data; its columns are {', '.join(map(str, data))}."
            )
        self.label_column_name = label_column_name
        self.data = DataFrameToTensor()(data.drop(columns=label_column_name))
        self.labels = DataFrameToTensor()(data[label_column_name])
        self.transform = transform
        self.target_transform = target_transform
        self._by_row = any(
            t is not None and not isinstance(t, DataFrameToTensor) for t in (transform, target_transform)
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, idx: Any) -> tuple[Any, Any]:
        """A row by its number, or a batch by `Picked`."""
        if self._by_row and _several(idx):
            batch: tuple[Any, Any] = tuple(default_collate([self[i] for i in _numbers(idx, len(self))]))
            return batch
        data, label = rows_at(self.data, idx), rows_at(self.labels, idx)
        if not self._by_row:
            return data, label
        transformed = self.transform(data) if self.transform else data
        return transformed, self.target_transform(label) if self.target_transform else label

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What batches are rows of; nothing where a transform makes each row."""
        return () if self._by_row else (self.data, self.labels)

    def input_dim(self) -> int:
        """Number of features of a row."""
        return self.data.shape[1]

    def get_stats(self) -> tuple[int, int, int]:
        """Rows in all, normal ones, anomalies; one without a label is neither."""
        normal = self.labels == 0
        return len(self), int(normal.sum()), int((~normal & ~self.labels.isnan()).sum())


class TensorRows(TensorDataset):
    """Rows that are tensors already, in memory or mapped from a file.

    Attributes:
        data: features, shape (n, d), float32.
        labels: 0 normal, 1 anomaly, `UNLABELLED`; shape (n,), float32.
    """

    def __init__(self, data: torch.Tensor, labels: torch.Tensor | None = None) -> None:
        # Expanded, so that the labels nobody gave take no memory.
        labels = torch.tensor(float(UNLABELLED)).expand(len(data)) if labels is None else labels.float()
        super().__init__(data, labels)
        self.data, self.labels = data, labels

    def __getitem__(self, index: Any) -> tuple[torch.Tensor, ...]:
        """A row by its number, or a batch by `Picked`."""
        return tuple(rows_at(tensor, index) for tensor in self.tensors)

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
        self.confidence = confidence.to(torch.float32, copy=True)
        self._kept: TensorDataset | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: Any) -> Batch:
        """A row by its number, or a batch by `Picked`: data (n, ...), label (n,), confidence (n,)."""
        if not _several(idx):
            data, label = data_and_label(self.dataset[idx])
            label = torch.tensor(UNLABELLED) if label is None else torch.as_tensor(label)
            return {"data": data, "label": label, "confidence": self.confidence[idx]}
        kept = self._kept
        data, label = data_and_label(_fetch(self.dataset, idx) if kept is None else kept[_there(idx, kept)])
        label = torch.full((len(data),), UNLABELLED) if label is None else label
        return {"data": data, "label": label, "confidence": rows_at(self.confidence, idx)}

    def keep_on(self, device: torch.device) -> None:
        """Keep a copy of the rows on a GPU that has room for it, and gather batches there; with the CPU, no longer.

        Its memory is ten times as fast as the way there. Rows that are no plain tensors stay where they are.
        """
        if device.type == "cpu":
            self._kept = None
            return
        if self._kept is not None and self._kept.tensors[0].device == device:
            return
        self._kept, tensors = None, _tensors(self.dataset)
        if tensors and sum(tensor.nbytes for tensor in tensors) <= KEPT_SHARE * _free_bytes(device):
            self._kept = TensorDataset(*(tensor.to(device) for tensor in tensors))


def rows_at(tensor: torch.Tensor, at: int | Picked) -> torch.Tensor:
    """Rows of a tensor: a view of a stretch, a copy of scattered ones, five times as fast as by `tensor[at]`."""
    return tensor.index_select(0, at) if isinstance(at, torch.Tensor) and at.ndim else tensor[at]


def _several(at: Any) -> bool:
    """Whether this asks for a batch; a number, a tensor of one among them, asks for a row."""
    return isinstance(at, slice) or (isinstance(at, torch.Tensor) and at.ndim > 0)


AT_ONCE = (TensorDataset.__getitem__, TensorRows.__getitem__, DataFrameWithLabels.__getitem__)
"""How datasets give a batch by one indexing."""


def _tensors(dataset: Any) -> tuple[torch.Tensor, ...]:
    """What a dataset's batches are rows of; nothing where it makes them otherwise."""
    return dataset.tensors if type(dataset).__getitem__ in AT_ONCE else ()


def _there(at: Picked, rows: TensorDataset) -> Picked:
    """The same positions on the device that the rows are on."""
    return at.to(rows.tensors[0].device) if isinstance(at, torch.Tensor) else at


def _free_bytes(device: torch.device) -> int:
    """Free memory of a GPU; 0 of what does not tell."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def _fetch(dataset: Any, at: Picked) -> Any:
    """A batch of a dataset's rows, in one indexing where the dataset can."""
    if type(dataset).__getitem__ in AT_ONCE:  # one that a subclass wrote may know rows alone
        return dataset[at]
    numbers = _numbers(at, len(dataset))
    if type(dataset) is Subset and type(dataset.dataset).__getitem__ in AT_ONCE:
        whole: Any = dataset.dataset
        rows = range(len(whole))
        return _fetch(whole, torch.tensor([rows[dataset.indices[number]] for number in numbers]))
    fetch = getattr(dataset, "__getitems__", None)
    return default_collate(fetch(numbers) if fetch else [dataset[number] for number in numbers])


def _numbers(at: Picked, rows: int) -> list[int]:
    return list(range(rows)[at]) if isinstance(at, slice) else at.tolist()


def data_and_label(item: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Data and label of a row or a batch: a pair, a dict, or data alone, whose label is None."""
    if isinstance(item, Mapping):
        data, label = item["data"], item.get("label")
    elif isinstance(item, tuple | list):
        data, label = item[0], item[1] if len(item) > 1 else None
    else:
        data, label = item, None
    return torch.as_tensor(data), label


class RowBatches(DistributedSampler[Any]):
    """Batches as positions, so that a dataset fetches each by one indexing; for several processes as for one.

    In order, each process has one stretch of the rows, and its batches are slices: joined by rank they are the
    dataset. Shuffled, each process has its part of every batch, so that a batch has `batch_size` rows over all of
    them; the order depends on seed and epoch alone, not on what else draws random numbers. The seed is
    Lightning's, and 0 without `seed_everything`. It is a `DistributedSampler` because Lightning puts its own in
    the place of any other.
    """

    def __init__(self, rows: int, batch_size: int, shuffle: bool = False, ranks: int = 1, rank: int = 0) -> None:
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        super().__init__(TensorRows(torch.empty(rows, 0)), ranks, rank, shuffle, seed)
        self.rows, self.batch_size = rows, batch_size

    def __iter__(self) -> Iterator[Any]:
        return self._shuffled() if self.shuffle else self._in_order()

    def __len__(self) -> int:
        return -(-len(range(self.rows) if self.shuffle else self.stretch) // self.batch_size)

    @property
    def stretch(self) -> range:
        """The rows of this process, where they come in order."""
        size = -(-self.rows // self.num_replicas)
        return range(self.rows)[self.rank * size : (self.rank + 1) * size]

    def _in_order(self) -> Iterator[slice]:
        for start in self.stretch[:: self.batch_size]:
            yield slice(start, min(start + self.batch_size, self.stretch.stop))

    def _shuffled(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        for batch in torch.split(torch.randperm(self.rows, generator=generator), self.batch_size):
            # A last batch with fewer rows than processes repeats one: none may be without.
            yield batch[min(self.rank, len(batch) - 1) :: self.num_replicas]


class RowLoader(DataLoader[Any]):
    """A loader over rows of this module's datasets, which fetch a batch in one indexing.

    A step asks for the batch alone, without what torch does around it for workers, collation and profiles; and
    nothing but the batches' own order draws random numbers.
    """

    def __init__(self, dataset: Any, *, sampler: RowBatches, **settings: Any) -> None:
        """Load the batches of a sampler; a trainer that predicts makes the loader anew, with settings of torch's.

        Raises:
            TypeError: the sampler gives single rows, as that of a trainer's `overfit_batches`.
        """
        if not isinstance(sampler, RowBatches):
            raise TypeError(
                f"expected RowBatches, got {type(sampler).__name__}; to train on few batches use limit_train_batches"
            )
        super().__init__(dataset, **(settings | {"batch_size": None, "sampler": sampler}))

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch asks for the iterator it profiles
        return (self.dataset[at] for at in self.sampler)


def init_confidence_from_csv(dataset: Any, path: str | Path | None) -> torch.Tensor:
    """Confidence for each row of `dataset`, shape (n,), float32.

    Args:
        dataset: the training rows.
        path: a CSV with a row a sample in dataset order, and one column or one of them called `confidence`, as the
            published library writes beside an index; None: all ones.

    Raises:
        DatasetError: no such file, another number of rows, or a value outside [-1, 1].
    """
    if path is None:
        return torch.ones(len(dataset))
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"the initial confidence {path} cannot be read ({error}); give a CSV file.") from error
    if "confidence" in table:
        table = table[["confidence"]]
    if table.shape != (len(dataset), 1):
        raise DatasetError(
            f"the initial confidence {path} has {table.shape[0]} rows and {table.shape[1]} columns, expected one "
            f"column with a row for each of the {len(dataset)} training rows; of several, call it confidence."
        )
    values = pd.to_numeric(table.iloc[:, 0], errors="coerce").to_numpy(dtype=np.float32)
    if not (np.abs(values) <= 1).all():
        raise DatasetError(
            f"the initial confidence {path} has values that are not numbers in [-1, 1]; -1 is surely abnormal."
        )
    return torch.from_numpy(values)


def save_confidence_to_csv(dataset: DatasetWithConfidence, path: str | Path) -> None:
    """Write one column `confidence`, a row a sample in dataset order, as `init_confidence_from_csv` reads it."""
    table = pa.table({"confidence": dataset.confidence.cpu().numpy()})
    csv.write_csv(table, path, csv.WriteOptions(quoting_style="none"))
