"""From a table's raw columns to features, as a torch module: it is exported with the network."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from ssad.bundle import TableSchema
from ssad.bundle.schema import GraphInputs
from ssad.datasets.schema import DATE_PERIODS, periods_covered

LIMIT = 10.0
"""Scaled values are held to plus or minus this: finite, and far beyond the training rows' [0, 1]."""

BULK = (0.05, 0.5, 0.95)
CROWDED = 1e-3
"""Where these quantiles of a column lie closer together than this share of the way up to them from the least value, as
where one row has a -1e9, features would have lost the digits of most rows in single precision: 0 is at the median."""


class TableEncoder(nn.Module):
    """Imputes, scales to [0, 1] and one-hot encodes; the training rows decide how.

    A missing number becomes the training median, with a feature of its own that says so where training
    rows had missing ones too. A date becomes sine and cosine of its place in the day and in the week, where the
    training rows cover these. A category becomes one feature of its column; those not listed in the schema share the
    column's last one.

    Attributes:
        schema: the columns.
        feature_columns: for each feature, the position of its column in `schema.graph_order`.
        plain: positions of the columns that are numbers; `dates` likewise.
        periods: of `DATE_PERIODS`, those that each of the dates is placed in.
        gaps: positions among `plain` of those with missing training values.
        median: training median of each plain column.
        center: value of each plain column whose feature is 0, the training minimum or else see `CROWDED`.
        width: difference that is 1.
    """

    plain: torch.Tensor
    dates: torch.Tensor
    gaps: torch.Tensor
    median: torch.Tensor
    center: torch.Tensor
    width: torch.Tensor

    def __init__(self, schema: TableSchema, sample: GraphInputs, gaps: Collection[str]) -> None:
        """Learn from training rows.

        Args:
            schema: their columns, with the range of each.
            sample: some of them or all, as graph inputs: medians are theirs.
            gaps: names of the columns in which some row has no value.
        """
        super().__init__()
        self.schema = schema
        dates = np.asarray([column.kind == "date" for column in schema.numeric], dtype=bool)
        # One that covers none was kept for its gaps, which the day's circle tells: they are its middle.
        spans = [(column.minimum, column.maximum) for column in schema.numeric if column.kind == "date"]
        self.periods = [periods_covered(*span) or list(DATE_PERIODS[:1]) for span in spans]
        plain = [column for column in schema.numeric if column.kind != "date"]
        low, high = (np.asarray([getattr(c, end) for c in plain], np.float64) for end in ("minimum", "maximum"))
        self.widths = [len(column.categories) + 1 for column in schema.categorical]
        self._buffer("plain", np.flatnonzero(~dates))
        self._buffer("dates", np.flatnonzero(dates))
        lower, median, upper = _quantiles(sample.numeric[:, ~dates], low)
        crowded = (lower < upper) & (upper - lower < CROWDED * (median - low))
        self._buffer("median", median)
        self._buffer("center", np.where(crowded, median, low))
        self._buffer("width", _positive(high - low))
        self._buffer("gaps", np.flatnonzero([column.name in gaps for column in plain]))
        self.feature_columns = self._feature_columns()

    def _buffer(self, name: str, values: npt.NDArray[np.generic]) -> None:
        self.register_buffer(name, torch.from_numpy(values))

    def _feature_columns(self) -> list[int]:
        plain, dates, gaps = (np.asarray(getattr(self, name)) for name in ("plain", "dates", "gaps"))
        one_hot = [len(self.schema.numeric) + i for i, width in enumerate(self.widths) for _ in range(width)]
        cyclic = [at for period in DATE_PERIODS for at in 2 * dates[self._dates_with(period)].tolist()]
        return [*plain.tolist(), *plain[gaps].tolist(), *cyclic, *one_hot]

    def _dates_with(self, period: float) -> list[int]:
        """Positions among `dates` of the columns that cover a period."""
        return [at for at, covered in enumerate(self.periods) if period in covered]

    @property
    def output_dim(self) -> int:
        """Number of features."""
        return len(self.feature_columns)

    def codes(self, inputs: GraphInputs) -> torch.Tensor:
        """Position of each category in its column's list, shape (n, q), int64; the length if not in it."""
        codes = np.empty(inputs.categorical.shape, dtype=np.int64)
        for at, column in enumerate(self.schema.categorical):
            positions = {category: position for position, category in enumerate(column.categories)}
            codes[:, at] = [positions.get(value, len(positions)) for value in inputs.categorical[:, at]]
        return torch.from_numpy(codes)

    def encode(self, inputs: GraphInputs) -> torch.Tensor:
        """Features of rows given as graph inputs, shape (n, output_dim), float32."""
        features: torch.Tensor = self(torch.from_numpy(inputs.numeric), self.codes(inputs))
        return features

    def forward(self, numeric: torch.Tensor | None, codes: torch.Tensor | None) -> torch.Tensor:
        """Features of rows.

        Args:
            numeric: shape (n, p), float64, NaN where missing; None where the schema has no such column.
            codes: shape (n, q), int64, see `codes`; None likewise.

        Returns:
            Shape (n, output_dim), float32, finite.
        """
        parts: list[torch.Tensor] = []
        if numeric is not None and len(self.plain):
            values = numeric[:, self.plain] if len(self.dates) else numeric
            scaled = self._scaled(values)
            missing = torch.isnan(scaled)
            parts.append(torch.where(missing, self._scaled(self.median), scaled))
            if len(self.gaps):
                parts.append(missing[:, self.gaps].float())
        if numeric is not None and len(self.dates):
            parts += self._cyclic(numeric[:, self.dates])
        if codes is not None:
            parts += [F.one_hot(codes[:, i], width).float() for i, width in enumerate(self.widths)]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _scaled(self, values: torch.Tensor) -> torch.Tensor:
        """Plain columns, shape (..., columns), to [0, 1] for the training rows' values; float32, NaN stays."""
        return ((values - self.center) / self.width).float().clamp(-LIMIT, LIMIT)

    def _cyclic(self, seconds: torch.Tensor) -> list[torch.Tensor]:
        """Sine and cosine of the place in each period; zeros, the middle of the circle, where missing."""
        parts = []
        for period in DATE_PERIODS:
            covering = self._dates_with(period)
            if not covering:
                continue
            moments = seconds if len(covering) == len(self.periods) else seconds[:, covering]
            # A tensor, as a number of Python's is exported in single precision: at 6:00 the cosine would be 4e-8
            # in place of 0, and scoring takes its root.
            turn, quarter = seconds.new_tensor([2 * math.pi / period, math.pi / 2])
            angle = torch.remainder(moments, period) * turn
            # onnxruntime has had no cosine in double precision before 1.29.
            parts += [torch.sin(angle).float(), torch.sin(angle + quarter).float()]
        return [torch.where(torch.isnan(part), 0.0, part) for part in parts]


def column_matrix(feature_columns: Sequence[int], columns: int) -> torch.Tensor:
    """Matrix that sums features by column, shape (features, columns), float64."""
    return F.one_hot(torch.tensor(feature_columns), columns).double()


def _quantiles(values: npt.NDArray[np.float64], otherwise: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`BULK` of each column of (n, p), shape (3, p); where all are missing, what is given."""
    known = ~np.isnan(values).all(axis=0)
    quantiles = np.tile(otherwise, (len(BULK), 1))
    if known.any():
        quantiles[:, known] = np.nanquantile(values[:, known], BULK, axis=0)
    return quantiles


def _positive(widths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where((widths > 0) & np.isfinite(widths), widths, 1.0)
