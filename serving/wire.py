"""What connections write, gathered: the head and the body of an answer leave together, at the end of the loop's turn.

A write is a system call that may wake the client, and costs more than validating a row does.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


class GatheringProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # a variable: httptools' or h11's
    """Uvicorn's protocol over such a connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin a connection."""
        super().connection_made(GatheringTransport(transport, self.loop))


class GatheringTransport:
    """A transport that writes once in a turn of the loop; all else is that of the one it wraps."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []
        self.is_closing = transport.is_closing  # asked after every answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write at the end of this turn."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Write what is left, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.writelines(parts)
