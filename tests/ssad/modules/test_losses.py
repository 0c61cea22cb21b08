"""What each region's loss is, and which way it pulls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ssad import (
    BinaryConfidence,
    CosineReconstructionModule,
    EVTThresholding,
    FreeEnergyScoringModule,
    SelfSupervisionDataModule,
    TriangularThresholding,
)
from ssad.datasets.rows import TensorRows
from ssad.detectors.fit import EncodedRows
from ssad.models import AutoencoderEnsemble
from ssad.modules import EnsembleModule
from ssad.modules.cosine_reconstruction_module import cosine_similarity
from ssad.modules.ensemble_module import (
    DISTANCE_FLOOR,
    MARGIN,
    WORD_DIFFERENCE,
    disjoint_samples,
    distance_weights,
    log_distance,
    whitening,
)
from ssad.modules.free_energy_module import free_energy
from ssad.modules.score_loss_module import ScoreLossModule

ONES, MINUS_ONES = torch.ones(1), -torch.ones(1)


class Answer(nn.Module):
    """A network whose reconstruction is a parameter: the gradient says which way it is pulled."""

    def __init__(self, reconstruction: list[list[float]]) -> None:
        super().__init__()
        self.reconstruction = nn.Parameter(torch.tensor(reconstruction))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.reconstruction


class EnergyAnswer(Answer):
    """Likewise with a latent and no divergence."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.reconstruction, self.reconstruction, torch.zeros(len(x))


class Members(Answer):
    """Likewise as an ensemble of one."""

    members = 1

    def __init__(self, reconstruction: list[list[float]]) -> None:
        super().__init__(reconstruction)
        self.weights = [torch.zeros(1, 1, len(reconstruction[0]))]

    def forward(self, x: torch.Tensor) -> Any:
        return x.T, self.reconstruction.T[None]


def radon(reconstruction: list[list[float]]) -> CosineReconstructionModule:
    return CosineReconstructionModule(Answer(reconstruction), 1, BinaryConfidence(), EVTThresholding())


def grand(reconstruction: list[list[float]], m: float = 10.0) -> FreeEnergyScoringModule:
    return FreeEnergyScoringModule(EnergyAnswer(reconstruction), m, 1, BinaryConfidence(), EVTThresholding())


ROW = torch.tensor([[1.0, 0.0]])


def test_the_cosine_score_is_0_for_collinear_1_for_orthogonal_and_2_for_opposite() -> None:
    scores = [radon([r]).score(ROW).item() for r in ([3.0, 0.0], [0.0, 2.0], [-1.0, 0.0])]
    assert scores == pytest.approx([0, 1, 2], abs=1e-6)


def test_the_positive_cosine_loss_is_zero_for_collinear_rows() -> None:
    assert radon([[3.0, 0.0]])._positive_loss(ROW, ONES).item() == pytest.approx(0, abs=1e-6)


def test_the_negative_cosine_loss_is_zero_for_orthogonal_rows_and_highest_for_collinear() -> None:
    orthogonal, collinear, opposite = radon([[0.0, 2.0]]), radon([[3.0, 0.0]]), radon([[-1.0, 0.0]])
    assert orthogonal._negative_loss(ROW, MINUS_ONES).item() == pytest.approx(0, abs=1e-6)
    for as_near in (collinear, opposite):
        assert as_near._negative_loss(ROW, MINUS_ONES).item() == pytest.approx(1, abs=1e-6)


def test_undecided_rows_are_left_out_of_the_cosine_loss() -> None:
    module = radon([[1.0, 1.0]])
    assert module._uncertain_loss(ROW, torch.zeros(1)).item() == 0


def test_the_size_of_the_confidence_weights_the_cosine_loss() -> None:
    module = radon([[1.0, 1.0]])
    assert module._positive_loss(ROW, 0.5 * ONES).item() == pytest.approx(0.5 * module._positive_loss(ROW, ONES).item())
    assert module._negative_loss(ROW, -0.5 * ONES).item() == pytest.approx(
        0.5 * module._negative_loss(ROW, MINUS_ONES).item()
    )


