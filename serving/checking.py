"""What a bundle must pass before it is served."""

from __future__ import annotations

from pathlib import Path

from ssad.bundle import Bundle, TableSchema
from ssad.errors import BundleError, listed, reason_of


def load_checked(path: Path) -> Bundle:
    """Load a bundle and check that it is whole and scores as it did.

    Raises:
        BundleError: a file is missing or damaged, or the golden rows score differently.
    """
    try:
        bundle = Bundle(path)
        bundle.check_golden()
        bundle.errors(bundle.golden["rows"])  # the graph that explains is read now: the folder is about to move
    except BundleError:
        raise
    except Exception as error:  # a graph and a schema that do not fit each other fail in many ways
        raise BundleError(
            f"the bundle {path} cannot score its golden rows ({reason_of(error)}); train again."
        ) from error
    return bundle


def check_columns(bundle: Bundle, sent: TableSchema | None) -> None:
    """Check that a bundle needs no columns but those that clients send; None: it may need others.

    Raises:
        BundleError: it does.
    """
    other = [column.name for column in bundle.schema.not_in(sent)] if sent is not None else []
    if other:
        raise BundleError(
            f"it needs columns that the served version does not, or of another kind: {listed(other)}; "
            "set SSAD_SERVE_ALLOW_NEW_COLUMNS once every client sends them."
        )
