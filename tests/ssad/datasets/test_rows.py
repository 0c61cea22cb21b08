"""Rows, their labels and their confidence, in batches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from ssad import (
    DataFrameToTensor,
    DataFrameWithLabels,
    DatasetWithConfidence,
    DatasetWithInputDim,
    DatasetWithLabels,
    SelfSupervisionDataModule,
    init_confidence_from_csv,
    save_confidence_to_csv,
)
from ssad.datasets import rows as rows_module
from ssad.datasets.rows import UNLABELLED, RowBatches, RowLoader, TensorRows
from ssad.detectors.fit import EncodedRows
from ssad.errors import DatasetError
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = QUIET_LIBRARIES


class OnlyData(Dataset[torch.Tensor]):
    """Rows without labels, one tensor each."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, idx: int) -> torch.Tensor:
        return torch.tensor([float(idx), 1.0])


class AsDicts(OnlyData):
    """Likewise as dicts."""

    def __getitem__(self, idx: int) -> Any:
        return {"data": super().__getitem__(idx), "label": idx % 2}


class OwnRows(TensorDataset):
    """Rows that know how to be fetched one by one."""

    def __getitem__(self, index: Any) -> tuple[torch.Tensor, ...]:
        data, label = super().__getitem__(index)  # type: ignore[no-untyped-call]  # torch's
        return (data / data.max()).reshape(-1), label


def frame(rows: int = 7) -> pd.DataFrame:
    return pd.DataFrame({"x": np.arange(rows, dtype=float), "y": 1.0, "label": np.arange(rows) % 2})


def double(row: Any) -> torch.Tensor:
    return 2 * DataFrameToTensor()(row)


DATASETS: dict[str, Any] = {
    "frame": DataFrameWithLabels(frame(), "label"),
    "frame, own transform": DataFrameWithLabels(frame(), "label", transform=double),
    "tensors": TensorRows(torch.rand(7, 2), torch.arange(7) % 2),
    "pairs": TensorDataset(torch.rand(7, 2), torch.arange(7) % 2),
    "pairs, own rows": OwnRows(torch.rand(7, 2), torch.arange(7) % 2),
    "part of a frame": Subset(DataFrameWithLabels(frame(9), "label"), [8, 0, -2, 3, 4, 1, 2]),
    "data alone": OnlyData(),
    "dicts": AsDicts(),
}
every_dataset = pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS.keys())


@every_dataset
def test_a_batch_holds_its_items(dataset: Any) -> None:
    rows = DatasetWithConfidence(dataset, torch.linspace(-1, 1, 7))
    order = [5, 0, 3]
    batch = rows[torch.tensor(order)]
    for at, row in enumerate(order):
        for name, value in rows[row].items():
            assert torch.equal(batch[name][at], value), name


@every_dataset
def test_loaders_give_dicts_with_data_label_and_confidence(dataset: Any) -> None:
    rows = DatasetWithConfidence(dataset, torch.ones(7))
    batch = next(iter(DataLoader(rows, batch_size=4)))
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "data": (4, 2),
        "label": (4,),
        "confidence": (4,),
    }


@every_dataset
@pytest.mark.parametrize("sampler", [[5, 0, 3], torch.tensor([5, 0, 3])], ids=["numbers", "tensors"])
def test_torchs_own_loaders_give_the_rows_of_any_sampler(dataset: Any, sampler: Any) -> None:
    for rows in (dataset, DatasetWithConfidence(dataset, torch.linspace(-1, 1, 7))):
        for loader in (DataLoader(rows, 3, sampler=sampler), DataLoader(Subset(rows, sampler), 3)):
            (batch,) = loader
            torch.testing.assert_close(batch, default_collate([rows[number] for number in (5, 0, 3)]))


def test_a_part_of_a_table_is_fetched_in_one_indexing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.Tensor] = []
    index = rows_module.rows_at

    def recorded(tensor: torch.Tensor, at: Any) -> torch.Tensor:
        asked.append(tensor)
        return index(tensor, at)

    monkeypatch.setattr(rows_module, "rows_at", recorded)
    part = Subset(DataFrameWithLabels(frame(9), "label"), [8, 0, 5])
    assert DatasetWithConfidence(part, torch.ones(3))[slice(1, 3)]["data"][:, 0].tolist() == [0, 5]
    assert len(asked) == 3  # data, labels and confidence


