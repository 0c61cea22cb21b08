"""Networks against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ssad import Autoencoder, VariationalAutoencoder
from ssad.models import AutoencoderEnsemble, ClippedStandardizer, NormalizingFlow, PlanarFlow
from ssad.models.autoencoder import ColumnLinear


def test_the_callers_list_of_widths_stays_as_it_was() -> None:
    dims = [8, 4]
    Autoencoder(10, dims, 2)
    VariationalAutoencoder(10, 2, dims, 2)
    assert dims == [8, 4]


@pytest.mark.parametrize("dims", [None, [], [6], [6, 4]])
@pytest.mark.parametrize("rows", [1, 5])
def test_a_reconstruction_has_the_shape_of_its_row_and_lies_in_the_unit_interval(
    dims: list[int] | None, rows: int
) -> None:
    data = torch.randn(rows, 9)
    variational, latent, kl = VariationalAutoencoder(9, 2, dims, 3)(data)
    for found in (Autoencoder(9, dims, 3)(data), variational):
        assert found.shape == data.shape
        assert ((found > 0) & (found < 1)).all()
    assert (latent.shape, kl.shape) == ((rows, 3), (rows,))


@pytest.mark.parametrize("network", [Autoencoder(9, [6], 3), VariationalAutoencoder(9, 2, [6], 3)])
def test_a_row_alone_or_rows_in_several_dimensions_are_answered_as_a_batch_of_them(network: torch.nn.Module) -> None:
    network.eval()
    data = torch.rand(5, 9)
    batch, row, deep = (network(rows) for rows in (data, data[2], data.reshape(5, 1, 9)))
    for whole, one, several in zip(
        *(parts if isinstance(parts, tuple) else (parts,) for parts in (batch, row, deep)), strict=True
    ):
        torch.testing.assert_close(one, whole[2])
        torch.testing.assert_close(several, whole[:, None])


def test_relu_stands_between_layers_and_a_sigmoid_at_the_end() -> None:
    names = [type(layer).__name__ for layer in Autoencoder(4, [3], 2).modules() if not list(layer.children())]
    assert names == ["ColumnLinear", "ReLU", "ColumnLinear", "ReLU", "Linear", "ReLU", "Linear", "Sigmoid"]


def test_a_linear_layer_by_columns_says_what_one_by_rows_says() -> None:
    columns, rows = ColumnLinear(5, 3), torch.randn(7, 5)
    torch.testing.assert_close(columns(rows), torch.nn.functional.linear(rows, columns.weight, columns.bias))
    assert columns(rows).T.is_contiguous()


def test_a_row_is_sampled_in_training_and_has_one_answer_in_evaluation() -> None:
    network, data = VariationalAutoencoder(5, 2, [4], 3), torch.rand(6, 5)
    assert not torch.equal(network(data)[1], network(data)[1])
    network.eval()
    assert torch.equal(network(data)[1], network(data)[1])


def test_without_flows_the_divergence_is_the_gaussian_closed_form() -> None:
    network, data = VariationalAutoencoder(5, 0, [4], 3), torch.rand(6, 5)
    mean, logvar = network.encode(data)
    expected = kl_divergence(Normal(mean, torch.exp(0.5 * logvar)), Normal(0, 1)).sum(dim=1)
    torch.testing.assert_close(network(data)[2], expected)


def test_the_log_variance_is_held_to_its_range() -> None:
    network = VariationalAutoencoder(5, 0, [4], 3, min_logvar=-1.0, max_logvar=0.5)
    _, logvar = network.encode(1e6 * torch.randn(50, 5))
    assert logvar.min() >= -1
    assert logvar.max() <= 0.5


@pytest.mark.parametrize("seed", range(5))
def test_a_planar_flow_is_invertible_and_knows_its_jacobian(seed: int) -> None:
    torch.manual_seed(seed)
    flow = PlanarFlow(3)
    torch.nn.init.normal_(flow.weight, std=2)
    torch.nn.init.normal_(flow.direction, std=2)
    z = torch.randn(3)
    jacobian = torch.autograd.functional.jacobian(lambda point: flow(point[None])[0][0], z)  # type: ignore[no-untyped-call]  # torch has no types here
    determinant = torch.linalg.det(jacobian)
    assert determinant > 0
    torch.testing.assert_close(flow(z[None])[1][0], torch.log(determinant), atol=1e-4, rtol=1e-4)


def test_flows_add_their_log_determinants_and_none_is_the_identity() -> None:
    z = torch.randn(4, 3)
    none, log_det = NormalizingFlow(3, 0)(z)
    assert torch.equal(none, z)
    assert not log_det.any()
    two = NormalizingFlow(3, 2)
    first, step = two.flows[0](z)
    second, next_step = two.flows[1](first)
    torch.testing.assert_close(two(z), (second, step + next_step))


def test_the_ensemble_is_its_members_one_by_one() -> None:
    features = torch.rand(40, 6)
    ensemble = AutoencoderEnsemble(features, [5], 2, members=4)
    inputs, together = ensemble(features)
    assert torch.equal(inputs, ClippedStandardizer(features)(features).T)
    for member in range(4):
        hidden = inputs
        for layer, (weight, bias) in enumerate(zip(ensemble.weights, ensemble.biases, strict=True)):
            hidden = weight[member] @ hidden + bias[member]
            if layer in (0, 2):
                hidden = torch.nn.functional.leaky_relu(hidden, 0.1)
        torch.testing.assert_close(together[member], hidden)


def test_the_last_layer_of_the_mean_reconstruction_is_the_mean_of_the_members() -> None:
    features = torch.rand(40, 6)
    ensemble = AutoencoderEnsemble(features, [5], 2, members=4)
    for bias in ensemble.biases:
        torch.nn.init.normal_(bias)
    weight, bias = ensemble.mean_last_layer()
    units = ensemble.last_units(features)[1]
    torch.testing.assert_close(weight @ units.flatten(0, 1) + bias, ensemble(features)[1].mean(dim=0))


def test_standardized_training_rows_have_mean_zero_and_variance_one() -> None:
    features = torch.randn(500, 3).exp()
    standardized = ClippedStandardizer(features)(features)
    torch.testing.assert_close(standardized.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardized.std(dim=0, correction=0), torch.ones(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("rows", "far", "distance"), [(500, 1, 1e8), (60, 1, 1e9), (1000, 30, 1e4)])
def test_far_values_do_not_hide_how_the_others_differ(rows: int, far: int, distance: float) -> None:
    features = torch.randn(rows, 1)
    features[:far] = distance * torch.randn(far, 1).exp()
    bulk = ClippedStandardizer(features)(features)[far:]
    of_the_far = 25 * far / rows  # their share of the variance, at five deviations
    assert bulk.std() > 0.9 * (1 - of_the_far) ** 0.5


def test_standardized_rows_are_finite_for_constant_and_sparse_features_and_far_rows() -> None:
    features = torch.zeros(100, 3)
    features[0, 1] = 1.0
    features[:, 2] = 7.0
    standardize = ClippedStandardizer(features)
    assert torch.isfinite(standardize(torch.tensor([[1e30, -1e30, 0.0]]))).all()


@pytest.mark.parametrize("rare", [1, 2, 3, 5, 8, 20, 39])
def test_a_feature_that_hardly_varies_tells_what_differs_from_what_hardly_differs(rare: int) -> None:
    features = torch.full((1000, 1), 50.0)
    features[:rare] = 60.0
    features[rare] = 40.0
    same, near, far = ClippedStandardizer(features)(torch.tensor([[50.0], [50.001], [60.0]])).flatten()
    assert abs(near - same) < abs(far - same) / 100
    assert far - same > 3


def test_scaling_the_features_does_not_change_the_standardized_rows() -> None:
    features = torch.randn(200, 4)
    scaled = 8 * features + 3
    torch.testing.assert_close(
        ClippedStandardizer(features)(features), ClippedStandardizer(scaled)(scaled), atol=1e-4, rtol=1e-4
    )
