"""Scores to regions and confidence, as NumPy alone computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

REGIONS = ("normal", "unknown", "abnormal")

_REGION_NAMES = np.asarray(REGIONS)

SCORE_TOLERANCE = 1e-5
"""Relative difference up to which two scores of a row are the same one, as another runtime rounds it."""


def same_scores(found: Floats, expected: Floats) -> bool:
    """Whether scores of the same rows, both of shape (n,), are the same within `SCORE_TOLERANCE`."""
    return bool(np.allclose(found, expected, rtol=SCORE_TOLERANCE, atol=SCORE_TOLERANCE**2))


@dataclass(frozen=True)
class Thresholds:
    """Two thresholds that partition the real line into three regions.

    A score is normal up to and including `normal`, abnormal from `abnormal` on, and unknown strictly
    between; where the two are equal, that score is normal and nothing is unknown.

    Attributes:
        normal: the highest normal score; minus infinity when no score is normal.
        abnormal: the lowest abnormal score, at least `normal`; infinity when no score is abnormal.
    """

    normal: float
    abnormal: float

    def __post_init__(self) -> None:
        if not self.normal <= self.abnormal:
            raise ValueError(
                f"the normal threshold must be at most the abnormal one, got {self.normal} and {self.abnormal}"
            )

    def codes(self, scores: npt.ArrayLike) -> npt.NDArray[np.int8]:
        """Index into `REGIONS` for each score, shape (n,)."""
        scores = np.asarray(scores, np.float64)  # in single precision a threshold would be rounded to the score
        above = ~(scores <= self.normal)  # NaN is unknown
        return np.add(above, above & (scores >= self.abnormal), dtype=np.int8)

    def regions(self, scores: Floats) -> npt.NDArray[np.str_]:
        """Name of the region of each score, shape (n,)."""
        return region_names(self.codes(scores))

    def counts(self, scores: Floats) -> dict[str, int]:
        """How many of the scores each region holds."""
        counts = np.bincount(self.codes(scores), minlength=len(REGIONS))
        return dict(zip(REGIONS, counts.tolist(), strict=True))

    def shares(self, scores: Floats) -> dict[str, float]:
        """Share of the scores that each region holds."""
        return {region: count / len(scores) for region, count in self.counts(scores).items()}


def told(threshold: float, digits: int = 6) -> str:
    """A threshold in a sentence, with so many digits; one that is infinite, and so cuts nothing off, is nowhere."""
    return f"{threshold:.{digits}g}" if np.isfinite(threshold) else "nowhere"


@dataclass(frozen=True)
class ConfidenceCurve:
    """Confidence as a function of the score: linear between knots, one list of knots a region.

    Attributes:
        thresholds: what cuts the scores into regions.
        knots: for each region, scores in ascending order and the confidence at each, in [-1, 1].
    """

    thresholds: Thresholds
    knots: dict[str, tuple[Floats, Floats]]

    def __call__(self, scores: Floats) -> Floats:
        """Confidence of each score, shape (n,), in [-1, 1]."""
        return self.of_codes(scores, self.thresholds.codes(scores))

    def of_codes(self, scores: Floats, codes: npt.NDArray[np.int8]) -> Floats:
        """Confidence of scores whose regions are known, as `Thresholds.codes` has them."""
        if len(scores) == 1:
            return self._within(REGIONS[codes[0]], scores)
        confidence = np.zeros(len(scores))
        for code, region in enumerate(REGIONS):
            members = codes == code
            if members.any():
                confidence[members] = self._within(region, scores[members])
        return confidence

    def _within(self, region: str, scores: Floats) -> Floats:
        """Confidence of scores of one region."""
        at, value = self.knots[region]
        if len(at) < 2:
            return np.full(len(scores), value[0] if len(at) else 0.0)
        before = np.searchsorted(at[1:-1], scores)  # what takes the time: np.interp would search once more
        after = before + 1
        start, low = at[before], value[after]
        width = at[after] - start
        share = np.minimum(np.maximum(scores - start, 0), width) / width  # two knots may lie next to each other
        # Confidence never rises: what is rounded is held to the next knot.
        return np.maximum(value[before] + share * (low - value[before]), low)

    @property
    def decision(self) -> float:
        """The threshold of a forced decision: above it confidence is negative; infinity if it never is.

        Where confidence crosses 0 inside the unknown region, that score; else the last one before a region.
        """
        at, value = self.knots["unknown"]
        below = np.flatnonzero(value < 0)
        normal, abnormal = self.thresholds.normal, self.thresholds.abnormal
        if not len(below):
            # The abnormal region holds its threshold, unless that is the highest normal score.
            return float(np.nextafter(abnormal, -np.inf)) if normal < abnormal < np.inf else abnormal
        first = int(below[0])
        if first == 0:
            return normal
        drop = value[first - 1] - value[first]
        return float(at[first - 1] + (at[first] - at[first - 1]) * value[first - 1] / drop)

    def to_json(self) -> dict[str, Any]:
        """The curve as plain JSON; an infinite threshold is the word inf or -inf, which JSON has no number for."""
        return {
            "thresholds": {
                "normal": _finite_or_word(self.thresholds.normal),
                "abnormal": _finite_or_word(self.thresholds.abnormal),
            },
            "confidence": {
                region: {"score": at.tolist(), "confidence": value.tolist()}
                for region, (at, value) in self.knots.items()
            },
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ConfidenceCurve:
        """The inverse of `to_json`."""
        thresholds = document["thresholds"]
        return cls(
            Thresholds(float(thresholds["normal"]), float(thresholds["abnormal"])),
            {
                region: (
                    np.asarray(knots["score"], dtype=np.float64),
                    np.asarray(knots["confidence"], dtype=np.float64),
                )
                for region, knots in document["confidence"].items()
            },
        )


LEAST_STEP = 1e-14
"""What a score near 0 may differ by: it may be left of a difference of larger numbers, as RADON's of 1 and 1."""


def beyond(score: float) -> float:
    """The least border that a row of this score does not reach on any runtime, which differ by rounding."""
    step = max(LEAST_STEP, SCORE_TOLERANCE * abs(score))
    return float(max(np.nextafter(score, np.inf), score + step))


def region_names(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.str_]:
    """Names of the regions with these indices into `REGIONS`, shape (n,)."""
    return _REGION_NAMES[codes]


def _finite_or_word(value: float) -> float | str:
    return float(value) if np.isfinite(value) else str(float(value))
