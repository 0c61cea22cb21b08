"""API keys: several at once, kept as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Iterable
from pathlib import Path

from serving.settings import SHA256, Settings
from ssad.errors import SettingsError

logger = logging.getLogger(__name__)


REFRESH_SECONDS = 1.0
"""How long a key may open after it was taken out of the file."""


class Keys:
    """The keys that open the service, and the one that opens `/admin`."""

    def __init__(self, settings: Settings) -> None:
        """Read them.

        Raises:
            SettingsError: the file of keys is missing or holds something else.
        """
        self._settings = settings
        self._due = 0.0
        self._seen: tuple[int, ...] = ()  # of the file when it was read
        self._hashes: tuple[str, ...] = settings.api_keys
        self._read()

    @property
    def needed(self) -> bool:
        """Whether a request needs a key."""
        return bool(self._hashes) or self._settings.api_keys_file is not None

    def opens(self, key: bytes) -> bool:
        """Whether it is one of the API keys, or the admin key."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + REFRESH_SECONDS
            self._refresh()
        return _matches(key, self._hashes) or self.opens_admin(key)

    def opens_admin(self, key: bytes) -> bool:
        """Whether it is the admin key."""
        return bool(self._settings.admin_key) and _matches(key, (self._settings.admin_key,))

    def _refresh(self) -> None:
        """Read the file again if it has changed; one that cannot be read leaves the keys as they are."""
        try:
            self._read()
        except SettingsError as error:
            logger.error("the API keys stay as they are: %s", error)

    def _read(self) -> None:
        path = self._settings.api_keys_file
        if path is None:
            return
        try:
            found = path.stat()
            seen = found.st_mtime_ns, found.st_size, found.st_ino  # two changes may have one time
            if seen == self._seen:
                return
            self._hashes = self._settings.api_keys + _hashes_of(path)
            self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"the file of API keys {path} cannot be read; check its path and rights.") from error


def _hashes_of(path: Path) -> tuple[str, ...]:
    words = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    hashes = tuple(word for word in words if word)
    if not all(SHA256.fullmatch(word) for word in hashes):
        raise SettingsError(f"{path} must hold the SHA-256 of one key a line, 64 hexadecimal digits each.")
    return hashes


def _matches(key: bytes, hashes: Iterable[str]) -> bool:
    """Whether a key has one of the hashes; every one is compared, so that the time tells nothing."""
    given = hash_of(key)
    found = False
    for known in hashes:
        found |= hmac.compare_digest(given, known)
    return found


def hash_of(key: bytes) -> str:
    """SHA-256 of a key, in hexadecimal: what is kept of it."""
    return hashlib.sha256(key).hexdigest()


def given_key(headers: dict[bytes, bytes]) -> bytes:
    """The key a request brings, in `X-API-Key` or as a bearer token; empty if it brings none."""
    key = headers.get(b"x-api-key")
    if key is None:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        key = key if scheme.lower() == b"bearer" else b""
    return key.strip()