ROWS = torch.tensor([[1.0, 0.5], [0.0, 2.0], [3.0, 1.0], [1.0, 1.0], [0.2, 0.1]])


@pytest.mark.parametrize("module", [radon(ROWS.flip(0).tolist()), grand(ROWS.flip(0).tolist())])
@pytest.mark.parametrize(
    "confidence",
    [[1.0, -1.0, 0.0, 0.7, 0.1], [0.5, -0.5, 0.49, -0.49, 1.0], [1.0] * 5, [-1.0] * 5, [0.0] * 5],
    ids=["all kinds", "edges", "+", "-", "0"],
)
def test_the_loss_of_a_batch_is_the_mean_of_its_regions_losses(
    module: ScoreLossModule, confidence: list[float]
) -> None:
    confidences = torch.tensor(confidence)
    scores, losses = module._prediction_score(ROWS), []
    for part, loss in (
        (confidences >= 0.5, module._positive),
        (confidences <= -0.5, module._negative),
        (confidences.abs() < 0.5, module._uncertain),
    ):
        losses += loss(scores[part], confidences[part]).tolist()
    assert module.compute_loss(ROWS, confidences, 0).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_batch_goes_through_the_network_once() -> None:
    module, passes = radon(ROWS.tolist()), []
    module.model.register_forward_hook(lambda *_: passes.append(1))
    module.compute_loss(ROWS, torch.tensor([1.0, -1.0, 0.0, 1.0, 1.0]), 0)
    assert len(passes) == 1


