"""Bundles on this machine's disk: the service starts with the last good one when the registry is down."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from serving.settings import Settings
from serving.source import Fetched, Source, Version
from ssad.aside import written_aside
from ssad.errors import SettingsError

KEPT = 2
"""Versions that are kept: the served one and the one before, so that a rollback fetches nothing."""

LAST_GOOD, SOURCE, BUNDLE = "last-good.json", "source.json", "bundle"

OF_FILES = re.compile(r"(sqlite(?:\+\w+)?:///|file:(?://)?|)([^:]*)")
"""A registry's URI that is or has a path: of a database, a folder, or none at all for what is in this folder."""


class Store:
    """The folder of one model URI of one registry."""

    def __init__(self, settings: Settings) -> None:
        """Make the folder.

        Raises:
            SettingsError: it cannot be made.
        """
        what = f"{absolute(settings.registry_uri)} {settings.model}"
        self._abandoned = 3 * settings.fetch_timeout_seconds  # fetching a version, and checking it, may take a third
        self._root = settings.cache.expanduser() / hashlib.sha256(what.encode()).hexdigest()[:16]
        try:
            self._root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._root.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"the folder {settings.cache} cannot be written; set SSAD_SERVE_CACHE to one that can."
            ) from error
        self._served = set(self._marked())  # what other services mark from now on is theirs

    def incoming(self) -> AbstractContextManager[Path]:
        """An empty folder on the same disk, gone afterwards; if the process is killed, with the next one."""
        return written_aside(self._root, self._abandoned)

    def find(self, version: Version) -> Fetched | None:
        """A version that was kept; None where it was not."""
        return self._read(_name(version))

    def _read(self, name: str) -> Fetched | None:
        folder = self._root / name
        try:
            return Fetched(Source(**json.loads((folder / SOURCE).read_text(encoding="utf-8"))), folder / BUNDLE)
        except (OSError, ValueError, TypeError):
            return None

    def keep(self, fetched: Fetched, scratch: Path) -> Fetched:
        """Move a fetched bundle to its place, whole or not at all."""
        ready, place = scratch / "ready", self._root / _name(fetched.source.registered)
        ready.mkdir()
        shutil.move(fetched.path, ready / BUNDLE)
        (ready / SOURCE).write_text(json.dumps(asdict(fetched.source)), encoding="utf-8")
        try:
            ready.rename(place)
        except OSError:  # another worker was sooner, or what lies there is damaged
            if self._read(place.name) is None:
                shutil.rmtree(place, ignore_errors=True)
                ready.rename(place)
        return Fetched(fetched.source, place / BUNDLE)

    def forget(self, version: Version) -> None:
        """Remove a version that turned out to be damaged."""
        shutil.rmtree(self._root / _name(version), ignore_errors=True)

    def last_good(self, before: int = 0) -> Fetched | None:
        """What was served last, or so many versions before that; None where nothing was, or it is gone."""
        names = self._marked()[before:]
        return self._read(names[0]) if names else None

    def was_served(self, version: Version) -> bool:
        """Whether this process has served it, or it was marked as good before that began."""
        return _name(version) in self._served

    def mark_good(self, version: Version) -> None:
        """Remember that this version is served, and remove all but the newest `KEPT`."""
        newest = _name(version)
        self._served.add(newest)
        names = [newest, *(other for other in self._marked() if other != newest)][:KEPT]
        with self.incoming() as scratch:  # a full disk leaves nothing
            written = scratch / LAST_GOOD
            written.write_text(json.dumps(names), encoding="utf-8")
            written.replace(self._root / LAST_GOOD)
        for folder in self._root.glob("v*"):
            if folder.name not in names:
                shutil.rmtree(folder, ignore_errors=True)

    def _marked(self) -> list[str]:
        try:
            names = json.loads((self._root / LAST_GOOD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [str(name) for name in names] if isinstance(names, list) else []


def _name(version: Version) -> str:
    """The folder of a version."""
    return f"v{version.number}-{version.identity}"


def absolute(uri: str) -> str:
    """A registry's URI, the same from every folder: one that is or has a relative path means another in each."""
    found = OF_FILES.fullmatch(uri)
    return found[1] + str(Path(found[2]).absolute()) if found else uri
