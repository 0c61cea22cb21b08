"""Where a served bundle came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes:
        number: its number, which is given again where a model is deleted or a registry made anew.
        identity: what tells it from any other of this number; empty if unknown.
    """

    number: str
    identity: str


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
        identity: what tells the version from any other of its number; empty if unknown.
    """

    uri: str
    name: str | None = None
    version: str | None = None
    alias: str | None = None
    run_id: str | None = None
    trained_at: int | None = None
    recalibrated_at: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    identity: str = ""

    @property
    def registered(self) -> Version:
        """The version; of a model that is not registered, one without a number."""
        return Version(self.version or "", self.identity)


@dataclass(frozen=True)
class Fetched:
    """A model that was downloaded.

    Attributes:
        source: where it came from, its version resolved.
        path: its bundle.
    """

    source: Source
    path: Path
