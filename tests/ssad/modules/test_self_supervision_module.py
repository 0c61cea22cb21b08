"""The loop: what it scores, what it leaves behind, and what stops it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from ssad import (
    Autoencoder,
    BinaryConfidence,
    ConfidenceIntervalsConfiguration,
    CosineReconstructionModule,
    EVTThresholding,
    FreeEnergyScoringModule,
    SelfSupervisionCallback,
    SelfSupervisionDataModule,
    SelfSupervisionModule,
    SupportsSelfSupervision,
    TriangularThresholding,
    VariationalAutoencoder,
)
from ssad.bundle.intervals import Floats
from ssad.datasets.rows import RowBatches, RowLoader, TensorRows
from ssad.errors import TrainingError
from ssad.metrics import Labels, decision_metrics
from ssad.models import AutoencoderEnsemble
from ssad.modules import EnsembleModule
from tests.ssad.workflows.support import QUIET_LIBRARIES, environment, run_python

pytestmark = QUIET_LIBRARIES

DIM = 5


def cosine(every_n_epochs: int = 1, **settings: Any) -> SelfSupervisionModule:
    model = Autoencoder(DIM, [4], 2)
    return CosineReconstructionModule(model, every_n_epochs, BinaryConfidence(), TriangularThresholding(), **settings)


def free_energy(every_n_epochs: int = 1, **settings: Any) -> SelfSupervisionModule:
    model = VariationalAutoencoder(DIM, 2, [4], 2)
    return FreeEnergyScoringModule(model, 100.0, every_n_epochs, BinaryConfidence(), EVTThresholding(), **settings)


def ensemble(every_n_epochs: int = 1, **settings: Any) -> SelfSupervisionModule:
    model = AutoencoderEnsemble(torch.rand(50, DIM), [4], 2, 4)
    return EnsembleModule(model, every_n_epochs, BinaryConfidence(), EVTThresholding(), **settings)


Build = Callable[..., SelfSupervisionModule]
every_module = pytest.mark.parametrize("build", [cosine, free_energy, ensemble])


class Rows(L.LightningDataModule):
    """Rows in the unit cube without labels."""

    def __init__(self, rows: torch.Tensor, batch_size: int = 16) -> None:
        super().__init__()
        self.rows, self.batch_size = TensorDataset(rows, torch.zeros(len(rows))), batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.rows, self.batch_size, shuffle=True)

    def val_dataloader(self) -> list[Any]:
        return []


def wrapped(count: int = 100, batch_size: int = 16) -> SelfSupervisionDataModule:
    rows = torch.rand(count, DIM, generator=torch.Generator().manual_seed(1))
    return SelfSupervisionDataModule(Rows(rows, batch_size))


def trainer(epochs: int = 1, **settings: Any) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


@every_module
def test_a_module_supports_self_supervision(build: Build) -> None:
    assert isinstance(build(), SupportsSelfSupervision)


@every_module
def test_scores_of_rows_are_deterministic_doubles_one_a_row(build: Build) -> None:
    module, datamodule = build(), wrapped()
    first = module.score_rows(datamodule.supervision_dataloader())
    second = module.score_rows(datamodule.supervision_dataloader())
    assert first.shape == (100,)
    assert first.dtype == torch.float64
    assert torch.equal(first, second)


def test_a_variational_autoencoder_in_training_mode_scores_at_random() -> None:
    # What makes the test above worth something: without evaluation mode the scores would differ.
    module, rows = free_energy().train(), torch.rand(20, DIM)
    assert not torch.equal(module.score(rows), module.score(rows))


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_mode_and_the_precision_as_they_were(training: bool) -> None:
    module = free_energy().train(training)
    module.score_rows(wrapped().supervision_dataloader())
    assert module.training is training
    assert module.model.training is training
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_scoring_that_fails_leaves_the_mode_as_it_was() -> None:
    module = cosine().train()
    with pytest.raises(RuntimeError):
        module.score_rows([torch.rand(3, DIM + 1)])
    assert module.training


@every_module
def test_training_ends_with_the_module_in_training_mode(build: Build) -> None:
    module = build()
    trainer(2).fit(module, datamodule=wrapped())
    assert module.model.training


def test_validation_decides_at_the_highest_threshold() -> None:
    rows, labels = torch.rand(60, DIM), torch.arange(60) % 2
    module = cosine()
    scores = module.score_rows([rows]).numpy()
    module.thresholds = np.quantile(scores, [0.2, 0.8]).tolist()
    (found,) = trainer().validate(module, DataLoader(TensorDataset(rows, labels), 16), verbose=False)
    expected = decision_metrics(scores > module.thresholds[-1], labels.numpy())
    assert {name: found[f"val_{name}"] for name in expected} == pytest.approx(expected)


class Losses(L.Callback):
    """Each batch's loss, and what the epoch's is said to be."""

    def __init__(self) -> None:
        self.of_batches: list[float] = []
        self.told: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        self.of_batches.append(float(outputs["loss"]))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.told.append(float(trainer.logged_metrics["train_loss"]))


def test_the_loss_that_is_told_is_the_mean_of_the_last_epochs_batches() -> None:
    losses = Losses()
    trainer(2, callbacks=[losses]).fit(cosine(), datamodule=wrapped(96))  # six batches of one size
    assert losses.told == pytest.approx([np.mean(losses.of_batches[6:])])


class GradientNorms(L.Callback):
    """The norm of all gradients as the optimizer has used them, after each batch."""

    def __init__(self) -> None:
        self.after: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        gradients = [parameter.grad.flatten() for parameter in pl_module.parameters() if parameter.grad is not None]
        self.after.append(float(torch.cat(gradients).norm()))


@every_module
def test_gradients_are_clipped_where_the_trainer_says_so_and_only_there(build: Build) -> None:
    free, clipped, most = GradientNorms(), GradientNorms(), 1e-3
    trainer(callbacks=[free]).fit(build(), datamodule=wrapped())
    trainer(callbacks=[clipped], gradient_clip_val=most).fit(build(), datamodule=wrapped())
    assert max(free.after) > most
    assert max(clipped.after) <= most * (1 + 1e-5)


def test_gradients_add_up_over_the_batches_that_the_trainer_accumulates_and_no_further() -> None:
    module, norms = cosine(), GradientNorms()
    module.learning_rate = 0.0
    same = torch.rand(DIM, generator=torch.Generator().manual_seed(1)).repeat(64, 1)  # every batch has one gradient
    trainer(callbacks=[norms], accumulate_grad_batches=2).fit(
        module, datamodule=SelfSupervisionDataModule(Rows(same, 16))
    )
    assert norms.after == pytest.approx([norms.after[1] / 2, norms.after[1]] * 2)


@every_module
def test_rows_are_scored_in_dataset_order_however_training_shuffles(build: Build) -> None:
    module, datamodule = build(), wrapped()
    trainer(2).fit(module, datamodule=datamodule)
    scores = module.score_rows(datamodule.supervision_dataloader())
    rows = datamodule.train.dataset.tensors[0]
    by_row = torch.cat([module.score_rows([row[None]]) for row in rows])
    assert torch.allclose(scores, by_row, rtol=1e-10 if module.scoring_dtype == torch.float64 else 1e-5)


@every_module
@pytest.mark.parametrize(("epochs", "every_n_epochs"), [(1, 5), (3, 1), (4, 3), (5, 3), (6, 2)])
def test_the_intervals_left_behind_are_those_of_the_final_weights(
    build: Build, epochs: int, every_n_epochs: int
) -> None:
    module, datamodule = build(every_n_epochs), wrapped()
    analysed: list[Any] = []
    analyze = module.distr_analyzer.analyze_distribution

    def recorded(scores: torch.Tensor, current: Any) -> Any:
        analysed.append((scores.clone(), current))
        return analyze(scores, current)

    module.distr_analyzer.analyze_distribution = recorded  # type: ignore[method-assign, assignment]  # it records
    trainer(epochs).fit(module, datamodule=datamodule)
    scores, current = analysed[-1]
    final = module.score_rows(datamodule.supervision_dataloader())
    assert torch.equal(scores, final)
    assert module.confidence_estimator.configuration == analyze(final, current)
    expected = module.confidence_estimator.estimate_confidence(final).float()
    assert torch.equal(datamodule.train.confidence, expected)


def test_it_recalibrates_every_n_epochs_and_once_at_the_end() -> None:
    module, datamodule = cosine(every_n_epochs=3), wrapped()
    at: list[int] = []
    update = module.update_confidence

    def recorded(datamodule: SelfSupervisionDataModule, dtype: torch.dtype) -> torch.Tensor:
        at.append(module.current_epoch)
        return update(datamodule, dtype)

    module.update_confidence = recorded  # type: ignore[method-assign, assignment]  # it records
    trainer(9).fit(module, datamodule=datamodule)
    assert at[:2] == [3, 6]
    assert len(at) == 3


def test_thresholds_are_the_ends_of_the_unknown_interval() -> None:
    module, datamodule = free_energy(), wrapped()
    module.update_confidence(datamodule)
    configuration = module.confidence_estimator.configuration
    assert configuration is not None
    found = configuration.thresholds
    assert module.thresholds == sorted(end for end in {found.normal, found.abnormal} if abs(end) < float("inf"))


def recalibrating(used: L.Trainer) -> list[L.Callback]:
    callbacks: list[L.Callback] = used.callbacks  # type: ignore[attr-defined]  # Lightning sets it elsewhere
    return [callback for callback in callbacks if isinstance(callback, SelfSupervisionCallback)]


def test_the_callback_is_added_when_the_trainer_has_none() -> None:
    used = trainer()
    used.fit(cosine(), datamodule=wrapped())
    assert len(recalibrating(used)) == 1


def test_the_callback_is_not_added_twice() -> None:
    mine = SelfSupervisionCallback()
    used = trainer(callbacks=[mine])
    used.fit(cosine(), datamodule=wrapped())
    assert recalibrating(used) == [mine]


def test_a_second_fit_of_the_same_module_does_not_add_another_callback_and_recalibrates() -> None:
    module, datamodule, used = cosine(), wrapped(), trainer(1)
    used.fit(module, datamodule=datamodule)
    used.fit_loop.max_epochs = 2
    used.fit(module, datamodule=datamodule)
    assert len(recalibrating(used)) == 1
    again = module.score_rows(datamodule.supervision_dataloader())
    expected = module.confidence_estimator.estimate_confidence(again).float()
    assert torch.equal(datamodule.train.confidence, expected)


@pytest.mark.parametrize("nan_from_epoch", [0, 2])
def test_a_loss_that_is_not_finite_stops_training_and_names_the_epoch(nan_from_epoch: int) -> None:
    class Diverges(CosineReconstructionModule):
        def compute_loss(self, data: torch.Tensor, confidence: torch.Tensor, batch_idx: int) -> torch.Tensor:
            loss = super().compute_loss(data, confidence, batch_idx)
            return loss * float("nan") if self.current_epoch >= nan_from_epoch else loss

    module = Diverges(Autoencoder(DIM, [4], 2), 9, BinaryConfidence(), TriangularThresholding())
    with pytest.raises(TrainingError, match=rf"nan at epoch {nan_from_epoch};.*learning rate"):
        trainer(5).fit(module, datamodule=wrapped())


def test_a_score_that_is_not_finite_is_an_error_that_counts_the_rows() -> None:
    rows = torch.rand(40, DIM)
    rows[3, 0] = float("nan")
    with pytest.raises(TrainingError, match="1 training rows have no finite score"):
        cosine().update_confidence(SelfSupervisionDataModule(Rows(rows)))


def test_a_data_module_that_is_not_wrapped_is_an_error_that_says_how_to_wrap_it() -> None:
    with pytest.raises(TypeError, match=r"got CosineReconstructionModule and Rows; wrap .*SelfSupervisionDataModule\("):
        trainer().fit(cosine(), datamodule=Rows(torch.rand(40, DIM)))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")  # there is nothing to validate with
def test_loaders_without_a_data_module_are_an_error_that_names_what_is_needed() -> None:
    with pytest.raises(TypeError, match="SelfSupervisionDataModule"):
        trainer().fit(cosine(), DataLoader(TensorDataset(torch.rand(40, DIM), torch.zeros(40)), 8))


@every_module
def test_a_batch_of_one_row_keeps_its_dimension_and_trains(build: Build) -> None:
    module = build()
    assert module.score(torch.rand(1, DIM)).shape == (1,)
    trainer(2).fit(module, datamodule=wrapped(count=17, batch_size=16))  # the second batch is one row


@every_module
def test_a_batch_of_size_one_trains(build: Build) -> None:
    trainer(1).fit(build(), datamodule=wrapped(count=12, batch_size=1))


@every_module
def test_feature_errors_have_one_value_for_each_feature_and_are_not_negative(build: Build) -> None:
    errors = build().eval().feature_errors(torch.rand(7, DIM))
    assert errors.shape == (7, DIM)
    assert (errors >= 0).all()


@every_module
@pytest.mark.parametrize("confidence", [1.0, -1.0, 0.0])
def test_a_batch_of_a_single_region_has_a_finite_loss_with_a_gradient(build: Build, confidence: float) -> None:
    module, rows = build(), torch.rand(6, DIM)
    loss = module.compute_loss(rows, torch.full((6,), confidence), 0)
    assert torch.isfinite(loss)
    assert loss.shape == ()
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here


@every_module
def test_training_goes_on_when_a_batch_has_only_undecided_rows(build: Build) -> None:
    module, datamodule = build(), wrapped()
    datamodule.train.confidence.zero_()
    trainer(2).fit(module, datamodule=datamodule)
    assert module.confidence_estimator.configuration is not None


@every_module
def test_the_loss_of_a_region_has_one_value_a_row(build: Build) -> None:
    module, rows = build(), torch.rand(6, DIM)
    for loss, confidence in (
        (module._positive_loss, 1.0),
        (module._negative_loss, -1.0),
        (module._uncertain_loss, 0.0),
    ):
        assert loss(rows, torch.full((6,), confidence)).shape == (6,)


@pytest.mark.parametrize(
    "settings",
    [
        {"every_n_epochs": 0},
        {"every_n_epochs": -3},
        {"every_n_epochs": 1.5},
        {"threshold_strategy": "median"},
        {"learning_rate": -1.0},
        {"learning_rate": float("inf")},
    ],
    ids=str,
)
def test_a_setting_out_of_its_range_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="every_n_epochs must be a whole number of at least 1"):
        cosine(**settings)


def test_training_with_the_same_seed_gives_the_same_weights() -> None:
    weights = []
    for _ in range(2):
        L.seed_everything(7, verbose=False)
        module = free_energy()
        trainer(2).fit(module, datamodule=wrapped())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in module.parameters()]))
    assert torch.equal(*weights)


class Still(TriangularThresholding):
    """Cuts where it cut first, so that no row changes its region any more."""

    def analyze_distribution(self, scores_batch: torch.Tensor, current_conf: Any) -> Any:
        return current_conf or ConfidenceIntervalsConfiguration.from_thresholds(10.0, 11.0)


@pytest.mark.parametrize(("stop", "epochs"), [(True, 4), (False, 9)])
def test_training_ends_when_regions_have_settled_if_it_may(stop: bool, epochs: int) -> None:
    module = CosineReconstructionModule(Autoencoder(DIM, [4], 2), 1, BinaryConfidence(), Still())
    used = trainer(9, callbacks=[SelfSupervisionCallback(stop_when_settled=stop)])
    used.fit(module, datamodule=wrapped())
    assert used.current_epoch == epochs  # recalibrated after epochs 1, 2 and 3: two in a row changed nothing


class Counting(CosineReconstructionModule):
    """Says beside the test metrics how many rows they are of."""

    def compute_test_metrics(self, scores: Floats, labels: Labels, threshold: float) -> dict[str, float]:
        return super().compute_test_metrics(scores, labels, threshold) | {"rows": len(scores)}


def measured(processes: int) -> list[Mapping[str, float]]:
    """What one or several processes measure on labelled rows, an odd number of which are dealt out to them."""
    L.seed_everything(0, verbose=False)
    labels = (torch.arange(101) % 5 == 0).float()
    rows = torch.rand(101, DIM) ** (1 + labels[:, None])
    loaders = [
        DataLoader(TensorDataset(rows, labels), 8),
        DataLoader(TensorDataset(rows[:33] ** 2, labels[:33]), 8),
        RowLoader(TensorRows(rows[:20], labels[:20]), sampler=RowBatches(20, 8)),  # of which each process has all rows
    ]
    module = Counting(Autoencoder(DIM, [4], 2), 1, BinaryConfidence(), TriangularThresholding(), "manual", 0.5)
    used = trainer(devices=processes, strategy="auto" if processes == 1 else "ddp_fork")
    return [*used.test(module, loaders, verbose=False), *used.validate(module, loaders[:2], verbose=False)]


def test_two_processes_measure_every_row_once_as_one_does(tmp_path: Path) -> None:
    program = f"import json; from {__name__} import measured; print(json.dumps(measured(2)))"
    done = run_python(
        "-W", "ignore", "-c", program, cwd=tmp_path, env=environment("", PYTHONPATH=os.pathsep.join(sys.path))
    )
    assert done.returncode == 0, done.stderr
    two, one = json.loads(done.stdout.splitlines()[-1]), measured(1)
    assert one[0]["test_rows"] == 101 + 33 + 20
    assert two == [pytest.approx(metrics) for metrics in one]


@every_module
def test_a_prediction_is_the_score_of_each_row(build: Build) -> None:
    module, datamodule = build(), wrapped()
    pairs = DataLoader(TensorDataset(datamodule.train.dataset.tensors[0], torch.zeros(100)), 32)
    predicted = trainer().predict(module, pairs)
    assert predicted is not None
    expected = module.score_rows(datamodule.supervision_dataloader())
    torch.testing.assert_close(torch.cat(predicted), expected, rtol=1e-6, atol=0)  # type: ignore[arg-type]  # tensors
    again = trainer().predict(module, datamodule.supervision_dataloader())
    assert again is not None
    torch.testing.assert_close(torch.cat(again), expected, rtol=1e-6, atol=0)  # type: ignore[arg-type]  # likewise


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_few_batches_are_not_made_single_rows() -> None:
    with pytest.raises(TypeError, match="use limit_train_batches"):
        trainer(overfit_batches=2).fit(cosine(), wrapped())


def test_a_checkpoint_decides_as_it_did_when_it_was_written() -> None:
    module = ensemble()
    module.scoring_dtype = torch.float64
    module.confidence_estimator.configuration = ConfidenceIntervalsConfiguration.from_thresholds(1.0, 3.0, 2.5)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    other = ensemble()
    other.thresholds = [7.0]
    other.on_load_checkpoint(checkpoint)
    assert other.thresholds == [1.0, 3.0]
    assert other.scoring_dtype == torch.float64
    assert other.confidence_estimator.configuration == module.confidence_estimator.configuration


def test_a_precision_that_is_too_coarse_for_distances_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ensemble().to(torch.bfloat16)
    monkeypatch.setattr(module, "_log_deviations", lambda rows: 3 * (torch.nan * rows[:, 0],))
    with pytest.raises(TrainingError, match=r"cannot be computed in torch\.bfloat16; train with precision bf16-mixed"):
        module.prepare_scoring(wrapped())


def test_without_intervals_only_the_ranking_is_tested(caplog: pytest.LogCaptureFixture) -> None:
    module, lightning = cosine(), trainer()
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    module.on_load_checkpoint(checkpoint)
    rows = DataLoader(TensorDataset(torch.rand(20, DIM), torch.arange(20) % 2), batch_size=10)
    (tested,) = lightning.test(module, rows, verbose=False)
    assert set(tested) == {"test_auc", "test_ap"}
    assert "no recalibration has set thresholds" in caplog.text


def test_a_callback_begins_anew_with_every_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssad.modules.self_supervision_callback.SETTLED_SHARE", 1.0)
    callback, epochs = SelfSupervisionCallback(stop_when_settled=True), []
    for _ in range(2):
        lightning = trainer(9, callbacks=[callback])
        lightning.fit(cosine(), datamodule=wrapped())
        epochs.append(lightning.current_epoch)
    assert epochs[0] == epochs[1] > 1


@every_module
def test_rows_are_tested_in_the_precision_of_the_thresholds_whatever_training_used(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, datamodule, seen = build(threshold_strategy="manual"), wrapped(), list[Floats]()
    lightning = trainer(2, precision="bf16-mixed")
    lightning.fit(module, datamodule=datamodule)

    def recorded(scores: Floats, labels: Labels, threshold: float) -> dict[str, float]:
        seen.append(scores)
        return {}

    monkeypatch.setattr(module, "compute_test_metrics", recorded)
    rows = DataLoader(TensorDataset(datamodule.train.dataset.tensors[0], torch.arange(100) % 2), 100)
    lightning.test(module, rows, verbose=False)
    np.testing.assert_allclose(seen[0], module.training_scores.numpy(), rtol=1e-6)


@every_module
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_weights_of_any_precision_train_to_finite_scores(build: Build, precision: Any) -> None:
    module = build()
    trainer(3, precision=precision).fit(module, datamodule=wrapped())
    assert torch.isfinite(module.training_scores).all()


def test_a_data_module_that_has_training_rows_alone_is_wrapped_too() -> None:
    class TrainingRows(L.LightningDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(TensorDataset(torch.rand(40, DIM), torch.zeros(40)), 8)

    trainer(2).fit(cosine(), datamodule=SelfSupervisionDataModule(TrainingRows()))


def test_a_training_whose_length_nobody_knows_has_no_cycle() -> None:
    trainer(-1, max_time={"seconds": 0}).fit(ensemble(), datamodule=wrapped())


def labelled(labels: torch.Tensor, batch_size: int = 16) -> DataLoader[Any]:
    rows = torch.rand(len(labels), DIM, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(rows, labels), batch_size)


class CutOff(L.Callback):
    """Something goes wrong, or somebody presses Ctrl-C, in the second batch."""

    def on_test_batch_end(self, *arguments: Any) -> None:
        if arguments[4] == 1:
            raise ValueError("cut off")

    def on_validation_batch_end(self, *arguments: Any) -> None:
        self.on_test_batch_end(*arguments)


@pytest.mark.parametrize("kind", ["test", "validate"])
def test_rows_of_a_test_that_was_cut_off_do_not_count_in_the_next(kind: str) -> None:
    module, rows = cosine(), labelled((torch.rand(100, generator=torch.Generator().manual_seed(2)) < 0.3).long())
    whole = getattr(trainer(), kind)(module, rows, verbose=False)
    with pytest.raises(ValueError, match="cut off"):
        getattr(trainer(callbacks=[CutOff()]), kind)(module, rows, verbose=False)
    assert getattr(trainer(), kind)(module, rows, verbose=False) == whole


@pytest.mark.parametrize(
    ("labels", "level", "found"),
    [
        (torch.tensor([1, -1]), "WARNING", "labels are -1, 1, expected"),
        (torch.arange(10), "WARNING", "labels are 0, 1, 2, 3, 4, ..., expected"),
        (torch.tensor([0, 0]), "WARNING", "labels are 0, expected"),
        (torch.tensor([-1, -1]), "INFO", "labels are -1, expected"),
        (torch.tensor([torch.nan, torch.nan]), "INFO", "labels are -1, expected"),
    ],
)
def test_labels_that_measure_nothing_are_named(
    labels: torch.Tensor, level: str, found: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "ssad"):
        assert trainer().test(cosine(), labelled(labels), verbose=False) == [{}]
    (record,) = (record for record in caplog.records if "the test rows' labels" in record.message)
    assert record.levelname == level
    assert found in record.message


@every_module
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_rows_of_any_type_of_number_train_as_in_the_type_of_the_weights(build: Build, kind: torch.dtype) -> None:
    rows = (3 * torch.rand(100, DIM, generator=torch.Generator().manual_seed(1))).to(kind)
    scores = []
    for data in (rows, rows.float()):
        torch.manual_seed(0)
        module = build()
        torch.manual_seed(0)
        trainer(2).fit(module, datamodule=SelfSupervisionDataModule(Rows(data)))
        scores.append(module.training_scores)
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-6, atol=0)


def test_a_wrapped_data_module_may_ask_its_trainer() -> None:
    class Asks(Rows):
        def val_dataloader(self) -> Any:
            assert self.trainer is not None
            return DataLoader(self.rows, self.batch_size // self.trainer.world_size)

        test_dataloader = val_dataloader

    module, datamodule = cosine(), SelfSupervisionDataModule(Asks(torch.rand(40, DIM)))
    lightning = trainer(2)
    lightning.fit(module, datamodule=datamodule)
    lightning.test(module, datamodule=datamodule, verbose=False)
    assert datamodule.datamodule.trainer is lightning


class Images(Rows):
    """Pictures of one channel."""

    def __init__(self) -> None:
        super().__init__(torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(1)))


class Convolutions(torch.nn.Sequential):
    """Pictures of one channel and even sides, reconstructed."""

    def __init__(self) -> None:
        down, up = torch.nn.Conv2d(1, 3, 2, stride=2), torch.nn.ConvTranspose2d(3, 1, 2, stride=2)
        super().__init__(down, torch.nn.ReLU(), up, torch.nn.Sigmoid())


def test_convolutions_train_on_images() -> None:
    module = CosineReconstructionModule(Convolutions(), 1, BinaryConfidence(), TriangularThresholding())
    datamodule = SelfSupervisionDataModule(Images())
    trainer(3).fit(module, datamodule=datamodule)
    assert module.training_scores.shape == (60,)
    assert len(set(datamodule.train.confidence.tolist())) > 1


@pytest.mark.parametrize(("reduced", "scores"), [(torch.Tensor.mean, 1), (torch.Tensor.clone, 100 * DIM)])
def test_a_module_that_does_not_give_a_score_a_row_is_refused(
    reduced: Callable[[torch.Tensor], torch.Tensor], scores: int
) -> None:
    class Careless(CosineReconstructionModule):
        def _prediction_score(self, data: torch.Tensor) -> torch.Tensor:
            return reduced((data - self.model(data)) ** 2)

    module = Careless(Autoencoder(DIM, [4], 2), 1, BinaryConfidence(), TriangularThresholding())
    datamodule = wrapped()
    with pytest.raises(ValueError, match=rf"Careless gives {scores} score\(s\) for 100 row\(s\), expected one a row"):
        module.update_confidence(datamodule)
    assert (datamodule.train.confidence == 1).all()
