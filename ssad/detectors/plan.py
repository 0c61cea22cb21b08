"""What the user may set of a training, and what is decided in its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

from ssad.detectors.presets import preset
from ssad.errors import check_settings, nearest

EPOCH_BATCHES = 16
"""Batches an epoch of a small table is cut into, so that each epoch makes some progress."""

MIN_BATCH, MAX_BATCH = 32, 1024

COUNTS = ("max_epochs", "every_n_epochs", "batch_size")
"""Settings that are whole numbers of at least 1."""

MAX_COUNT = 2**31 - 1
"""Largest of `COUNTS`: torch counts in 32 bits."""

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")

STRATEGIES = ("auto", "ddp")
"""Those of Lightning's under which every process has the whole network, which scores and the bundle need."""

HELD_BACK_SHARE = 0.3
"""Of the training rows, where a promise is asked for: ADBench's share of a test part."""


@dataclass(frozen=True)
class FitSettings:
    """What the user may set; None leaves it to the detector.

    Attributes:
        detector: name of a preset, or `module:attribute` of your own.
        max_epochs: epochs, at least 1.
        every_n_epochs: epochs between recalibrations, at least 1.
        batch_size: rows in a batch, at least 1.
        learning_rate: of Adam, above 0.
        seed: fixes the result, bit for bit on one machine.
        alpha: share of normal rows that may be called abnormal, in (0, 1): a part of the training rows is held
            back to keep that; None for no such promise.
    """

    detector: str = "ssad"
    max_epochs: int | None = None
    every_n_epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    alpha: float | None = None

    def __post_init__(self) -> None:
        preset(self.detector)
        check_settings(self._kind_problems())
        problems = [
            f"{name} must be in [1, {MAX_COUNT}], got {value}"
            for name in COUNTS
            if (value := getattr(self, name)) is not None and not 1 <= value <= MAX_COUNT
        ]
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            problems.append(f"learning_rate must be above 0, got {self.learning_rate}")
        if self.alpha is not None and not 0 < self.alpha < 1:
            problems.append(f"alpha must be in (0, 1), got {self.alpha}")
        if not 0 <= self.seed < 2**32:
            problems.append(f"seed must be in [0, 2**32), got {self.seed}")
        check_settings(problems)

    def _kind_problems(self) -> list[str]:
        """Settings that are no numbers of their kind; NumPy's own, as a grid search gives, are."""
        kinds = {**dict.fromkeys((*COUNTS, "seed"), Integral), "learning_rate": Real, "alpha": Real}
        return [
            f"{name} must be a {'whole number' if kind is Integral else 'number'}, got {value!r}"
            for name, kind in kinds.items()
            if (value := getattr(self, name)) is not None and not isinstance(value, kind)
        ]


@dataclass(frozen=True)
class Hardware:
    """Where training runs; the names are those of Lightning's `Trainer`.

    Attributes:
        devices: processes on each node, at least 1, each with a GPU where there are any.
        strategy: how they work together: `auto` or `ddp`.
        num_nodes: machines, at least 1.
        precision: of training; scores of the final weights are in the precision in which they are served.
    """

    devices: int = 1
    strategy: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, got {value}"
            for name in ("devices", "num_nodes")
            if (value := getattr(self, name)) < 1
        ]
        if self.precision not in PRECISIONS:
            problems.append(f"there is no precision {self.precision!r}; {nearest(self.precision, PRECISIONS)}")
        if self.strategy not in STRATEGIES:
            problems.append(f"there is no strategy {self.strategy!r}; {nearest(self.strategy, STRATEGIES)}")
        check_settings(problems)


@dataclass(frozen=True)
class Plan:
    """Settings with every value decided, for a number of training rows; those that are held back are none."""

    detector: str
    max_epochs: int
    every_n_epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    alpha: float | None = None

    @classmethod
    def of(cls, settings: FitSettings, rows: int) -> Plan:
        """Fill in what the user left to the detector; NumPy's numbers become Python's, which JSON knows."""
        chosen = preset(settings.detector)
        if settings.alpha is not None:
            rows -= round(rows * HELD_BACK_SHARE)
        batch_size = int(settings.batch_size or batch_size_for(rows))
        max_epochs = int(settings.max_epochs or chosen.max_epochs(math.ceil(rows / batch_size)))
        return cls(
            settings.detector,
            max_epochs,
            int(settings.every_n_epochs or max(1, max_epochs // (chosen.recalibrations + 1))),
            batch_size,
            float(settings.learning_rate or chosen.learning_rate),
            int(settings.seed),
            None if settings.alpha is None else float(settings.alpha),
        )


def batch_size_for(rows: int) -> int:
    """A power of two that makes about `EPOCH_BATCHES` batches, within `MIN_BATCH` and `MAX_BATCH`."""
    wanted = 1 << round(math.log2(max(rows / EPOCH_BATCHES, 1)))
    return min(MAX_BATCH, max(MIN_BATCH, wanted))
