"""The three intervals that the score distribution is cut into."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import torch

from ssad.bundle import Thresholds


class Interval(pd.Interval):
    """A `pandas.Interval` that can also mask a tensor."""

    def contains_tensor_mask(self, tensor: torch.Tensor) -> torch.Tensor:
        """Which elements of `tensor` lie in the interval: booleans of its shape.

        Compared in float64, where single precision would round the border towards the element.
        """
        tensor = tensor.double()
        above = tensor >= self.left if self.closed_left else tensor > self.left
        below = tensor <= self.right if self.closed_right else tensor < self.right
        return torch.logical_and(above, below)


@dataclass
class ConfidenceIntervalsConfiguration:
    """Three adjoining intervals that partition the real line: every finite score is in exactly one.

    Attributes:
        normal: scores of rows that are surely normal; the lowest scores.
        abnormal: scores of rows that are surely abnormal; the highest scores.
        unknown: scores between them.
        decision: the score above which a row is called abnormal if every row must be decided, not outside
            the unknown interval; None leaves it to the confidence estimator.
    """

    normal: Interval
    abnormal: Interval
    unknown: Interval
    decision: float | None = None

    def __post_init__(self) -> None:
        normal, unknown, abnormal = self.normal, self.unknown, self.abnormal
        adjoin = normal.right == unknown.left and unknown.right == abnormal.left
        unbounded = float(normal.left) == -math.inf and float(abnormal.right) == math.inf
        borders = [border for border in (normal.right, abnormal.left) if math.isfinite(border)]
        held_once = all(sum(border in i for i in (normal, unknown, abnormal)) == 1 for border in borders)
        if not (adjoin and unbounded and held_once):
            raise ValueError(
                "normal, unknown and abnormal must adjoin and cover the real line without overlap, got "
                f"{normal}, {unknown}, {abnormal}; "
                "build them by ConfidenceIntervalsConfiguration.from_thresholds"
            )
        if self.decision is not None and not unknown.left <= self.decision <= unknown.right:
            raise ValueError(
                f"the decision must not lie outside the unknown interval {unknown}, got {self.decision}; "
                "leave it out if the analyzer has none"
            )

    @classmethod
    def from_thresholds(
        cls, normal: float, abnormal: float, decision: float | None = None
    ) -> ConfidenceIntervalsConfiguration:
        """Normal up to and including `normal`, abnormal from `abnormal` on, unknown strictly between.

        Where both are equal the unknown interval is empty and that score is normal. Infinite thresholds
        leave a region empty: `abnormal=inf` calls nothing abnormal, `normal=-inf` nothing normal.

        Raises:
            ValueError: `normal` exceeds `abnormal`, one is NaN, or `decision` is not between them.
        """
        if not normal <= abnormal:
            raise ValueError(
                f"the normal threshold must be at most the abnormal one, got {normal} and {abnormal}; swap them"
            )
        return cls(
            normal=Interval(-math.inf, normal, closed="right"),
            unknown=Interval(normal, abnormal, closed="neither"),
            abnormal=Interval(abnormal, math.inf, closed="left" if normal < abnormal else "neither"),
            decision=decision,
        )

    @property
    def thresholds(self) -> Thresholds:
        """The two numbers that say the same, whichever interval holds a border."""
        normal, abnormal = float(self.normal.right), float(self.abnormal.left)
        if self.normal.closed_right and normal == abnormal:
            return Thresholds(normal, abnormal)
        return Thresholds(
            normal if self.normal.closed_right else math.nextafter(normal, -math.inf),
            abnormal if self.abnormal.closed_left else math.nextafter(abnormal, math.inf),
        )

    def as_dict(self) -> dict[str, str]:
        """The intervals as strings, by region."""
        return {
            "normal": str(self.normal),
            "abnormal": str(self.abnormal),
            "unknown": str(self.unknown),
        }
