"""Many small autoencoders trained as one: their weights are stacked, a layer is one `baddbmm`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

NEGATIVE_SLOPE = 0.1
"""Of the leaky ReLU: a unit that is off for every row would be lost to so small a network."""

CLIP = 5.0
"""Standard deviations to which a value is held: what is farther is far, and would hide all else."""

MIN_IQR = 0.1
"""Standard deviations below which the interquartile range says nothing: discrete and sparse features."""

NORMAL_IQR = 1.349
"""Interquartile range of a standard normal distribution."""


class FeatureViews(nn.Module):
    """Features standardized in two ways, by median and interquartile range and by mean and deviation.

    Each is held to `CLIP` and brought to unit variance again. The first shows the bulk of a heavy-tailed
    feature in detail, the second its tail; neither is best for every table.
    """

    center: torch.Tensor
    width: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, features: torch.Tensor) -> None:
        """Learn from training features, shape (n, d)."""
        super().__init__()
        rows = features.double()
        deviation = rows.std(dim=0, correction=0)
        quartiles = torch.stack([_quantile(rows, share) for share in (0.25, 0.5, 0.75)])
        spread = (quartiles[2] - quartiles[0]) / NORMAL_IQR
        robust = torch.where(spread > MIN_IQR * deviation, spread, deviation)
        self.register_buffer("center", torch.stack([quartiles[1], rows.mean(dim=0)])[:, None].float())
        self.register_buffer("width", _nonzero(torch.stack([robust, deviation]))[:, None].float())
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("deviation", torch.ones(1))
        views = self(features)
        self.mean = views.mean(dim=1, keepdim=True)
        self.deviation = _nonzero(views.std(dim=1, keepdim=True, correction=0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Both views of features (n, d): shape (2, n, d)."""
        held = ((features - self.center) / self.width).clamp(-CLIP, CLIP)
        return (held - self.mean) / self.deviation


class AutoencoderEnsemble(nn.Module):
    """`members` autoencoders that differ in their first weights; one half reads one view, one the other.

    Attributes:
        views: features to the members' inputs.
        weights: of each layer, shape (members, inputs, outputs).
        biases: of each layer, shape (members, 1, outputs).
    """

    def __init__(self, features: torch.Tensor, encoder_dims: Sequence[int], latent_dim: int, members: int) -> None:
        """Build it for training features (n, d); `members` is even."""
        super().__init__()
        self.views = FeatureViews(features)
        self.members = members
        input_dim = features.shape[1]
        dims = [input_dim, *encoder_dims, latent_dim, *reversed(encoder_dims), input_dim]
        self.linear_layers = {len(encoder_dims), len(dims) - 2}
        self.weights = nn.ParameterList(
            torch.randn(members, inputs, outputs) / math.sqrt(inputs) for inputs, outputs in pairwise(dims)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, outputs) for outputs in dims[1:])

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What each member reads of features (n, d), and its reconstruction: shape (members, n, d) each."""
        inputs = self.views(features).repeat_interleave(self.members // 2, dim=0)
        hidden = inputs
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer not in self.linear_layers:
                # A leaky ReLU, which ONNX Runtime does not have in float64.
                hidden = torch.maximum(hidden, NEGATIVE_SLOPE * hidden)
        return inputs, hidden


def _nonzero(width: torch.Tensor) -> torch.Tensor:
    return torch.where(width > torch.finfo(torch.float32).eps, width, torch.ones_like(width))


def _quantile(rows: torch.Tensor, share: float) -> torch.Tensor:
    """A quantile of each column; `torch.quantile` refuses more than 16 million values."""
    return rows.kthvalue(1 + round(share * (len(rows) - 1)), dim=0).values
