"""Many small autoencoders trained as one: their weights are stacked, a layer is one product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from ssad.sampling import spread

NEGATIVE_SLOPE = 0.1
"""Of the leaky ReLU: a unit that is off for every row would be lost to so small a network."""

CLIP = 5.0
"""Standard deviations to which a value is held: what is farther is far, and would hide all else."""

STANDARD_ROWS = 20_000
"""Training rows that fix center and width, at most: more change nothing that counts."""

RARE = 1 / CLIP**2
LEAST_WIDTH = 0.01
"""Of a column with a smaller share of values that are not the one all others have, each step would shrink the width
further: it ends at this share of how far those values typically are from that one."""

SETTLED = 1e-4
WINSORIZATIONS = 1000
"""Mean and deviation are at their fixed point when a step changes a width by no more than this share of it, or after so
many steps. A step shrinks a width that a share p of far values has made to sqrt(25 p) of it: it takes a dozen where
one value in a thousand lies 1e9 deviations away, and a hundred where three in a hundred lie 1e4 away."""


class ClippedStandardizer(nn.Module):
    """Features in standard deviations, held to `CLIP` of them, at unit variance after that.

    Center and width are the mean and deviation of the values held to `CLIP` deviations from them, found by
    repetition: winsorizing [Huber & Ronchetti 2009, section 5.4], so that a heavy tail does not hide the bulk.

    Attributes:
        center: mean of the held training features, shape (d,).
        width: their deviation, shape (d,), above 0.
        low: what a standardized value is held to from below, shape (d,); `high` likewise from above.
        middle: of the training features' range, shape (d,); `reach` is how wide that is, 1 where all are alike.
    """

    center: torch.Tensor
    width: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    middle: torch.Tensor
    reach: torch.Tensor

    def __init__(self, features: torch.Tensor) -> None:
        """Learn from training features, shape (n, d)."""
        super().__init__()
        rows = features[spread(len(features), STANDARD_ROWS)].double()
        center, width = _winsorized(rows, _least_width(rows))
        mean, deviation = _moments(((rows - center) / width).clamp(-CLIP, CLIP))
        ends = {"low": (-CLIP - mean) / deviation, "high": (CLIP - mean) / deviation}
        least, most = features.aminmax(dim=0)
        span = {"middle": (least + most) / 2, "reach": torch.where(least < most, most - least, 1.0)}
        for name, value in {"center": center + width * mean, "width": width * deviation, **ends, **span}.items():
            self.register_buffer(name, value.float())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features of rows, shape (n, d), standardized."""
        # A feature a row: one number for all of a row's values takes a runtime less time than one for each.
        center, width, low, high = (part[:, None] for part in (self.center, self.width, self.low, self.high))
        return ((features.T - center) / width).clamp(low, high).T

    def beyond_range(self, features: torch.Tensor) -> torch.Tensor:
        """How far beyond the training rows the farthest of a row's features lies, shape (n,), in widths of their range.

        At most 0 within it.
        """
        from_middle = (features.T - self.middle[:, None]) / self.reach[:, None]
        # A runtime is five times as fast where what it reduces is not the first dimension.
        return from_middle.abs()[None].amax(dim=1)[0] - 0.5


class AutoencoderEnsemble(nn.Module):
    """`members` autoencoders that differ in their first weights.

    Rows are columns in here, shape (d, n): what the members make of them lies one below the other, so that the
    first layer of all is one matrix product and no layer moves anything.

    Attributes:
        standardize: features to the members' inputs.
        weights: of each layer, shape (members, outputs, inputs).
        biases: of each layer, shape (members, outputs, 1).
    """

    def __init__(self, features: torch.Tensor, encoder_dims: Sequence[int], latent_dim: int, members: int) -> None:
        """Build it for training features (n, d)."""
        super().__init__()
        self.standardize = ClippedStandardizer(features)
        self.members = members
        input_dim = features.shape[1]
        dims = [input_dim, *encoder_dims, latent_dim, *reversed(encoder_dims), input_dim]
        self.latent_layer = len(encoder_dims)
        self.weights = nn.ParameterList(
            torch.randn(members, outputs, inputs) / math.sqrt(inputs) for inputs, outputs in pairwise(dims)
        )
        self.biases = nn.ParameterList(torch.zeros(members, outputs, 1) for outputs in dims[1:])

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardized features (d, n) of rows (n, d), and each member's reconstruction of them (members, d, n)."""
        inputs, units = self.last_units(features)
        return inputs, torch.baddbmm(self.biases[-1], self.weights[-1], units)

    def last_units(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardized features (d, n) of rows (n, d), and what the last layer is given (members, units, n)."""
        inputs = self.standardize(features).T
        first = torch.addmm(self.biases[0].flatten(0, 1), self.weights[0].flatten(0, 1), inputs)
        units = self._activated(0, first).reshape(*self.biases[0].shape[:2], -1)
        for layer in range(1, len(self.weights) - 1):
            units = self._activated(layer, torch.baddbmm(self.biases[layer], self.weights[layer], units))
        return inputs, units

    def mean_last_layer(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (d, members * units) and biases (d, 1) of the members' mean reconstruction."""
        return self.weights[-1].transpose(0, 1).flatten(1) / self.members, self.biases[-1].mean(dim=0)

    def _activated(self, layer: int, units: torch.Tensor) -> torch.Tensor:
        if layer == self.latent_layer:
            return units
        if units.dtype == torch.float64:  # for which onnxruntime has no leaky ReLU
            return torch.maximum(units, NEGATIVE_SLOPE * units)
        return F.leaky_relu(units, NEGATIVE_SLOPE)


def _least_width(rows: torch.Tensor) -> torch.Tensor:
    """What the width of each column (n, d) does not fall below, shape (d,): 0 where the bulk varies."""
    low, high = (rows.kthvalue(1 + round(share * (len(rows) - 1)), dim=0).values for share in (RARE, 1 - RARE))
    distance = (rows - low).abs()
    typical = torch.where(distance > 0, distance, torch.nan).nanmedian(dim=0).values
    return torch.where(low < high, 0.0, LEAST_WIDTH * typical.nan_to_num(0.0))


def _winsorized(rows: torch.Tensor, floor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of the values held to `CLIP` deviations from them; none is below its `floor`, shape (d,)."""
    center, width = _moments(rows)
    moving = torch.arange(rows.shape[1])
    for _ in range(WINSORIZATIONS):
        if not len(moving):
            break
        middle, reach = center[moving], CLIP * width[moving]
        center[moving], held = _moments(rows[:, moving].clamp(middle - reach, middle + reach))
        held = torch.maximum(held, floor[moving])
        settled = (held - width[moving]).abs() <= SETTLED * held
        width[moving], moving = held, moving[~settled]
    return center, width


def _moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each column; the deviation of one that does not vary is 1, so as to divide by."""
    mean, deviation = rows.mean(dim=0), rows.std(dim=0, correction=0)
    varies = deviation > torch.finfo(torch.float32).eps * mean.abs()
    return mean, torch.where(varies, deviation, torch.ones_like(deviation))
