"""Many small autoencoders trained as one: their weights are stacked, a layer is one `baddbmm`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

NEGATIVE_SLOPE = 0.1
"""Of the leaky ReLU: a unit that is off for every row would be lost to so small a network."""


class AutoencoderEnsemble(nn.Module):
    """`members` autoencoders that differ in their first weights; linear output, for standardized features.

    Attributes:
        weights: of each layer, shape (members, inputs, outputs).
        biases: of each layer, shape (members, 1, outputs).
    """

    def __init__(self, input_dim: int, encoder_dims: Sequence[int], latent_dim: int, members: int) -> None:
        super().__init__()
        dims = [input_dim, *encoder_dims, latent_dim, *reversed(encoder_dims), input_dim]
        self.members = members
        self.latent_layer = len(encoder_dims)
        self.weights = nn.ParameterList(
            torch.randn(members, inputs, outputs) / math.sqrt(inputs) for inputs, outputs in pairwise(dims)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, outputs) for outputs in dims[1:])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Reconstruct rows, shape (n, input_dim), by every member: shape (members, n, input_dim)."""
        hidden = rows.expand(self.members, *rows.shape)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer not in (self.latent_layer, last):
                hidden = torch.maximum(
                    hidden, NEGATIVE_SLOPE * hidden
                )  # leaky ReLU, which ONNX Runtime lacks in float64
        return hidden
