"""A program written for the published library's interface runs here and leaves what it left there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from mlflow.entities import Run

import ssad
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = QUIET_LIBRARIES

EXPORTED = [
    "Autoencoder",
    "VariationalAutoencoder",
    "Interval",
    "ConfidenceIntervalsConfiguration",
    "SupportsConfidenceEstimation",
    "BaseConfidenceEstimator",
    "BinaryConfidence",
    "HybridEstimator",
    "SupportsDistributionAnalysis",
    "TriangularThresholding",
    "EVTThresholding",
    "DataFrameWithLabels",
    "DataFrameToTensor",
    "DatasetWithConfidence",
    "DatasetWithLabels",
    "DatasetWithInputDim",
    "init_confidence_from_csv",
    "save_confidence_to_csv",
    "SelfSupervisionDataModule",
    "GeneralTabularDataModule",
    "create_preprocessing_pipeline",
    "to_categorical",
    "drop_cols",
    "fuse_cols",
    "replace_values_with_nan",
    "time_split_train_val_test",
    "SelfSupervisionModule",
    "SupportsSelfSupervision",
    "CosineReconstructionModule",
    "FreeEnergyScoringModule",
    "SelfSupervisionCallback",
    "setup_logging",
]

DECISION = ("val_accuracy", "val_precision", "val_recall", "val_f1")

FEATURES = 6


class SensorDataModule(ssad.GeneralTabularDataModule):
    """Writes its own file, as a program that downloads its data does."""

    def prepare_data(self) -> None:
        generator = np.random.default_rng(3)
        code = generator.normal(0, 1, (500, 2))
        normal = code @ generator.normal(0, 1, (2, FEATURES)) + generator.normal(0, 0.1, (500, FEATURES))
        anomalies = generator.normal(0, 3, (100, FEATURES))
        table = pd.DataFrame(np.vstack([normal, anomalies]), columns=[f"f{i}" for i in range(FEATURES)])
        table["state"] = ["ok"] * 500 + ["broken"] * 100
        self.dataset_path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(self.dataset_path, index=False)


def sensors(folder: Path) -> SensorDataModule:
    return SensorDataModule(
        dataset_path=folder / "raw" / "data" / "sensors.csv",
        label_column="state",
        batch_size=32,
        p_train=0.5,
        p_val=0.2,
        pa_train=0.1,
        pa_val=0.2,
        pa_test=0.2,
        n_rows=500,
        normal_labels="ok",
        anomaly_labels=["broken"],
        transform=ssad.DataFrameToTensor(),
        target_transform=ssad.DataFrameToTensor(),
        random_state=1,
        shuffling=True,
    )


def radon(input_dim: int, **settings: Any) -> ssad.SelfSupervisionModule:
    return ssad.CosineReconstructionModule(
        model=ssad.Autoencoder(input_dim=input_dim, encoder_dims=[4], latent_dim=2),
        every_n_epochs=3,
        confidence_estimator=settings.pop("confidence_estimator", None) or ssad.BinaryConfidence(),
        distr_analyzer=ssad.TriangularThresholding(bin_estimator="knuth"),
        **settings,
    )


def grand(input_dim: int) -> ssad.SelfSupervisionModule:
    return ssad.FreeEnergyScoringModule(
        model=ssad.VariationalAutoencoder(input_dim=input_dim, num_flows=2, encoder_dims=[4], latent_dim=2),
        m=100,
        every_n_epochs=3,
        confidence_estimator=ssad.BinaryConfidence(),
        distr_analyzer=ssad.EVTThresholding(alpha=1.5, q=0.001),
    )


def plain_trainer(epochs: int, logger: Any = False, **settings: Any) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        logger=logger,
        enable_progress_bar=False,
        enable_checkpointing=False,
        **settings,
    )


def logged_run(logger: MLFlowLogger, uri: str) -> tuple[Run, list[str], MlflowClient]:
    client = MlflowClient(uri)
    run = client.get_run(str(logger.run_id))
    return run, [artifact.path for artifact in client.list_artifacts(run.info.run_id)], client


@pytest.mark.parametrize("name", EXPORTED)
def test_every_published_name_is_exported(name: str) -> None:
    assert getattr(ssad, name) is not None
    assert name in vars(ssad)["__all__"]
    assert name in dir(ssad)


@pytest.mark.parametrize("build", [radon, grand])
def test_a_published_program_trains_tests_and_leaves_its_artifacts(
    build: Callable[[int], ssad.SelfSupervisionModule], tracking: str, tmp_path: Path
) -> None:
    datamodule = ssad.SelfSupervisionDataModule(sensors(tmp_path))
    module = build(datamodule.input_dim)
    logger = MLFlowLogger(experiment_name="papers", run_name=build.__name__, tracking_uri=tracking)
    trainer = L.Trainer(
        max_epochs=5,
        accelerator="auto",
        devices=1,
        logger=logger,
        reload_dataloaders_every_n_epochs=1,
    )
    trainer.fit(model=module, datamodule=datamodule)
    (tested,) = trainer.test(model=module, datamodule=datamodule)

    run, artifacts, client = logged_run(logger, tracking)
    assert client.get_experiment(run.info.experiment_id).name == "papers"
    assert run.info.run_name == build.__name__
    # Recalibrated after epoch 3, and from the final weights after epoch 4.
    for epoch in (3, 4):
        assert f"confidence_epoch_{epoch}.csv" in artifacts
        assert f"confidence_intervals_epoch_{epoch}.json" in artifacts
        assert f"confidence_analysis_epoch_{epoch}.svg" in artifacts
    assert {"test_roc.png", "test_pr.png"} <= set(artifacts)
    assert len([name for name in artifacts if name.startswith("test_metrics_threshold=")]) == len(module.thresholds)
    assert {"train_loss", "val_auc", "val_ap", *DECISION, "test_auc"} <= set(run.data.metrics)
    assert {"cpu_percent", "ram_percent"} <= set(run.data.metrics)
    assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 5
    assert 0.5 < tested["test_auc"] <= 1


def test_the_artifacts_of_a_program_hold_what_their_names_say(tracking: str, tmp_path: Path) -> None:
    datamodule = ssad.SelfSupervisionDataModule(sensors(tmp_path))
    module = radon(datamodule.input_dim)
    logger = MLFlowLogger(experiment_name="papers", tracking_uri=tracking)
    trainer = plain_trainer(4, logger)
    trainer.fit(model=module, datamodule=datamodule)
    trainer.test(model=module, datamodule=datamodule)

    run, artifacts, client = logged_run(logger, tracking)
    folder = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    snapshot = pd.read_csv(folder / "confidence_epoch_3.csv")
    assert list(snapshot) == ["confidence"]
    assert snapshot["confidence"].to_numpy() == pytest.approx(datamodule.train.confidence.numpy())
    assert module.confidence_estimator.configuration is not None
    intervals = json.loads((folder / "confidence_intervals_epoch_3.json").read_text())
    assert intervals == module.confidence_estimator.configuration.as_dict()
    assert "<svg" in (folder / "confidence_analysis_epoch_3.svg").read_text()
    for name in artifacts:
        if name.startswith("test_metrics_threshold="):
            at = float(name.removeprefix("test_metrics_threshold=").removesuffix(".json"))
            assert json.loads((folder / name).read_text())["threshold"] == pytest.approx(at, rel=1e-5)
    assert (folder / "test_roc.png").read_bytes().startswith(b"\x89PNG")


def test_the_split_has_the_asked_shares_of_anomalies(tmp_path: Path) -> None:
    inner = sensors(tmp_path)
    ssad.SelfSupervisionDataModule(inner)
    assert inner.train is not None
    assert inner.val is not None
    assert inner.test is not None
    assert inner.train.get_stats() == (250, 225, 25)
    assert inner.val.get_stats() == (100, 80, 20)
    assert inner.test.get_stats() == (150, 120, 30)


def test_a_second_data_module_reads_the_preprocessed_parts_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sensors(tmp_path), sensors(tmp_path)
    first.prepare_data()
    first.setup("fit")
    monkeypatch.setattr(second, "_preprocess", None)  # only the preprocessed parts are left
    second.setup("fit")
    assert first.train is not None
    assert second.train is not None
    assert torch.equal(first.train[7][0], second.train[7][0])


def test_the_supervision_loader_gives_every_training_row_once_in_order(tmp_path: Path) -> None:
    datamodule = ssad.SelfSupervisionDataModule(sensors(tmp_path))
    batches = list(datamodule.supervision_dataloader())
    rows = torch.cat([batch["data"] for batch in batches])
    assert len(rows) == len(datamodule.train)
    assert torch.equal(rows, torch.stack([datamodule.train[i]["data"] for i in range(len(rows))]))


def test_an_item_is_a_dict_of_data_label_and_confidence(tmp_path: Path) -> None:
    item = ssad.SelfSupervisionDataModule(sensors(tmp_path)).train[0]
    assert set(item) == {"data", "label", "confidence"}
    assert item["data"].shape == (FEATURES,)
    assert item["confidence"] == 1


def test_a_hybrid_estimator_trains(tmp_path: Path) -> None:
    datamodule = ssad.SelfSupervisionDataModule(sensors(tmp_path))
    hybrid = ssad.HybridEstimator(
        datamodule.train, [ssad.BinaryConfidence(), ssad.GradedConfidence()], weights=[1.0, 3.0]
    )
    module = radon(datamodule.input_dim, confidence_estimator=hybrid)
    plain_trainer(4).fit(model=module, datamodule=datamodule)
    scores = module.training_scores  # a rank changes with the last digit, which another device's scores differ in
    expected = 0.25 * hybrid.estimators[0].estimate_confidence(scores)
    expected += 0.75 * hybrid.estimators[1].estimate_confidence(scores)
    assert datamodule.train.confidence.double() == pytest.approx(expected, abs=1e-6)


def test_a_manual_threshold_is_the_one_that_is_tested_at(tracking: str, tmp_path: Path) -> None:
    datamodule = ssad.SelfSupervisionDataModule(sensors(tmp_path))
    module = radon(datamodule.input_dim, threshold_strategy="manual", manual_threshold=0.25)
    logger = MLFlowLogger(experiment_name="papers", tracking_uri=tracking)
    trainer = plain_trainer(2, logger)
    trainer.fit(model=module, datamodule=datamodule)
    (tested,) = trainer.test(model=module, datamodule=datamodule)
    assert module.thresholds == [0.25]
    assert tested["test_threshold"] == 0.25
    assert "test_metrics_threshold=0.25.json" in logged_run(logger, tracking)[1]


def test_a_manual_threshold_is_known_from_the_start() -> None:
    assert radon(3, threshold_strategy="manual", manual_threshold=0.25).thresholds == [0.25]
    assert radon(3).thresholds == []


@pytest.mark.parametrize("monitor", DECISION)
def test_a_checkpoint_may_be_chosen_by_a_decision_metric_from_the_first_epoch_on(monitor: str, tmp_path: Path) -> None:
    datamodule = ssad.SelfSupervisionDataModule(sensors(tmp_path))
    best = ModelCheckpoint(tmp_path / "best", monitor=monitor, mode="max")
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[best])
    module = radon(datamodule.input_dim)  # recalibrates for the first time at the end
    trainer.fit(model=module, datamodule=datamodule)
    assert module.thresholds
    assert best.best_model_score == (
        0.8 if monitor == "val_accuracy" else 0
    )  # a fifth are anomalies, none is called one


def test_training_starts_from_the_confidence_in_a_csv(tmp_path: Path) -> None:
    written = torch.linspace(-1, 1, 250)
    path = tmp_path / "confidence.csv"
    pd.DataFrame({"confidence": written.numpy()}).to_csv(path, index=False)
    datamodule = ssad.SelfSupervisionDataModule(sensors(tmp_path), path_confidence=path)
    assert torch.allclose(datamodule.train.confidence, written)
    plain_trainer(1).fit(model=radon(datamodule.input_dim), datamodule=datamodule)
    assert not torch.allclose(datamodule.train.confidence, written)


def test_a_trainer_without_a_logger_fits_and_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    datamodule = ssad.SelfSupervisionDataModule(sensors(tmp_path))
    module = grand(datamodule.input_dim)
    trainer = plain_trainer(2)
    trainer.fit(model=module, datamodule=datamodule)
    (tested,) = trainer.test(model=module, datamodule=datamodule)
    assert {"test_auc", "test_ap", "test_f1"} <= set(tested)
    assert not (tmp_path / "mlruns").exists()


def test_a_trainer_with_its_default_logger_fits_and_tests(tmp_path: Path) -> None:
    datamodule = ssad.SelfSupervisionDataModule(sensors(tmp_path))
    trainer = plain_trainer(1, logger=True, default_root_dir=tmp_path)
    trainer.fit(model=radon(datamodule.input_dim), datamodule=datamodule)
    assert list(tmp_path.glob("lightning_logs/version_0"))


class MeanDistance(ssad.SelfSupervisionModule):
    """A reader's own detector: only what is abstract."""

    @property
    def criterion(self) -> Callable[..., torch.Tensor]:
        return torch.nn.MSELoss(reduction="none")

    def _prediction_score(self, data: torch.Tensor) -> torch.Tensor:
        score: torch.Tensor = self.criterion(self.model(data), data).mean(dim=1)
        return score

    def _positive_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return self._prediction_score(data)

    def _negative_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return 1 / (self._prediction_score(data) + 1)

    def _uncertain_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(confidence)


