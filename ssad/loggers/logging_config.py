"""Python's logging for scripts and entry points; a library import sets up nothing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ssad.errors import on_one_line

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class OneLine(logging.Formatter):
    """A line for each record, whatever names are in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """What is logged of a record but its traceback."""
        return on_one_line(super().formatMessage(record))


def setup_logging(level: str | int = "INFO") -> None:
    """Log to standard error from `level` on; a second call changes the level, never doubles the lines."""
    root = logging.getLogger("ssad")
    root.setLevel(level)
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(OneLine(FORMAT))
        root.addHandler(handler)
    root.propagate = False


@contextmanager
def quiet(logger: str, level: int, module: str = "") -> Iterator[None]:
    """Without what a library's logger says below `level`, and without warnings of modules that match `module`."""
    notes = logging.getLogger(logger)
    before = notes.level
    notes.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=module)
            yield
    finally:
        notes.setLevel(before)
