"""Many small autoencoders trained as one: their weights are stacked, a layer is one `baddbmm`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from ssad.models.sampling import spread_rows

NEGATIVE_SLOPE = 0.1
"""Of the leaky ReLU: a unit that is off for every row would be lost to so small a network."""

CLIP = 5.0
"""Standard deviations to which a value is held: what is farther is far, and would hide all else."""

STANDARD_ROWS = 20_000
"""Training rows that fix center and width, at most: more change nothing that counts."""

WINSORIZATIONS = 20
"""Steps of mean and deviation to their fixed point; a value 1e9 deviations away needs about a dozen."""


class ClippedStandardizer(nn.Module):
    """Features in standard deviations, held to `CLIP` of them, at unit variance after that.

    Center and width are the mean and deviation of the values held to `CLIP` deviations from them, found by
    repetition: winsorizing [Huber & Ronchetti 2009, section 5.4], so that a heavy tail does not hide the bulk.

    Attributes:
        center: shape (d,); `width` likewise, above 0.
        mean: of the held training features, shape (d,); `deviation` likewise.
    """

    center: torch.Tensor
    width: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, features: torch.Tensor) -> None:
        """Learn from training features, shape (n, d)."""
        super().__init__()
        rows = spread_rows(features, STANDARD_ROWS).double()
        center, width = _moments(rows)
        for _ in range(WINSORIZATIONS):
            center, width = _moments(rows.clamp(center - CLIP * width, center + CLIP * width))
        mean, deviation = _moments(((rows - center) / width).clamp(-CLIP, CLIP))
        for name, value in (("center", center), ("width", width), ("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, value.float())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features of rows, shape (n, d), standardized."""
        held = ((features - self.center) / self.width).clamp(-CLIP, CLIP)
        return (held - self.mean) / self.deviation


class AutoencoderEnsemble(nn.Module):
    """`members` autoencoders that differ in their first weights.

    Attributes:
        standardize: features to the members' inputs.
        weights: of each layer, shape (members, inputs, outputs).
        biases: of each layer, shape (members, 1, outputs).
    """

    def __init__(self, features: torch.Tensor, encoder_dims: Sequence[int], latent_dim: int, members: int) -> None:
        """Build it for training features (n, d)."""
        super().__init__()
        self.standardize = ClippedStandardizer(features)
        self.members = members
        input_dim = features.shape[1]
        dims = [input_dim, *encoder_dims, latent_dim, *reversed(encoder_dims), input_dim]
        self.linear_layers = {len(encoder_dims), len(dims) - 2}
        self.weights = nn.ParameterList(
            torch.randn(members, inputs, outputs) / math.sqrt(inputs) for inputs, outputs in pairwise(dims)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, outputs) for outputs in dims[1:])

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardized features (n, d), and each member's reconstruction of them (members, n, d)."""
        inputs = self.standardize(features)
        hidden = inputs.expand(self.members, -1, -1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer not in self.linear_layers:
                # A leaky ReLU, which ONNX Runtime does not have in float64.
                hidden = torch.maximum(hidden, NEGATIVE_SLOPE * hidden)
        return inputs, hidden


def _moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each column; the deviation of one that hardly varies is 1, so as to divide by."""
    deviation = rows.std(dim=0, correction=0)
    varies = deviation > torch.finfo(torch.float32).eps
    return rows.mean(dim=0), torch.where(varies, deviation, torch.ones_like(deviation))