def test_a_module_that_overrides_only_the_abstract_methods_trains(tmp_path: Path) -> None:
    datamodule = ssad.SelfSupervisionDataModule(sensors(tmp_path))
    model = torch.nn.Linear(datamodule.input_dim, datamodule.input_dim)
    module = MeanDistance(model, 1, ssad.BinaryConfidence(), ssad.EVTThresholding())
    trainer = plain_trainer(3)
    trainer.fit(model=module, datamodule=datamodule)
    (tested,) = trainer.test(model=module, datamodule=datamodule)
    assert tested["test_auc"] > 0.5


def test_a_module_that_lacks_an_abstract_method_cannot_be_made() -> None:
    class Half(ssad.SelfSupervisionModule):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Half(torch.nn.Identity(), 1, ssad.BinaryConfidence(), ssad.EVTThresholding())  # type: ignore[abstract]  # that is the mistake


def test_any_lightning_data_module_can_be_wrapped() -> None:
    class Pairs(L.LightningDataModule):
        def train_dataloader(self) -> Any:
            rows = torch.utils.data.TensorDataset(torch.rand(70, 3), torch.zeros(70))
            return torch.utils.data.DataLoader(rows, batch_size=16)

        def val_dataloader(self) -> Any:
            return []

    datamodule = ssad.SelfSupervisionDataModule(Pairs())
    assert (datamodule.input_dim, datamodule.batch_size, len(datamodule.train)) == (3, 16, 70)
    plain_trainer(2).fit(model=radon(3), datamodule=datamodule)
    assert set(datamodule.train.confidence.tolist()) <= {-1.0, 0.0, 1.0}


