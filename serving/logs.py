"""Logs as JSON lines on standard error: no secret and no row in them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import warnings
from datetime import datetime, timezone

import orjson
import structlog
from structlog.typing import Processor


def setup_logs(level: str) -> None:
    """Log JSON lines from `level` on, uvicorn's and this project's among them; what libraries warn of is left out."""
    warnings.simplefilter("ignore")
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)
    for name in ("serving", "ssad", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(level)
    logging.getLogger("uvicorn.access").handlers = []


class AccessLog:
    """A line for each request, at INFO; written directly, because a logger takes a fifth of a request's time."""

    def __init__(self, level: str) -> None:
        self._on = logging.getLevelName(level) <= logging.INFO
        self._file = sys.stderr.buffer
        self._lines: list[bytes] = []

    def write(self, method: str, handler: str, status: int, seconds: float, request_id: bytes) -> None:
        """Log one request, with all others of this turn of the event loop."""
        if not self._on:
            return
        line = {
            "event": "request",
            "method": method[:10],
            "path": handler,
            "status": status,
            "ms": round(seconds * 1000, 3),
            "request_id": request_id.decode(),
            "level": "info",
            "timestamp": datetime.now(timezone.utc),
        }
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._flush)
        self._lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        with contextlib.suppress(OSError):  # a full disk must not fail a request
            self._file.write(b"".join(lines))
            self._file.flush()
