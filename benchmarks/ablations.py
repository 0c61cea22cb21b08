r"""The default without one of its parts, as detectors to benchmark beside it.

    ssad benchmark --suite adbench --data <folder of .npz> --peers none \
        --detectors ssad,benchmarks.ablations:COLD,benchmarks.ablations:WITHOUT_PUSH

from the repository's root.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ssad.detectors import PRESETS
from ssad.detectors.presets import build_ssad

SSAD = PRESETS["ssad"]

COLD = replace(SSAD, first_confidence=None)
"""Every row starts as normal."""

WITHOUT_PUSH = replace(SSAD, build=partial(build_ssad, push=0.0))
"""Confident-abnormal rows are left out, not pushed away."""

WITHOUT_RECALIBRATION = replace(SSAD, recalibrations=0)
"""The first confidence stays until the end."""

SINGLE = replace(SSAD, build=partial(build_ssad, members=1))
"""One autoencoder instead of an ensemble."""

PLAIN = replace(COLD, recalibrations=0, build=partial(build_ssad, members=1, push=0.0))
"""One autoencoder on all rows: no self-supervision."""