def test_a_wrapped_data_module_keeps_its_state_and_puts_away_what_it_set_up(tmp_path: Path) -> None:
    class Counting(L.LightningDataModule):
        def __init__(self) -> None:
            super().__init__()
            self.trained, self.calls = 0, list[tuple[str, str]]()

        def setup(self, stage: str) -> None:
            self.calls.append(("setup", stage))

        def teardown(self, stage: str) -> None:
            self.calls.append(("teardown", stage))

        def train_dataloader(self) -> Any:
            self.trained += 1
            rows = torch.utils.data.TensorDataset(torch.rand(70, 3), torch.arange(70) % 2)
            return torch.utils.data.DataLoader(rows, batch_size=16)

        test_dataloader = train_dataloader

        def state_dict(self) -> dict[str, Any]:
            return {"trained": self.trained}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.trained = state_dict["trained"]

    inner = Counting()
    datamodule, trainer, module = ssad.SelfSupervisionDataModule(inner), plain_trainer(2), radon(3)
    trainer.fit(model=module, datamodule=datamodule)
    trainer.test(model=module, datamodule=datamodule, verbose=False)
    assert inner.calls == [("setup", "fit"), ("setup", "test"), ("teardown", "test")]

    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fresh = Counting()
    resumed = ssad.SelfSupervisionDataModule(fresh)
    plain_trainer(2).fit(radon(3), datamodule=resumed, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert fresh.trained == inner.trained
    assert torch.equal(resumed.train.confidence, datamodule.train.confidence)


def test_a_data_module_of_plain_loaders_over_tables_trains_validates_and_tests(tmp_path: Path) -> None:
    inner = sensors(tmp_path)
    inner.prepare_data()
    table = pd.read_csv(inner.dataset_path)
    table["state"] = (table["state"] == "broken").astype(int)
    rows = ssad.DataFrameWithLabels(table, "state")

    class Tables(L.LightningDataModule):
        def setup(self, stage: str) -> None:
            self.parts = torch.utils.data.random_split(rows, [400, 100, 100])

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(self.parts[0], batch_size=32, shuffle=True)

        def val_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(self.parts[1], batch_size=32)

        def test_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(self.parts[2], batch_size=32)

    datamodule, trainer = ssad.SelfSupervisionDataModule(Tables()), plain_trainer(2)
    module = radon(datamodule.input_dim)
    trainer.fit(model=module, datamodule=datamodule)
    assert {"val_auc", "val_ap"} <= set(trainer.callback_metrics)
    (tested,) = trainer.test(model=module, datamodule=datamodule, verbose=False)
    assert {"test_auc", "test_ap", "test_f1"} <= set(tested)
