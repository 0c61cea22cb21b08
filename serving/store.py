"""Bundles on this machine's disk: the service starts with the last good one when the registry is down."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from serving.registry import Fetched
from serving.settings import Settings
from serving.source import Source
from ssad.errors import SettingsError

KEPT = 2
"""Versions that are kept: the served one and the one before, so that a rollback fetches nothing."""

LAST_GOOD, SOURCE, BUNDLE = "last-good.json", "source.json", "bundle"
INCOMING = "incoming-"


class Store:
    """The folder of one model URI of one registry."""

    def __init__(self, settings: Settings) -> None:
        """Make the folder.

        Raises:
            SettingsError: it cannot be made.
        """
        what = f"{settings.registry_uri or Path.cwd()} {settings.model}"
        self._abandoned = 2 * settings.fetch_timeout_seconds  # fetching a version may take half of it
        self._root = settings.cache.expanduser() / hashlib.sha256(what.encode()).hexdigest()[:16]
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"the folder {settings.cache} cannot be written; set SSAD_SERVE_CACHE to one that can."
            ) from error

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """An empty folder on the same disk, gone afterwards; if the process is killed, with the next one."""
        for left in self._root.glob(f"{INCOMING}*"):
            with suppress(OSError):  # another worker was sooner
                if left.stat().st_mtime < time.time() - self._abandoned:
                    shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self._root, prefix=INCOMING, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def find(self, version: str) -> Fetched | None:
        """A version that was kept; None where it was not."""
        folder = self._root / f"v{version}"
        try:
            return Fetched(Source(**json.loads((folder / SOURCE).read_text(encoding="utf-8"))), folder / BUNDLE)
        except (OSError, ValueError, TypeError):
            return None

    def keep(self, fetched: Fetched, scratch: Path) -> Fetched:
        """Move a fetched bundle to its place, whole or not at all."""
        ready, place = scratch / "ready", self._root / f"v{fetched.source.version}"
        ready.mkdir()
        shutil.move(fetched.path, ready / BUNDLE)
        (ready / SOURCE).write_text(json.dumps(asdict(fetched.source)), encoding="utf-8")
        try:
            ready.rename(place)
        except OSError:
            if not place.exists():
                raise  # else another worker was sooner
        return Fetched(fetched.source, place / BUNDLE)

    def forget(self, version: str) -> None:
        """Remove a version that turned out to be damaged."""
        shutil.rmtree(self._root / f"v{version}", ignore_errors=True)

    def last_good(self) -> Fetched | None:
        """What was served last; None where nothing was, or it is gone."""
        versions = self._marked()
        return self.find(versions[0]) if versions else None

    def mark_good(self, version: str) -> None:
        """Remember that this version is served, and remove all but the newest `KEPT`."""
        versions = [version, *(other for other in self._marked() if other != version)][:KEPT]
        handle, written = tempfile.mkstemp(dir=self._root)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(versions, file)
        Path(written).replace(self._root / LAST_GOOD)
        for folder in self._root.glob("v*"):
            if folder.name[1:] not in versions:
                shutil.rmtree(folder, ignore_errors=True)

    def _marked(self) -> list[str]:
        try:
            versions = json.loads((self._root / LAST_GOOD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [str(version) for version in versions] if isinstance(versions, list) else []
