"""Region and confidence of one score in Python's own numbers: NumPy takes ten times as long for a single one."""

from __future__ import annotations

from bisect import bisect_left

from ssad.bundle import REGIONS
from ssad.bundle.intervals import ConfidenceCurve


class OneScore:
    """A confidence curve for one score at a time: it says what `ConfidenceCurve` says, to the last bit."""

    def __init__(self, curve: ConfidenceCurve) -> None:
        self._normal, self._abnormal = float(curve.thresholds.normal), float(curve.thresholds.abnormal)
        self._knots = [(at.tolist(), value.tolist()) for at, value in (curve.knots[region] for region in REGIONS)]

    def __call__(self, score: float) -> tuple[int, float]:
        """Index into `REGIONS` and confidence of a finite score."""
        code = (score >= self._abnormal) + 1 if score > self._normal else 0
        at, value = self._knots[code]
        after = bisect_left(at, score)
        if not at:
            return code, 0.0
        if after == len(at):
            return code, value[-1]
        if after == 0 or score == at[after]:
            return code, value[after]
        slope = (value[after] - value[after - 1]) / (at[after] - at[after - 1])
        return code, max(value[after], value[after - 1] + slope * (score - at[after - 1]))
