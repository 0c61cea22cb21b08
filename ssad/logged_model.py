"""Where a logged model has its bundle. A leaf that needs no MLflow: the service, which has none, reads it too."""

from __future__ import annotations

from pathlib import Path

from ssad.errors import BundleError


def bundle_in(logged: Path, data: object) -> Path:
    """The folder of the bundle in the folder that MLflow logged.

    Args:
        logged: the folder.
        data: what its `MLmodel` says of where the bundle is.

    Raises:
        BundleError: that is elsewhere on this machine, and was not logged.
    """
    bundle = logged / str(data)
    if not bundle.resolve().is_relative_to(logged.resolve()):
        raise BundleError(f"the MLmodel in {logged} names {str(data)[:200]!r} as its data, outside of it; train again.")
    return bundle