def test_rows_without_labels_are_unlabelled() -> None:
    assert DatasetWithConfidence(OnlyData(), torch.ones(7))[0]["label"] == UNLABELLED


@pytest.mark.parametrize("back_end", ["numpy_nullable", "pyarrow"])
def test_a_missing_value_of_any_of_pandas_types_is_no_number(back_end: Any) -> None:
    table = pd.DataFrame({"a": [None, 1, 2], "b": [True, False, None], "label": [0, 0, 1]})
    data = DataFrameWithLabels(table.convert_dtypes(dtype_backend=back_end), "label").data
    assert data.isnan().tolist() == [[True, False], [False, False], [False, True]]


def test_another_number_of_confidences_than_rows_is_refused() -> None:
    with pytest.raises(DatasetError, match="7 rows"):
        DatasetWithConfidence(OnlyData(), torch.ones(6))


def test_a_frame_says_its_width_and_its_anomalies() -> None:
    rows = DataFrameWithLabels(frame(), "label")
    assert rows.input_dim() == 2
    assert rows.get_stats() == (7, 4, 3)
    assert isinstance(rows, DatasetWithLabels)
    assert isinstance(rows, DatasetWithInputDim)


def test_a_frames_data_and_labels_are_tensors_and_so_is_what_transforms_get() -> None:
    got: list[torch.Tensor] = []

    def seen(value: torch.Tensor) -> torch.Tensor:
        got.append(value)
        return value.clamp(max=1) * 2

    rows = DataFrameWithLabels(frame(), "label", transform=seen, target_transform=seen)
    assert rows.data.tolist() == [[float(x), 1.0] for x in range(7)]
    assert rows.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    data, label = rows[3]
    assert [value.tolist() for value in got] == [[3.0, 1.0], 1.0]
    assert (data.tolist(), label.tolist()) == ([2.0, 2.0], 2.0)


def test_a_row_without_a_label_is_neither_normal_nor_an_anomaly() -> None:
    rows = DataFrameWithLabels(pd.DataFrame({"a": [1.0, 2.0, 3.0], "label": [0, 1, np.nan]}), "label")
    assert rows.get_stats() == (3, 1, 1)


def test_a_frame_without_the_label_column_is_refused() -> None:
    with pytest.raises(DatasetError, match="'attack'"):
        DataFrameWithLabels(frame(), "attack")


def test_confidence_survives_its_file(tmp_path: Path) -> None:
    rows = DatasetWithConfidence(OnlyData(), torch.linspace(-1, 1, 7))
    save_confidence_to_csv(rows, tmp_path / "confidence.csv")
    assert torch.equal(init_confidence_from_csv(OnlyData(), tmp_path / "confidence.csv"), rows.confidence)


def test_a_confidence_beside_an_index_is_read(tmp_path: Path) -> None:
    written = pd.DataFrame({"confidence": np.linspace(-1, 1, 7)})
    written.to_csv(tmp_path / "confidence.csv")  # as the published library does
    found = init_confidence_from_csv(OnlyData(), tmp_path / "confidence.csv")
    assert found.tolist() == pytest.approx(written["confidence"].tolist())


def test_without_a_file_every_row_is_surely_normal() -> None:
    assert init_confidence_from_csv(OnlyData(), None).tolist() == [1.0] * 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("confidence\n1\n", "1 rows"),
        ("a,b\n" + "1,1\n" * 7, "2 columns"),
        ("confidence\n" + "2\n" * 7, r"not numbers in \[-1, 1\]"),
        ("confidence\n" + "x\n" * 7, r"not numbers in \[-1, 1\]"),
        ("", "cannot be read"),
    ],
)
def test_a_confidence_file_that_does_not_fit_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "confidence.csv").write_text(content)
    with pytest.raises(DatasetError, match=message):
        init_confidence_from_csv(OnlyData(), tmp_path / "confidence.csv")


def test_a_confidence_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.csv"):
        init_confidence_from_csv(OnlyData(), tmp_path / "none.csv")


class Numbered(L.LightningDataModule):
    """Rows whose feature is their number."""

    def __init__(self, rows: int, batch_size: int) -> None:
        super().__init__()
        self.numbers, self.size = torch.arange(rows, dtype=torch.float32)[:, None], batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(self.numbers), batch_size=self.size)


