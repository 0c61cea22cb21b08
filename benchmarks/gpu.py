"""Training on a GPU against what the card can do: rows a second and share of its largest matrix product.

    python benchmarks/gpu.py

First the card's limits, a matrix product and a copy; then the fastest epoch of each network, batch size and precision,
in Lightning's loop as `fit` trains and in a bare one, with the floating-point operations of a step that torch counts;
last a recalibration of each preset, and whole trainings of the default beside the same on the CPU.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import lightning as L
import pandas as pd
import torch
from epoch_clock import NEVER, EpochClock
from torch.utils.flop_counter import FlopCounterMode

from ssad import Autoencoder, BinaryConfidence, CosineReconstructionModule, TriangularThresholding
from ssad.datamodules import SelfSupervisionDataModule
from ssad.datasets.rows import TensorRows
from ssad.detectors import PRESETS, FitSettings
from ssad.detectors.fit import EncodedRows, fit_detector
from ssad.modules import SelfSupervisionModule

MOST_FEATURES = 1 << 28
"""Of a table here, rows times columns: a GiB."""

STEPS = 64
"""Of an epoch of the table of networks: enough that what comes before the first and after the last does not count."""

Build = Callable[[torch.Tensor], SelfSupervisionModule]


def wide(rows: torch.Tensor) -> SelfSupervisionModule:
    """A network that is as large as the card likes them: 100 million weights for 4,096 columns."""
    columns = rows.shape[1]
    network = Autoencoder(columns, [2 * columns], columns // 2)
    return CosineReconstructionModule(network, NEVER, BinaryConfidence(), TriangularThresholding())


def preset(name: str) -> Build:
    return lambda rows: PRESETS[name].build(rows, NEVER, 1e-3)


def now() -> float:
    """Seconds, once the device has nothing left to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def fastest(run: Callable[[], Any], times: int) -> float:
    """Seconds of the fastest of so many runs, after one that does not count."""
    run()
    seconds = []
    for _ in range(times):
        start = now()
        run()
        seconds.append(now() - start)
    return min(seconds)


def limits(device: torch.device, size: int) -> dict[str, float]:
    """Floating-point operations a second of a product of two random matrices, by precision; prints the copy's bytes."""
    found = {}
    for name, dtype in {"32-true": torch.float32, "bf16": torch.bfloat16}.items():
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        found[name] = 2 * size**3 / fastest(lambda: left @ right, 10)  # noqa: B023 - called at once
        print(f"product of two {size} x {size}, {name:8} {found[name] / 1e12:8.1f} TFLOP/s", flush=True)
    source = torch.randn(size * size, device=device)
    target = torch.empty_like(source)
    seconds = fastest(lambda: target.copy_(source), 10)
    print(f"copy in its memory {2 * source.nbytes / seconds / 1e12:8.2f} TB/s", flush=True)
    return found


def trainer(epochs: int, precision: Any, accelerator: str, callbacks: list[L.Callback]) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs,
        accelerator=accelerator,
        devices=1,
        precision=precision,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def ours(build: Build, rows: torch.Tensor, batch_size: int, precision: str, accelerator: str) -> float:
    clock = EpochClock(now)
    module = build(rows)
    module.update_confidence = lambda *_: torch.empty(0)  # type: ignore[method-assign]  # after the last epoch
    fit = trainer(4, precision, accelerator, [clock])
    fit.fit(module, datamodule=SelfSupervisionDataModule(EncodedRows(TensorRows(rows), batch_size)))
    return min(clock.seconds)


def bare(build: Build, rows: torch.Tensor, batch_size: int, precision: str, device: torch.device) -> float:
    """The same network, loss and batches in a loop of torch alone, rows on the device."""
    module, rows = build(rows).to(device), rows.to(device)
    confidence = torch.ones(len(rows), device=device)
    if precision == "bf16-true":
        module, rows = module.to(torch.bfloat16), rows.to(torch.bfloat16)
    casts = torch.autocast(device.type, torch.bfloat16) if precision == "bf16-mixed" else nullcontext()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    def epoch() -> None:
        for at in torch.split(torch.randperm(len(rows), device=device), batch_size):
            optimizer.zero_grad()
            with casts:
                loss = module.compute_loss(rows[at], confidence[at], 0)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            optimizer.step()

    return fastest(epoch, 3)


