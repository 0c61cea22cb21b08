"""What MLflow is told of a bundle that is logged and registered. Needs no MLflow: the service has none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ssad.bundle.bundle import MANIFEST, file_digest
from ssad.errors import BundleError

LOADER = "ssad.bundle.pyfunc"
"""What MLflow loads a logged bundle by: the `loader_module` of its pyfunc flavor."""

REGISTERED = "ssad.manifest"
"""Tag of a registered version: the SHA-256 of its manifest, which has those of all other files."""


@contextmanager
def named_by(uri: str, path: Path) -> Iterator[None]:
    """Say what is wrong with the bundle in a folder by the URI that was asked for: who asked knows no other name.

    Args:
        uri: without secrets.
        path: where the bundle was put.
    """
    try:
        yield
    except BundleError as error:
        raise BundleError(str(error).replace(str(path), uri)) from error


def bundle_in(logged: Path, data: object, uri: str) -> Path:
    """The folder of the bundle in the folder that MLflow logged.

    Args:
        logged: the folder.
        data: what its `MLmodel` says of where the bundle is.
        uri: of the model, without secrets.

    Raises:
        BundleError: that is elsewhere on this machine, and was not logged.
    """
    bundle = logged / str(data)
    if not bundle.resolve().is_relative_to(logged.resolve()):
        raise BundleError(f"the MLmodel of {uri} names {str(data)[:200]!r} as its data, outside of it; train again.")
    return bundle


def registered_tag(path: Path) -> dict[str, str]:
    """What a version is told of the bundle in a folder when it is registered."""
    return {REGISTERED: file_digest(path / MANIFEST)}


def check_registered(path: Path, tags: Mapping[str, str], uri: str) -> None:
    """Compare a bundle that was fetched with what its version was told; one that was told nothing is let pass.

    Raises:
        BundleError: it is not what was registered.
    """
    expected = tags.get(REGISTERED)
    if expected and not ((path / MANIFEST).is_file() and file_digest(path / MANIFEST) == expected):
        raise BundleError(
            f"the files of {uri} are not those that were registered; find out who changed them, and restore them or "
            "train again."
        )
