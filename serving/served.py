"""What scores, as one reference."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property

import orjson

from serving.drift import DriftWindow
from serving.gathering import Gathering
from serving.source import Source
from ssad.bundle import Bundle


@dataclass
class Served:
    """A bundle and where it came from: one reference, so that a request never mixes two versions.

    Attributes:
        bundle: what scores.
        source: where it came from.
        window: the last rows it scored.
        loaded_at: when it was loaded, seconds since 1970.
    """

    bundle: Bundle
    source: Source
    window: DriftWindow
    loaded_at: float = field(default_factory=time.time)

    @property
    def label(self) -> tuple[str, str, str, str]:
        """Name, version, alias and run; empty where there is none."""
        s = self.source
        return (s.name or "", s.version or "", s.alias or "", s.run_id or "")

    @cached_property
    def gathering(self) -> Gathering:
        """Scores rows of several requests together."""
        return Gathering(self.bundle)

    @cached_property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Response headers that name the version."""
        named = zip((b"x-model-name", b"x-model-version", b"x-model-alias"), self.label, strict=False)
        return [(name, value.encode()) for name, value in named if value]

    @cached_property
    def named(self) -> bytes:
        """Name and version as JSON."""
        return orjson.dumps({"name": self.source.name, "version": self.source.version})
