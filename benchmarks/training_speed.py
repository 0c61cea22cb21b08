"""How long an epoch takes beside a bare loop, a per-row `Dataset` and PyOD's AutoEncoder, all in one process.

    python benchmarks/training_speed.py --rows 100000 --columns 122 --batch-size 1024

Each trains the same widths with Adam on one thread for a few epochs, in turns; what is printed is the fastest
epoch of each in seconds of the processor, which other work on the machine hardly moves, and how many times as
long as ours it takes. `--profile` says instead where our epoch goes.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import pstats
import time
import warnings
from collections.abc import Callable, Iterable, Sized
from typing import Any, cast

import lightning as L
import pandas as pd
import torch
import torch.nn.functional as F
from epoch_clock import NEVER, EpochClock, Epochs
from pyod.models.auto_encoder import AutoEncoder
from torch.utils.data import DataLoader, Dataset

from ssad.datamodules import SelfSupervisionDataModule
from ssad.datasets.rows import Batch, DatasetWithConfidence, TensorRows
from ssad.detectors import PRESETS
from ssad.detectors.fit import EncodedRows
from ssad.modules import SelfSupervisionModule


class PerRow(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Rows of a tensor, one at a time."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.rows[idx], torch.ones(())


class PerFrameRow(PerRow):
    """Rows of a DataFrame, one at a time, as the method's published library fetches them."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__(rows)
        self.frame = pd.DataFrame(rows.numpy())

    def __getitem__(self, idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.frame.iloc[idx].to_numpy()), torch.ones(())


class PerDictRow(Dataset[Batch]):
    """Rows with all that our batches carry, one at a time."""

    def __init__(self, rows: Dataset[Any]) -> None:
        self.rows = DatasetWithConfidence(rows, torch.ones(len(cast("Sized", rows))))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, idx: int) -> Batch:
        return self.rows[idx]


class PerRowModule(SelfSupervisionDataModule):
    """Our data module but for its training loader, which asks a plain `Dataset` for one row after the other."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(PerDictRow(self.train.dataset), self.batch_size, shuffle=True)


def build(detector: str, rows: torch.Tensor) -> SelfSupervisionModule:
    torch.manual_seed(0)
    return PRESETS[detector].build(rows, NEVER, 1e-3)


def ours(
    detector: str,
    rows: torch.Tensor,
    batch_size: int,
    epochs: int,
    kind: type[SelfSupervisionDataModule] = SelfSupervisionDataModule,
) -> Epochs:
    clock = EpochClock()
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[clock],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(build(detector, rows), datamodule=kind(EncodedRows(TensorRows(rows), batch_size)))
    return clock.seconds


def loop(module: SelfSupervisionModule, batches: Callable[[], Iterable[Any]], epochs: int, method: bool) -> Epochs:
    """Train without Lightning: by the method's own loss, or by a plain mean squared error."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
    seconds = []
    for _ in range(epochs):
        start = time.process_time()
        for rows, confidence in batches():
            optimizer.zero_grad()
            if method:
                loss = module.compute_loss(rows, confidence, 0)
            else:
                output = module.model(rows)
                loss = F.mse_loss(*output) if isinstance(output, tuple) else F.mse_loss(output, rows)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            optimizer.step()
        seconds.append(time.process_time() - start)
    return seconds


def bare(detector: str, rows: torch.Tensor, batch_size: int, epochs: int, method: bool = False) -> Epochs:
    confidence = torch.ones(len(rows))

    def batches() -> Iterable[Any]:
        for at in torch.randperm(len(rows)).split(batch_size):
            yield rows[at], confidence[at]

    return loop(build(detector, rows), batches, epochs, method)


def per_row(kind: type[PerRow], detector: str, rows: torch.Tensor, batch_size: int) -> Epochs:
    loader = DataLoader(kind(rows), batch_size, shuffle=True)
    return loop(build(detector, rows), lambda: loader, 1, method=False)


class TimedAutoEncoder(AutoEncoder):  # type: ignore[misc]  # PyOD is untyped
    """PyOD's AutoEncoder that notes when its epochs end."""

    def training_prepare(self) -> None:
        super().training_prepare()
        self.seconds: Epochs = []
        self._start = time.process_time()

    def epoch_update(self) -> None:
        self.seconds.append(time.process_time() - self._start)
        self._start = time.process_time()


def pyod(rows: torch.Tensor, batch_size: int) -> Epochs:
    columns = rows.shape[1]
    peer = TimedAutoEncoder(
        epoch_num=1, batch_size=batch_size, hidden_neuron_list=[max(2, columns // 2), max(1, columns // 4)], verbose=0
    )
    peer.fit(rows.numpy())
    return peer.seconds


def compare(detector: str, rows: torch.Tensor, batch_size: int, rounds: int) -> None:
    contestants: dict[str, Callable[[], Epochs]] = {
        "ours": lambda: ours(detector, rows, batch_size, 2),
        "bare loop, the method's loss": lambda: bare(detector, rows, batch_size, 2, method=True),
        "bare loop, squared error": lambda: bare(detector, rows, batch_size, 2),
        "ours, through a per-row Dataset": lambda: ours(detector, rows, batch_size, 1, PerRowModule),
        "per-row Dataset of a tensor": lambda: per_row(PerRow, detector, rows, batch_size),
        "per-row Dataset of a DataFrame": lambda: per_row(PerFrameRow, detector, rows, batch_size),
        "PyOD's AutoEncoder": lambda: pyod(rows, batch_size),
    }
    times: dict[str, Epochs] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            times[name] += run()
    best = {name: min(seconds) for name, seconds in times.items()}
    for name, seconds in best.items():
        print(f"{name:32} {seconds:8.3f} s  {len(rows) / seconds:12,.0f} rows/s  {seconds / best['ours']:6.2f} x ours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="radon", choices=sorted(PRESETS))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=122)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows = torch.rand(arguments.rows, arguments.columns, generator=torch.Generator().manual_seed(0))
    if not arguments.profile:
        compare(arguments.detector, rows, arguments.batch_size, arguments.rounds)
        return
    profile = cProfile.Profile()
    profile.runcall(ours, arguments.detector, rows, arguments.batch_size, 2)
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