def test_a_data_module_that_changes_its_batches_is_refused() -> None:
    class Moves(Numbered):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch

    class Collates(Numbered):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(TensorDataset(self.numbers), batch_size=self.size, collate_fn=list)

    with pytest.raises(TypeError, match=r"Moves changes batches by on_after_batch_transfer\(\), expected rows"):
        SelfSupervisionDataModule(Moves(4, 2))
    with pytest.raises(TypeError, match="Collates changes batches by its loader's collate_fn"):
        SelfSupervisionDataModule(Collates(4, 2))


@pytest.mark.parametrize(
    "sampler",
    [
        SubsetRandomSampler([0, 1]),
        WeightedRandomSampler([0.5] * 4, 4),
        RandomSampler(range(4), replacement=True),
        RandomSampler(range(4), num_samples=2),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_data_module_that_picks_rows_is_refused(sampler: Any) -> None:
    class Picks(Numbered):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(TensorDataset(self.numbers), batch_size=2, sampler=sampler)

    class Batches(Numbered):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(TensorDataset(self.numbers), batch_sampler=BatchSampler(sampler, 2, False))

    class Own(Numbered):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(TensorDataset(self.numbers), batch_sampler=[[0, 1], [1]])

    class Part(Numbered):
        train, batch_size = TensorDataset(torch.arange(4.0)[:, None]), 2

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Subset(self.train, [0, 1]), batch_size=2)

    for other in (Own(4, 2), Part(4, 2)):
        with pytest.raises(TypeError, match=r"picks rows by a (list|Subset), expected every training row"):
            SelfSupervisionDataModule(other)
    for module in (Picks(4, 2), Batches(4, 2)):
        with pytest.raises(TypeError, match=f"picks rows by a {type(sampler).__name__}, expected every training row"):
            SelfSupervisionDataModule(module)


def test_rows_that_have_no_numbers_are_refused() -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(torch.ones(4, 1))

    class Streams(Numbered):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Endless(), batch_size=2)

    with pytest.raises(TypeError, match="Streams trains on a Endless, an iterable dataset"):
        SelfSupervisionDataModule(Streams(4, 2))


@pytest.mark.parametrize("other", [TensorDataset(torch.ones(4, 1)), DataLoader(TensorDataset(torch.ones(4, 1)))])
def test_what_is_no_data_module_is_refused_with_what_makes_one(other: Any) -> None:
    with pytest.raises(TypeError, match=rf"got {type(other).__name__}; LightningDataModule.from_datasets makes one"):
        SelfSupervisionDataModule(other)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 60), batch_size=st.integers(1, 20))
def test_confidence_stays_with_its_row_however_rows_are_shuffled(seed: int, rows: int, batch_size: int) -> None:
    module = SelfSupervisionDataModule(Numbered(rows, batch_size))
    module.train.confidence.copy_(-torch.arange(rows) / rows)
    torch.manual_seed(seed)
    seen = []
    for batch in module.train_dataloader():
        assert torch.equal(batch["confidence"], -batch["data"][:, 0] / rows)
        seen += batch["data"][:, 0].tolist()
    assert sorted(seen) == list(range(rows))


