"""What goes to MLflow and to the log, and under which name."""

from ssad.loggers.logging_config import setup_logging

__all__ = ["setup_logging"]
