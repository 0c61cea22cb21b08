"""Python's logging for scripts and entry points; a library import sets up nothing."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def setup_logging(level: str | int = "INFO") -> None:
    """Log to standard error from `level` on; a second call changes the level, never doubles the lines."""
    root = logging.getLogger("ssad")
    root.setLevel(level)
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(FORMAT))
        root.addHandler(handler)
    root.propagate = False
    # Notes on hardware and advertisements, once a training: a benchmark trains hundreds of times.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