@every_dataset
def test_supervision_gives_every_row_once_in_order(dataset: Any) -> None:
    class Module(L.LightningDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(dataset, batch_size=3)

    module = SelfSupervisionDataModule(Module())
    found = torch.cat([batch["data"] for batch in module.supervision_dataloader()])
    assert torch.equal(found, torch.stack([module.train[row]["data"] for row in range(7)]))
    assert (module.input_dim, module.batch_size) == (2, 3)


@every_dataset
@pytest.mark.parametrize("at", [slice(2, 5), torch.tensor([5, 0, 3])], ids=["stretch", "positions"])
def test_a_batch_by_positions_is_the_batch_of_its_rows(dataset: Any, at: Any) -> None:
    rows = DatasetWithConfidence(dataset, torch.linspace(-1, 1, 7))
    expected = default_collate([rows[number] for number in torch.arange(7)[at].tolist()])
    for name, value in rows[at].items():
        assert torch.equal(value, expected[name]), name


def test_a_stretch_of_rows_is_not_copied() -> None:
    rows = DatasetWithConfidence(TensorRows(torch.rand(7, 2)), torch.ones(7))
    assert rows[slice(2, 5)]["data"].data_ptr() == rows.dataset.data[2:].data_ptr()


every_split = settings(max_examples=50)(
    given(rows=st.integers(1, 50), batch_size=st.integers(1, 20), ranks=st.integers(1, 4))
)


@every_split
def test_stretches_of_all_processes_joined_are_the_rows_in_order(rows: int, batch_size: int, ranks: int) -> None:
    each = [RowBatches(rows, batch_size, ranks=ranks, rank=rank) for rank in range(ranks)]
    stretches = [at for batches in each for at in batches]
    assert [row for at in stretches for row in range(rows)[at]] == list(range(rows))
    assert [len(batches) for batches in each] == [len(list(batches)) for batches in each]


@every_split
def test_shuffled_batches_of_all_processes_joined_are_those_of_one(rows: int, batch_size: int, ranks: int) -> None:
    alone = list(RowBatches(rows, batch_size, shuffle=True))
    each = [list(RowBatches(rows, batch_size, shuffle=True, ranks=ranks, rank=rank)) for rank in range(ranks)]
    assert {len(batches) for batches in each} == {len(alone)}
    for whole, *shares in zip(alone, *each, strict=True):
        assert set(torch.cat(shares).tolist()) == set(whole.tolist())
        assert min(len(share) for share in shares) >= 1
        assert sum(map(len, shares)) == max(len(whole), ranks)


def test_the_order_depends_on_seed_and_epoch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def order(epoch: int) -> list[int]:
        batches = RowBatches(40, 40, shuffle=True)
        batches.set_epoch(epoch)
        torch.rand(7)  # what else draws random numbers does not matter
        return torch.cat(list(batches)).tolist()

    assert order(0) == order(0) != order(1)
    first = order(0)
    monkeypatch.setenv("PL_GLOBAL_SEED", "9")
    assert order(0) != first


@pytest.mark.parametrize("kind", ["tensors", "frame"])
def test_rows_are_kept_where_there_is_room_and_bring_the_confidence_of_now(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch's device without memory stands for a GPU.
    gpu, tensors = torch.device("meta"), TensorRows(torch.rand(7, 2))
    frame = DataFrameWithLabels(pd.DataFrame({"x": range(7), "label": 0}), "label")
    rows = DatasetWithConfidence(tensors if kind == "tensors" else frame, torch.ones(7))
    monkeypatch.setattr(rows_module, "_free_bytes", lambda device: 2 * 7 * 3 * 4)
    rows.keep_on(gpu)
    rows.confidence[2] = -1
    for at in (torch.tensor([2, 0]), slice(2, 4)):
        batch = rows[at]
        assert (batch["data"].device, batch["label"].device) == (gpu, gpu)
        assert batch["confidence"].tolist() == [-1, 1]
    rows.keep_on(torch.device("cpu"))
    assert rows[torch.tensor([2])]["data"].device.type == "cpu"
    monkeypatch.setattr(rows_module, "_free_bytes", lambda device: 10)
    rows.keep_on(gpu)
    assert rows[torch.tensor([2])]["data"].device.type == "cpu"


def test_rows_are_kept_on_the_trainers_device_for_as_long_as_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_free_bytes", lambda device: 1 << 20)
    datamodule = SelfSupervisionDataModule(EncodedRows(TensorRows(torch.rand(7, 2)), 3))
    strategy = SimpleNamespace(root_device=torch.device("meta"))
    trains: Any = SimpleNamespace(training=True, strategy=strategy, world_size=1, global_rank=0)
    datamodule.trainer = trains
    for loader in (datamodule.train_dataloader, datamodule.supervision_dataloader):
        assert next(iter(loader()))["data"].device.type == "meta"
        trains.training = False
        assert next(iter(loader()))["data"].device.type == "cpu"
        trains.training = True
    batches = datamodule.train_dataloader()
    datamodule.teardown("fit")
    assert next(iter(batches))["data"].device.type == "cpu"


def test_a_loader_counts_its_batches() -> None:
    loader = RowLoader(TensorRows(torch.rand(7, 2)), sampler=RowBatches(7, 3, shuffle=True))
    assert len(loader) == len(list(loader)) == 3
