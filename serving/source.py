"""Where a served bundle came from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

ALIASED = re.compile(r"models:/+([^/@]+)@([^/@]+)")
PINNED = re.compile(r"models:/+[^/@]+/\d+")


@dataclass(frozen=True)
class Source:
    """Where a served bundle came from.

    Attributes:
        uri: the model URI that was asked for.
        name: name in the registry; None for a model that is not registered.
        version: its version; None likewise.
        alias: the alias that is followed; None where none is.
        run_id: the run that logged it; None if unknown.
        trained_at: when training began, milliseconds since 1970; None if unknown.
        recalibrated_at: when the last recalibration since began, likewise; None where there was none.
        metrics: the metrics of the training.
    """

    uri: str
    name: str | None = None
    version: str | None = None
    alias: str | None = None
    run_id: str | None = None
    trained_at: int | None = None
    recalibrated_at: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def aliased(uri: str) -> tuple[str, str] | None:
    """Name and alias of a model URI that has an alias; None of any other."""
    found = ALIASED.fullmatch(uri)
    return (found[1], found[2]) if found else None


def pinned(uri: str) -> bool:
    """Whether a model URI names one registered version, whose files never change."""
    return PINNED.fullmatch(uri) is not None
