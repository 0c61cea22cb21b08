"""Following an alias: look, fetch aside, check, swap. One thread, far from the requests."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

from serving.checking import check_columns, load_checked
from serving.registry import Registry
from serving.settings import Settings
from serving.source import Fetched, Source, Version
from serving.state import Service
from serving.store import KEPT, Store
from ssad.bundle import Bundle, TableSchema
from ssad.bundle.bundle import MANIFEST, copy_bundle
from ssad.bundle.logged_model import named_by
from ssad.errors import BundleError, SettingsError, SsadError, TrackingError, disk_is_full, without_secrets
from ssad.model_uri import LATEST, ModelUri

logger = logging.getLogger(__name__)

JITTER = 0.2
"""Polls come this share earlier or later, so that many services do not ask at once."""

MAX_BACKOFF_SECONDS = 300.0
"""A version that was refused is fetched again, ever later up to this: its files may have been mended."""


class Follower:
    """Keeps a service at the version its model URI means."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._registry = Registry(service.settings)
        self._store = Store(service.settings)
        uri = ModelUri.of(service.settings.model)
        self._uri = uri if uri and uri.version != LATEST else None  # None: what another URI means may change, unseen
        self._settled = self._uri is None
        self._recent: OrderedDict[Version, tuple[Fetched, Bundle]] = OrderedDict()
        self._refused: tuple[Version, float, float] | None = None  # version, not before, wait
        self._hint, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def load_first(self) -> None:
        """Serve the last good bundle; where it is gone, what the registry has, or else the one before.

        Raises:
            SsadError: there is none of them.
        """
        _check_allowed(self._settings)
        kept = self._kept(self._store.last_good())
        if kept is None:
            try:
                self._load_from_registry()
                return
            except SsadError as error:
                kept = self._kept(self._store.last_good(before=1))
                if kept is None:
                    raise
                logger.error("the version before the last good one is served, which is gone: %s", error)
        self._swap(*kept)

    def _load_from_registry(self) -> None:
        """Serve what the registry has now."""
        try:
            if self._uri is not None:
                self._serve_version(self._resolve())
                return
            self._swap(*self._fetch(self._settings.model, "", None))
            self._registry.close()  # nobody is asked again
        except OSError as error:
            raise SettingsError(
                f"the folder {self._settings.cache} takes no bundle ({error.strerror}); {_mend(error)}, or set "
                "SSAD_SERVE_CACHE to one that can be written."
            ) from error

    def _resolve(self) -> Version:
        assert self._uri is not None  # what another one means was settled at the start
        version = self._registry.resolve(self._uri)
        if self._alias is not None:
            self._service.registry_seen = time.monotonic()
        return version

    @property
    def _alias(self) -> str | None:
        return self._uri.alias if self._uri else None

    def start(self) -> None:
        """Follow from now on."""
        self._thread.start()

    def wake(self) -> None:
        """Look now, not at the end of the pause."""
        self._hint.set()

    def stop(self) -> None:
        """End the thread and the child process."""
        self._stopping.set()
        self._hint.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._settings.registry_timeout_seconds)
        self._registry.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._service.metrics.fold()  # another worker may be asked for this one's
                if not self._settled:
                    self._poll()
            except Exception:  # a thread that ends would follow nothing, unseen
                logger.exception("following failed")
            if self._hint.wait(self._settings.poll_seconds * random.uniform(1 - JITTER, 1 + JITTER)):
                self._hint.clear()
                self._refused = None  # who hints may have mended what was refused
                self._settled = self._uri is None

    def _poll(self) -> None:
        polls = self._service.metrics.polls
        try:
            version = self._resolve()
        except TrackingError as error:
            polls.labels("failed").inc()
            logger.warning("%s", error)
            return
        polls.labels("ok").inc()
        if version != self._service.refused:
            self._service.refused = None
        served = self._service.served
        if served is not None and served.source.registered == version:
            self._settle()
        elif not self._waits(version):
            self._try(version)

    def _settle(self) -> None:
        """What is served is what the registry has: of a version that is named by its number that is the end of it."""
        if self._alias is None:
            self._settled = True
            self._registry.close()

    def _try(self, version: Version) -> None:
        """Serve another version; where it cannot be, count that and keep the old one."""
        reloads = self._service.metrics.reloads
        try:
            self._serve_version(version)
        except (SsadError, OSError) as error:
            refused = isinstance(error, BundleError)
            if refused:
                self._service.refused = version
            reloads.labels("refused" if refused else "failed").inc()
            known = self._refused if self._refused and self._refused[0] == version else None
            wait = min(known[2] * 2, MAX_BACKOFF_SECONDS) if known else self._settings.poll_seconds
            self._refused = (version, time.monotonic() + wait, wait)
            logger.error("version %s is not served, the old one is kept: %s", version.number, error)
        else:
            reloads.labels("loaded").inc()
            self._refused = None
            logger.info("version %s is served", version.number)

    def _waits(self, version: Version) -> bool:
        return self._refused is not None and self._refused[0] == version and time.monotonic() < self._refused[1]

    def _serve_version(self, version: Version) -> None:
        """Get a version, check it and swap.

        Raises:
            SsadError: it cannot be fetched, or fails the check.
            OSError: the disk cannot take it.
        """
        known = self._recent.get(version) or self._kept(self._store.find(version))
        if known is not None and not self._store.was_served(version):  # another service has kept it
            check_columns(known[1], self._needed(version))
        self._swap(*(known or self._fetched(version)))

    def _kept(self, fetched: Fetched | None) -> tuple[Fetched, Bundle] | None:
        """What the disk has, checked."""
        if fetched is None:
            return None
        try:
            return fetched, load_checked(fetched.path)
        except BundleError as error:
            logger.error("a bundle that was kept cannot be used: %s", error)
            self._store.forget(fetched.source.registered)
            return None

    def _fetched(self, version: Version) -> tuple[Fetched, Bundle]:
        assert self._uri is not None
        uri = ModelUri(self._uri.name, version=version.number)
        return self._fetch(str(uri), version.identity, self._needed(version))

    def _needed(self, version: Version) -> TableSchema | None:
        """The columns that clients send, beyond which this version may need none; None where it may."""
        served = self._service.served
        if served is None or self._settings.allow_new_columns:
            return None
        # Another one of the same number: the model was made anew, and what was sent to the old one binds nobody.
        return None if served.source.version == version.number else served.bundle.schema

    def _fetch(self, uri: str, identity: str, needed: TableSchema | None) -> tuple[Fetched, Bundle]:
        """Get a bundle into a folder aside, check it, and keep it where it may be kept."""
        with self._store.incoming() as scratch:
            try:
                fetched = _copied(uri, scratch) or self._registry.fetch(uri, scratch)
                with named_by(without_secrets(uri), fetched.path):
                    self._registry.check(fetched.path)
                    bundle = load_checked(fetched.path)
            finally:
                self._registry.rest()
            source = replace(fetched.source, uri=self._settings.told_model, alias=self._alias, identity=identity)
            fetched = Fetched(source, fetched.path)
            check_columns(bundle, needed)
            return (self._store.keep(fetched, scratch) if self._uri else fetched), bundle

    def _swap(self, fetched: Fetched, bundle: Bundle) -> None:
        """Serve a checked bundle and remember it as the last good one."""
        self._service.serve(bundle, fetched.source)
        if self._uri is None:
            return
        version = fetched.source.registered
        self._recent[version] = fetched, bundle
        self._recent.move_to_end(version)
        while len(self._recent) > KEPT:
            self._recent.popitem(last=False)
        try:
            self._store.mark_good(version)
        except OSError as error:
            cache, told = self._settings.cache, error.strerror
            logger.error("the last good version cannot be remembered in %s (%s); %s", cache, told, _mend(error))


def _mend(error: OSError) -> str:
    """What to do where a folder cannot be written."""
    return "make room in it" if disk_is_full(error) else "let the service write there"


def _copied(path: str, folder: Path) -> Fetched | None:
    """A copy of a bundle that no run logged, made in `folder`; None where the path is no bundle's."""
    if not (Path(path) / MANIFEST).is_file():
        return None
    return Fetched(Source(path), copy_bundle(Path(path), folder / "bundle"))


def _check_allowed(settings: Settings) -> None:
    allowed = settings.allowed_models
    if not allowed:
        return
    uri = ModelUri.of(settings.model)
    if uri is None or uri.name not in allowed:
        raise SettingsError(
            f"{settings.told_model} may not be served; SSAD_SERVE_ALLOWED_MODELS names {', '.join(allowed)}."
        )
