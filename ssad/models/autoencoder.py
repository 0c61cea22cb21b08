"""The plain autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import nn


class ColumnLinear(nn.Linear):
    """A linear layer whose output lies by columns: many rows times few columns are multiplied twice as fast so."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The layer's output, shape (n, out_features); of another shape than (n, in_features) as `nn.Linear` has it."""
        if rows.ndim != 2:
            return super().forward(rows)
        return torch.addmm(self.bias[:, None], self.weight, rows.t()).t()


def dense(dims: Sequence[int], linear: type[nn.Linear] = nn.Linear) -> nn.Sequential:
    """Layers `linear` through the given widths with ReLU between them, none after the last."""
    layers: list[nn.Module] = []
    for width, next_width in pairwise(dims):
        layers += [linear(width, next_width), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Autoencoder(nn.Module):
    """A symmetric autoencoder: ReLU between layers, sigmoid at the output, so features lie in [0, 1].

    Attributes:
        encoder: features to code, (n, input_dim) -> (n, latent_dim).
        decoder: code to reconstruction, (n, latent_dim) -> (n, input_dim).
    """

    def __init__(self, input_dim: int, encoder_dims: Sequence[int] | None, latent_dim: int) -> None:
        """Layers of widths `encoder_dims` (None: no hidden layer) between input and code."""
        super().__init__()
        dims = [input_dim, *(encoder_dims or ()), latent_dim]
        self.input_dim = input_dim
        self.encoder = dense(dims, ColumnLinear)
        self.decoder = nn.Sequential(nn.ReLU(), dense(dims[::-1]), nn.Sigmoid())

    def forward(self, forward_input: torch.Tensor) -> torch.Tensor:
        """Reconstruct rows, shape (n, input_dim) or (..., input_dim), in (0, 1)."""
        return cast("torch.Tensor", self.decoder(self.encoder(forward_input)))
