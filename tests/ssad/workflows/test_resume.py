"""A training that was cut off goes on to the very end it would have come to."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ssad.detectors import PRESETS, FitSettings, FittedDetector, Hardware, fit_detector
from ssad.errors import DatasetError, SettingsError, TrackingError, TrainingError
from ssad.loggers.mlflow_logger import CHECKPOINTS
from ssad.modules import self_supervision_callback
from ssad.workflows import resume
from ssad.workflows.cut_off import PROCESS, RESUMES, process_name
from ssad.workflows.resume import HEARTBEAT, newest_checkpoint
from ssad.workflows.tracking import log_dataset
from ssad.workflows.train import TrainSettings, prepare, train
from tests.ssad.workflows.support import PROCESS_SECONDS, QUIET_LIBRARIES, environment, permission_denied

pytestmark = QUIET_LIBRARIES

Begin = Callable[[TrainSettings], str]

KILLED = """
import os, signal, sys
from ssad import cli
from ssad.modules.self_supervision_module import SelfSupervisionModule

def step(module, batch, batch_idx, trained=SelfSupervisionModule.training_step):
    if (module.current_epoch, batch_idx) == (epoch, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return trained(module, batch, batch_idx)

epoch = int(sys.argv.pop(1))
SelfSupervisionModule.training_step = step
cli.main()
"""


class CutOff(L.Callback):
    """Ends training in the middle of an epoch, as a crash would."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if (trainer.current_epoch, trainer.global_step % 3) == (self.epoch, 2):
            raise RuntimeError("cut off")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Begins a run and cuts it off where it would train: its plan and its rows are logged by then."""

    def cut_off(*_: object, **__: object) -> None:
        raise TrainingError("it trains.")

    def begin(settings: TrainSettings) -> str:
        monkeypatch.setattr("ssad.workflows.train.fit_detector", cut_off)
        with pytest.raises(TrainingError, match="it trains"):
            train(settings, progress=False)
        (newest,) = MlflowClient().search_runs(["0"], order_by=["start_time DESC"], max_results=1)
        return str(newest.info.run_id)

    return begin


def bytes_of(detector: FittedDetector) -> dict[str, bytes]:
    """What a bundle is made of, to the last bit."""
    weights = {name: tensor.numpy().tobytes() for name, tensor in detector.module.state_dict().items()}
    curve = json.dumps(detector.curve.to_json()).encode()
    return weights | {"scores": detector.training_scores.tobytes(), "curve": curve}


def logged_bundle(version: str) -> dict[str, bytes]:
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/ssad/{version}"))
    return {path.name: path.read_bytes() for path in sorted((folder / "data" / "bundle").iterdir())}


# The first recalibration is after epoch 1: what is cut off in it left no checkpoint, and starts anew.
@pytest.mark.parametrize(("name", "epoch"), [("radon", 1), *((name, 3) for name in sorted(PRESETS))])
def test_every_preset_goes_on_to_the_same_bytes(
    name: str, epoch: int, blobs: pd.DataFrame, tracking: str, tmp_path: Path
) -> None:
    settings = FitSettings(name, max_epochs=5, every_n_epochs=1)
    whole = fit_detector(blobs, settings)
    logger = MLFlowLogger(tracking_uri=tracking)
    with pytest.raises(RuntimeError, match="cut off"):
        fit_detector(blobs, settings, logger=logger, callbacks=[CutOff(epoch)])
    mlflow.set_tracking_uri(tracking)
    checkpoint = newest_checkpoint(str(logger.run_id), tmp_path)
    assert (checkpoint is None) == (epoch == 1)
    assert bytes_of(fit_detector(blobs, settings, checkpoint=checkpoint)) == bytes_of(whole)


def test_a_checkpoint_cut_off_while_it_was_written_gives_way_to_the_one_before(
    blobs: pd.DataFrame, tracking: str, tmp_path: Path
) -> None:
    logger = MLFlowLogger(tracking_uri=tracking)
    fit_detector(blobs, FitSettings("radon", max_epochs=5, every_n_epochs=1), logger=logger)
    run_id = str(logger.run_id)
    newest = newest_checkpoint(run_id, tmp_path / "before")
    assert newest is not None
    whole = newest.read_bytes()
    for left in (whole[:1000], whole[:2], b"\xff" * 100):
        newest.write_bytes(left)
        MlflowClient(tracking).log_artifact(run_id, str(newest), "checkpoint")
        (tmp_path / "after").mkdir(exist_ok=True)
        other = newest_checkpoint(run_id, tmp_path / "after")
        assert other is not None
        assert {newest.name, other.name} == {Path(name).name for name in CHECKPOINTS}


def test_a_store_that_does_not_answer_is_told_instead_of_starting_anew(
    blobs: pd.DataFrame, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = MLFlowLogger(tracking_uri=tracking)
    fit_detector(blobs, FitSettings("radon", max_epochs=3, every_n_epochs=1), logger=logger)

    def unavailable(*_: object) -> str:
        raise MlflowException("503 from https://user:word@store")

    monkeypatch.setattr(MlflowClient, "download_artifacts", unavailable)
    with pytest.raises(TrackingError, match=r"cannot be fetched \(503 from https://store\).* resume again"):
        newest_checkpoint(str(logger.run_id), tmp_path)


def test_a_checkpoint_of_another_network_is_told_in_a_sentence(
    blobs: pd.DataFrame, tracking: str, tmp_path: Path
) -> None:
    logger = MLFlowLogger(tracking_uri=tracking)
    fit_detector(blobs, FitSettings("radon", max_epochs=3, every_n_epochs=1), logger=logger)
    checkpoint = newest_checkpoint(str(logger.run_id), tmp_path)
    assert checkpoint is not None
    with pytest.raises(SettingsError, match="of another network"):
        fit_detector(blobs, FitSettings(max_epochs=3, every_n_epochs=1), checkpoint=checkpoint)


@pytest.mark.slow
@pytest.mark.every_back_end
def test_a_killed_run_is_resumed_to_the_same_bundle(small: Path, tracking: str) -> None:
    settings = TrainSettings(str(small), fit=FitSettings("grand", max_epochs=8, every_n_epochs=1))
    whole = train(settings, progress=False)
    client = MlflowClient(tracking)
    epochs = len(client.get_metric_history(whole.run_id, "train_loss"))
    killed_in = random.randrange(2, epochs)  # the checkpoint of the first recalibration is that of epoch 1
    command = [sys.executable, "-c", KILLED, str(killed_in), "train", "--dataset", str(small), "--detector", "grand"]
    done = subprocess.run(
        [*command, "--max-epochs", "8", "--every-n-epochs", "1"],
        env=environment(tracking),
        capture_output=True,
        timeout=PROCESS_SECONDS,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    (killed,) = {run.info.run_id for run in client.search_runs(["0"])} - {whole.run_id}
    assert client.get_run(killed).info.status == "RUNNING"
    resumed = train(TrainSettings(str(small), resume=killed, fit=settings.fit), progress=False)
    assert logged_bundle(resumed.registered.version) == logged_bundle(whole.registered.version)
    assert client.get_run(killed).info.status == "KILLED"
    assert client.get_run(killed).data.tags["ssad.resumed_by"] == resumed.run_id
    assert client.get_run(resumed.run_id).data.tags["ssad.resumes"] == killed
    assert len(client.get_metric_history(resumed.run_id, "train_loss")) == epochs - killed_in  # it did not start anew

    with pytest.raises(SettingsError, match=f"goes on in run {resumed.run_id}, which is FINISHED; there is nothing"):
        train(TrainSettings(str(small), resume=killed, fit=settings.fit), progress=False)
    client.update_run(resumed.run_id, "RUNNING")
    with pytest.raises(SettingsError, match="which is RUNNING; resume that one"):
        train(TrainSettings(str(small), resume=killed, fit=settings.fit), progress=False)


def test_a_finished_run_an_unknown_one_the_active_one_and_one_of_another_plan_or_table_are_refused(
    small: Path, tracking: str, tmp_path: Path, begun: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = FitSettings("radon", max_epochs=2)
    run_id = begun(TrainSettings(str(small), fit=fit))
    MlflowClient(tracking).update_run(run_id, "FINISHED")
    with pytest.raises(SettingsError, match="came to its end"):
        train(TrainSettings(str(small), resume=run_id, fit=fit), progress=False)
    with pytest.raises(SettingsError, match="no run 'none'"):
        train(TrainSettings(str(small), resume="none", fit=fit), progress=False)
    MlflowClient(tracking).update_run(run_id, "FAILED")
    with pytest.raises(SettingsError, match=r"plan\.max_epochs was 2, is 3"):
        train(TrainSettings(str(small), resume=run_id, fit=FitSettings("radon", max_epochs=3)), progress=False)
    table = pd.read_csv(small)
    table["x"] = np.arange(len(table)) * 0.5
    table.to_csv(tmp_path / "changed.csv", index=False)
    with pytest.raises(DatasetError, match="other rows"):
        train(TrainSettings(str(tmp_path / "changed.csv"), resume=run_id, fit=fit), progress=False)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(SettingsError, match="cannot go on in itself; unset MLFLOW_RUN_ID"):
        train(TrainSettings(str(small), resume=run_id, fit=fit), progress=False)


def test_a_run_is_resumed_when_its_process_is_gone_and_not_before(small: Path, tracking: str, begun: Begin) -> None:
    settings = TrainSettings(str(small), fit=FitSettings("radon", max_epochs=2))
    run_id = begun(settings)
    MlflowClient(tracking).update_run(run_id, "RUNNING")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        MlflowClient(tracking).set_tag(run_id, PROCESS, process_name(process.pid))
        with pytest.raises(SettingsError, match=f"is training in process {process.pid}; end that one first"):
            train(replace(settings, resume=run_id), progress=False)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # which leaves a zombie
        begun(replace(settings, resume=run_id))


def test_a_run_on_another_machine_is_resumed_when_it_is_silent_and_not_before(
    small: Path, tracking: str, monkeypatch: pytest.MonkeyPatch, begun: Begin
) -> None:
    settings = TrainSettings(str(small), fit=FitSettings("radon", max_epochs=2))
    run_id, client = begun(settings), MlflowClient(tracking)
    client.update_run(run_id, "RUNNING")
    client.set_tag(run_id, PROCESS, "elsewhere 1 0")
    client.log_metric(run_id, HEARTBEAT, 1.0)
    with pytest.raises(SettingsError, match=r"logged something \d+ s ago, from a process that cannot be seen here"):
        train(replace(settings, resume=run_id), progress=False)
    monkeypatch.setattr(resume, "SILENT_SECONDS", 0.0)
    begun(replace(settings, resume=run_id))


def test_a_run_that_was_cut_off_after_its_last_checkpoint_does_not_train_longer_than_the_whole_one(
    blobs: pd.DataFrame, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_supervision_callback, "SETTLED_SHARE", 1.0)  # the third recalibration is the last
    settings = FitSettings("radon", max_epochs=9, every_n_epochs=1)
    logger = MLFlowLogger(tracking_uri=tracking)
    whole = fit_detector(blobs, settings, logger=logger)
    mlflow.set_tracking_uri(tracking)
    checkpoint = newest_checkpoint(str(logger.run_id), tmp_path)
    assert checkpoint is not None
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 3
    assert bytes_of(fit_detector(blobs, settings, checkpoint=checkpoint)) == bytes_of(whole)


def test_a_run_is_not_called_finished_before_its_version_is_registered(
    small: Path, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = []

    def look(*_: object) -> None:
        (run,) = MlflowClient(tracking).search_runs(["0"])
        statuses.append(run.info.status)
        raise TrainingError("cut off here.")

    monkeypatch.setattr(FittedDetector, "write_bundle", look)
    with pytest.raises(TrainingError, match="cut off here"):
        train(TrainSettings(str(small), fit=FitSettings("radon", max_epochs=1)), progress=False)
    assert statuses == ["RUNNING"]


def test_a_run_that_went_on_and_left_no_checkpoint_of_its_own_goes_on_from_the_first_one(
    blobs: pd.DataFrame, tracking: str, tmp_path: Path
) -> None:
    logger = MLFlowLogger(tracking_uri=tracking)
    fit_detector(blobs, FitSettings("radon", max_epochs=4, every_n_epochs=1), logger=logger)
    client = MlflowClient(tracking)
    second = client.create_run("0", tags={RESUMES: str(logger.run_id)}).info.run_id
    found = newest_checkpoint(second, tmp_path)
    assert found is not None
    assert found.read_bytes() == Path(client.download_artifacts(str(logger.run_id), CHECKPOINTS[0])).read_bytes()


def test_another_promise_precision_or_first_confidence_than_the_run_had_is_refused(
    small: Path, tracking: str, begun: Begin
) -> None:
    pd.DataFrame({"confidence": np.ones(140)}).to_csv("confidence.csv", index=False)
    settings = TrainSettings(str(small), fit=FitSettings("radon", max_epochs=2))
    run_id = begun(settings)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"fit": FitSettings("radon", max_epochs=2, alpha=0.2)}, r"plan\.alpha was None, is 0\.2"),
        ({"hardware": Hardware(precision="bf16-mixed")}, "precision was 32-true, is bf16-mixed"),
        ({"confidence": "confidence.csv"}, r"plan\.confidence was None, is \w{64}"),
    ]
    for changed, difference in changes:
        with pytest.raises(SettingsError, match=difference):
            train(replace(settings, resume=run_id, **changed), progress=False)


def test_the_plan_of_a_run_counts_no_rows_that_are_held_back(small: Path, tracking: str, begun: Begin) -> None:
    settings = TrainSettings(str(small), fit=FitSettings("radon", max_epochs=1, alpha=0.2))
    trained = fit_detector(prepare(settings).train, settings.fit)
    logged = MlflowClient(tracking).get_run(begun(settings)).data.params
    plan = {name: str(value) for name, value in vars(trained.plan).items()}
    assert {name: logged[f"plan.{name}"] for name in plan} == plan


def test_a_digest_sees_the_last_of_many_rows(tracking: str) -> None:
    digests = []
    for last in (0.0, 1.0):
        rows = pd.DataFrame({"x": np.append(np.zeros(20_000), last), "word": "a"})
        with mlflow.start_run() as run:
            log_dataset(rows, "rows.csv", "training")
        inputs = MlflowClient(tracking).get_run(run.info.run_id).inputs
        assert inputs is not None
        digests.append(inputs.dataset_inputs[0].dataset.digest)
    assert len(set(digests)) == 2


@pytest.mark.parametrize(
    ("method", "permission"), [("create_registered_model", "EDIT"), ("get_model_version_by_alias", "READ")]
)
def test_a_training_whose_version_is_refused_is_not_lost(
    small: Path, tracking: str, monkeypatch: pytest.MonkeyPatch, method: str, permission: str
) -> None:
    settings = TrainSettings(str(small), fit=FitSettings("radon", max_epochs=4, every_n_epochs=1))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, method, permission_denied)
        told = rf"ask for the permission {permission} .*; train goes on with --resume \w+\.$"
        with pytest.raises(TrackingError, match=told):
            train(settings, progress=False)
    (run,) = MlflowClient(tracking).search_runs(["0"])
    assert run.info.status == "FAILED"
    resumed = train(replace(settings, resume=run.info.run_id, model_name="another"), progress=False)
    assert (resumed.registered.name, resumed.registered.version) == ("another", "1")
    assert len(MlflowClient(tracking).get_metric_history(resumed.run_id, "train_loss")) == 1  # from its last checkpoint