def test_a_subclass_may_say_by_the_rows_what_a_regions_loss_is() -> None:
    class Own(CosineReconstructionModule):
        def _negative_loss(self, data: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
            return data.sum(dim=1)

    module = Own(nn.Linear(2, 2), 1, BinaryConfidence(), EVTThresholding())
    assert module.compute_loss(ROWS, -torch.ones(5), 0).item() == pytest.approx(ROWS.sum(dim=1).mean().item())
    plain: Any = CosineReconstructionModule(nn.Linear(2, 2), 1, BinaryConfidence(), EVTThresholding())
    plain._uncertain_loss = lambda data, confidence: data.sum(dim=1)
    assert plain.compute_loss(ROWS, torch.zeros(5), 0).item() == pytest.approx(ROWS.sum(dim=1).mean().item())


def gradient(module: Any, confidence: float) -> torch.Tensor:
    module.zero_grad()
    module.compute_loss(ROW, torch.tensor([confidence]), 0).backward()
    found: torch.Tensor = module.model.reconstruction.grad
    return found


@pytest.mark.parametrize("module", [radon([[1.0, 1.0]]), grand([[0.0, 0.5]])], ids=["cosine", "free energy"])
def test_a_step_lowers_the_score_of_a_normal_row_and_raises_that_of_an_abnormal_one(module: Any) -> None:
    before = module.score(ROW).item()
    for confidence, sign in ((1.0, -1), (-1.0, 1)):
        start, slope = module.model.reconstruction.detach().clone(), gradient(module, confidence)
        with torch.no_grad():
            module.model.reconstruction -= 0.01 * slope
            change = module.score(ROW).item() - before
            module.model.reconstruction.copy_(start)
        assert change * sign > 0


def test_free_energy_is_the_squared_error_plus_the_divergence() -> None:
    energy = free_energy(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([0.5]))
    assert energy.tolist() == [5.5]


@pytest.mark.parametrize("shape", [(4, 1, 2, 3), (4, 1, 6), (4, 2, 3)])
def test_an_image_scores_as_its_pixels_in_a_row_do(shape: tuple[int, ...]) -> None:
    rows, reconstruction, divergence = torch.rand(4, 6), torch.rand(4, 6), torch.rand(4)
    images, reconstructed = rows.reshape(shape), reconstruction.reshape(shape)
    assert torch.equal(cosine_similarity(images, reconstructed), cosine_similarity(rows, reconstruction))
    assert torch.equal(free_energy(images, reconstructed, divergence), free_energy(rows, reconstruction, divergence))


@pytest.mark.parametrize(("reconstruction", "loss"), [(1.0, 10.0), (3.0, 6.0), (5.0, 0.0)])
def test_the_negative_loss_of_free_energy_is_a_hinge_that_ends_at_m(reconstruction: float, loss: float) -> None:
    module = grand([[reconstruction, 0.0]])
    assert module._negative_loss(ROW, MINUS_ONES).item() == pytest.approx(loss)


def test_beyond_m_an_abnormal_row_has_no_gradient() -> None:
    assert not gradient(grand([[5.0, 0.0]]), -1.0).any()


def test_undecided_rows_are_pulled_towards_m_with_the_weight_of_their_rank() -> None:
    rows = torch.zeros(3, 1)
    module = grand([[3.0], [1.0], [2.0]])  # energies 9, 1 and 4
    losses = module._uncertain_loss(rows, torch.zeros(3))
    assert losses.tolist() == pytest.approx([3 / 3 * 1, 1 / 3 * 9, 2 / 3 * 6])


@pytest.mark.parametrize("m", [0.0, -1.0, float("nan")])
def test_an_m_that_is_not_above_zero_is_refused(m: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        grand([[0.0]], m)


def ensemble(reconstruction: list[list[float]]) -> EnsembleModule:
    model: Any = Members(reconstruction)  # not the ensemble itself, but all that is asked of it
    return EnsembleModule(model, 1, BinaryConfidence(), EVTThresholding())


def test_the_ensemble_pushes_abnormal_rows_up_and_only_up_to_the_margin() -> None:
    rows = torch.zeros(2, 1)
    near, far = ensemble([[1.0], [1.5]]), ensemble([[1.0], [2.5]])  # errors 1 and 2.25, 1 and 6.25
    confidence = torch.tensor([1.0, -1.0])
    for module, expected_push in ((near, True), (far, False)):
        module.compute_loss(rows, confidence, 0).backward()  # type: ignore[no-untyped-call]  # torch has no types here
        found = module.model.reconstruction.grad
        assert isinstance(found, torch.Tensor)
        assert found[0].item() > 0  # the normal row is reconstructed better
        assert bool(found[1].item() < 0) is expected_push
    assert pytest.approx(1.386, abs=1e-3) == MARGIN


@pytest.mark.parametrize("scale", [2.0, 20.0])
def test_members_weigh_the_same_whatever_their_errors_are(scale: float) -> None:
    loss = ensemble([[scale], [scale]]).compute_loss(torch.zeros(2, 1), torch.ones(2), 0)
    assert loss.item() == pytest.approx(1, abs=1e-4)


def test_the_ensemble_pushes_no_row_where_none_is_normal() -> None:
    module = ensemble([[0.01], [0.01]])  # of errors so small that a margin above nothing is far
    assert module.compute_loss(torch.zeros(2, 1), torch.tensor([-1.0, -1.0]), 0).item() == 0
    assert module.compute_loss(torch.zeros(2, 1), torch.tensor([1.0, -1.0]), 0).item() > 0


def test_whitened_residuals_are_those_of_the_regression_on_all_others() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    residuals = (base @ torch.tensor([[1.0, 0.5, 0.2], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]], dtype=torch.float64)).T
    to_deviations, shift = whitening(residuals)
    found = (to_deviations @ residuals + shift).T
    assert found.mean(dim=0).abs().max().item() < 1e-12
    others, target = residuals[1:].T, residuals[0]
    others, target = others - others.mean(dim=0), target - target.mean()
    left = target - others @ torch.linalg.lstsq(others, target[:, None]).solution[:, 0]
    correlation = torch.corrcoef(torch.stack([found[:, 0], left]))[0, 1]
    assert correlation.item() > 0.98  # the ridge keeps it from 1
    assert found[:, 0].std().item() == pytest.approx(1.0, abs=0.1)


class Perfect(AutoencoderEnsemble):
    """Members that leave nothing of any row."""

    def last_units(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = self.standardize(features).T
        return inputs, inputs[None]

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, units = self.last_units(features)
        return inputs, units

    def mean_last_layer(self) -> tuple[torch.Tensor, torch.Tensor]:
        center = self.standardize.center
        return torch.eye(len(center)).to(center), center.new_zeros(len(center), 1)


def test_what_the_members_explain_is_unexplained_where_no_line_through_the_other_features_does() -> None:
    along = torch.randn(2_000, 1, generator=torch.Generator().manual_seed(0))
    features = torch.cat([along, along.flip(0) / 10 + along], dim=1)
    module = EnsembleModule(Perfect(features, [4], 1, 1), 1, BinaryConfidence(), TriangularThresholding())
    module.prepare_scoring(SelfSupervisionDataModule(EncodedRows(TensorRows(features), 64)))
    with torch.no_grad():
        by_members, by_features, _ = module._log_deviations(features)
        on_the_line, beside_it = module.score(torch.tensor([[1.5, 1.5], [1.5, -1.5]])).tolist()
    assert by_members.std() < 1e-3 < by_features.std()
    assert beside_it > 100 * on_the_line


def test_a_value_far_beyond_all_training_rows_multiplies_the_score() -> None:
    features = torch.rand(200, 3)
    features[:2, 0] = torch.tensor([0.0, 4.0])  # a range of 4
    module = EnsembleModule(AutoencoderEnsemble(features, [4], 1, 2), 1, BinaryConfidence(), TriangularThresholding())
    rows = torch.full((6, 3), 0.5)
    rows[:, 0] = torch.tensor([4.0, 8.0, -4.0, 16.0, -12.0, 1e9])  # 0, 1, 1, 3, 3 widths beyond it, and many
    with torch.no_grad():
        held, once, before, three, three_before, many = module.score(rows).tolist()
    assert [once, three] == pytest.approx([held, 3 * held])
    assert three_before == pytest.approx(3 * before)
    assert three < many < float("inf")


def test_a_row_is_no_neighbour_of_itself() -> None:
    samples = torch.tensor([[[0.0]], [[1.0]], [[3.0]]])
    itself, between = log_distance(torch.tensor([[0.0, 2.0]]), samples, torch.ones(1)).exp().tolist()
    assert itself == pytest.approx(math.sqrt((1 + DISTANCE_FLOOR) * (9 + DISTANCE_FLOOR)))
    assert between == pytest.approx(math.sqrt((1 + DISTANCE_FLOOR) * (4 + DISTANCE_FLOOR)))


def test_a_single_sample_is_enough() -> None:
    found = log_distance(torch.ones(3, 2), torch.zeros(1, 1, 3), torch.tensor([1.0, 1.0, 0.5])).exp()
    assert found.tolist() == pytest.approx(2 * [2.5 + 3 * DISTANCE_FLOOR])


@pytest.mark.parametrize("share", [0.5, 0.1, 0.001])
def test_a_rare_word_is_no_farther_from_others_than_a_common_one(share: float) -> None:
    words = (torch.arange(10_000) < share * 10_000).float()
    rows = torch.stack([words, torch.randn(10_000), torch.ones(10_000)], dim=1)
    weights = distance_weights((rows - rows.mean(dim=0)) / rows.std(dim=0).clamp_min(1e-3))
    assert weights.tolist() == pytest.approx([WORD_DIFFERENCE * words.std().item(), 1.0, 1.0])


@pytest.mark.parametrize("rows", [1, 5, 8, 9, 16, 17, 63, 127, 255, 10_000])
def test_no_row_is_in_two_samples(rows: int) -> None:
    samples = disjoint_samples(torch.arange(float(rows))[:, None])
    assert samples.shape[0] == min(8, rows)
    assert samples.shape[1] == min(16, rows // samples.shape[0])
    assert len(set(samples.flatten().tolist())) == samples.numel()
