"""What training on a GPU keeps; every other test that fits a detector does so on the GPU too, where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from ssad.bundle import Bundle
from ssad.datasets import rows as rows_module
from ssad.detectors import PRESETS, FitSettings, FittedDetector, fit_detector
from tests.ssad.modules.test_self_supervision_module import wrapped
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = [*QUIET_LIBRARIES, pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")]

every_preset = pytest.mark.parametrize("name", sorted(PRESETS))


class Devices(L.Callback):
    """Notes where batches lie when a step is given them."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, *_: object) -> None:
        self.found |= {tensor.device.type for tensor in batch.values()} | {pl_module.device.type}


def fitted(rows: pd.DataFrame, name: str, **settings: Any) -> FittedDetector:
    return fit_detector(rows, FitSettings(name, max_epochs=6, every_n_epochs=2), **settings)


def codes(detector: FittedDetector) -> npt.NDArray[np.int8]:
    return detector.curve.thresholds.codes(detector.training_scores)


@every_preset
def test_training_is_on_the_gpu_and_what_it_leaves_is_not(name: str, blobs: pd.DataFrame) -> None:
    devices = Devices()
    detector = fitted(blobs, name, callbacks=[devices])
    assert devices.found == {"cuda"}
    assert {tensor.device.type for tensor in detector.module.state_dict().values()} == {"cpu"}
    assert detector.module.epoch_loss.device.type == "cpu"


@every_preset
def test_the_same_seed_gives_the_same_bytes_on_a_gpu(name: str, blobs: pd.DataFrame) -> None:
    first, second = fitted(blobs, name), fitted(blobs, name)
    assert first.training_scores.tobytes() == second.training_scores.tobytes()
    weights = second.module.state_dict()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in first.module.state_dict().items())


@every_preset
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "bf16-true"])
def test_scores_and_intervals_of_the_gpu_are_those_that_are_served(
    name: str, precision: str, blobs: pd.DataFrame, tmp_path: Path
) -> None:
    detector = fitted(blobs, name, precision=precision)
    detector.write_bundle(tmp_path / "bundle")
    served = Bundle(tmp_path / "bundle").score(blobs)
    np.testing.assert_allclose(served.score, detector.training_scores, rtol=1e-4)
    assert (served.codes == codes(detector)).mean() > 0.99


@every_preset
def test_a_gpu_finds_the_intervals_that_the_cpu_finds(name: str, blobs: pd.DataFrame) -> None:
    on_gpu, on_cpu = (fitted(blobs, name, accelerator=accelerator) for accelerator in ("gpu", "cpu"))
    assert spearmanr(on_gpu.training_scores, on_cpu.training_scores).statistic > 0.99
    assert (codes(on_gpu) == codes(on_cpu)).mean() > 0.98


def test_rows_stay_on_the_gpu_and_bring_the_confidence_of_now() -> None:
    rows = wrapped(100).train
    at = torch.tensor([3, 0, 3])
    batch, stretch = rows[at], rows[1:3]
    rows.keep_on(torch.device("cuda", 0))
    rows.confidence.fill_(-0.5)
    for found, expected in ((rows[at], batch), (rows[1:3], stretch)):
        assert found["data"].device.type == found["label"].device.type == "cuda"
        assert torch.equal(found["data"].cpu(), expected["data"])
        assert torch.equal(found["label"].cpu(), expected["label"])
        assert (found["confidence"] == -0.5).all()


@every_preset
def test_rows_that_have_no_room_come_batch_by_batch_to_the_same_end(
    name: str, blobs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = fitted(blobs, name)
    monkeypatch.setattr(rows_module, "KEPT_SHARE", 0.0)
    assert fitted(blobs, name).training_scores.tobytes() == resident.training_scores.tobytes()


# Torch says of its own wrapper that it holds nodes which another stream made.
@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream")
def test_one_process_of_several_trains_on_its_gpu(blobs: pd.DataFrame) -> None:
    alone, one_of_one = fitted(blobs, "ssad"), fitted(blobs, "ssad", strategy="ddp")
    np.testing.assert_allclose(one_of_one.training_scores, alone.training_scores, rtol=1e-3)