def operations(build: Build, rows: torch.Tensor) -> float:
    """Floating-point operations that a step needs for a row."""
    few = rows[:256]
    module = build(rows)
    with FlopCounterMode(display=False) as counter:
        module.compute_loss(few, torch.ones(len(few)), 0).backward()  # type: ignore[no-untyped-call]  # torch
    return float(counter.get_total_flops()) / len(few)


def training(accelerator: str, device: torch.device, scale: float, size: int) -> None:
    limit = limits(device, size)
    networks: dict[str, tuple[Build, int, tuple[int, ...]]] = {
        "ssad, 30 columns": (preset("ssad"), 30, (1024, 16_384, 65_536)),
        "radon, 122 columns": (preset("radon"), 122, (1024, 16_384, 65_536)),
        "radon, 1,000 columns": (preset("radon"), 1000, (1024, 16_384)),
        "wide, 4,096 columns": (wide, 4096, (1024, 16_384)),
    }
    print(f"{'network':22} {'batch':>6} {'precision':10} {'rows/s':>12} {'of bare':>8} {'TFLOP/s':>8} {'of limit':>8}")
    for name, (build, columns, batches) in networks.items():
        for batch_size in batches:
            count = math.ceil(min(STEPS * batch_size, MOST_FEATURES / columns) * scale)
            rows = torch.rand(count, columns, generator=torch.Generator().manual_seed(0))
            needed = operations(build, rows)
            for precision in ("32-true", "bf16-mixed", "bf16-true"):
                epoch = ours(build, rows, batch_size, precision, accelerator)
                share = bare(build, rows, batch_size, precision, device) / epoch
                rate = needed * len(rows) / epoch
                of_limit = rate / limit["32-true" if precision == "32-true" else "bf16"]
                print(
                    f"{name:22} {batch_size:6} {precision:10} {len(rows) / epoch:12,.0f} {share:8.2f} "
                    f"{rate / 1e12:8.3f} {of_limit:8.1%}",
                    flush=True,
                )


def recalibration(accelerator: str, scale: float) -> None:
    """One epoch and one recalibration of a million rows, scores as on the way."""
    rows = torch.randn(math.ceil((1 << 20) * scale), 30, generator=torch.Generator().manual_seed(0))
    print(f"{'recalibration':12} {'epoch':>8} {'scores, float32':>16} {'all of it':>10}")
    for name in PRESETS:
        clock, timed = EpochClock(now), Recalibrations()
        fit = trainer(4, "32-true", accelerator, [clock, timed])
        datamodule = SelfSupervisionDataModule(EncodedRows(TensorRows(rows), 8192))
        fit.fit(PRESETS[name].build(rows, NEVER, 1e-3), datamodule=datamodule)
        print(f"{name:12} {min(clock.seconds):8.3f} {timed.scores:16.3f} {timed.whole:10.3f}", flush=True)


class Recalibrations(L.Callback):
    """Times a recalibration while the network is on its device."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module: Any = pl_module
        datamodule = trainer.datamodule  # type: ignore[attr-defined]  # set by fit
        self.scores = fastest(lambda: module.score_rows(datamodule.supervision_dataloader(), torch.float32), 2)
        self.whole = fastest(lambda: module.update_confidence(datamodule, torch.float32), 2)


def fits(accelerators: list[str], scale: float) -> None:
    """Whole trainings of the default from a table in memory to a fitted detector, by batch size."""
    table = pd.DataFrame(torch.randn(math.ceil(1_000_000 * scale), 30).numpy()).add_prefix("x")
    for batch_size in (None, 16_384):
        for accelerator in accelerators:
            start = now()
            fit_detector(table, FitSettings(batch_size=batch_size), accelerator=accelerator)
            print(f"fit of {len(table):,} rows, batch {batch_size} {accelerator:4} {now() - start:8.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", default="gpu", choices=["gpu", "cpu"], help="cpu: to try this script without")
    parser.add_argument("--part", choices=["training", "fits"], help="the table of networks, or the rest")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of rows")
    parser.add_argument("--size", type=int, default=8192, help="of the matrices that tell the limits")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    accelerator = arguments.accelerator
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    if arguments.part != "fits":
        training(accelerator, device, arguments.scale, arguments.size)
    if arguments.part != "training":
        recalibration(accelerator, arguments.scale)
        fits(["gpu", "cpu"] if accelerator == "gpu" else ["cpu"], arguments.scale)


if __name__ == "__main__":
    main()
