"""What MLflow is told of a bundle that is logged and registered. Needs no MLflow: the service has none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ssad.bundle.bundle import MANIFEST, file_digest
from ssad.errors import BundleError, without_secrets

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


@dataclass(frozen=True)
class LoggedModel:
    """What a model's folder says of it.

    Attributes:
        bundle: the folder of its bundle.
        run_id: the run that logged it; None if unknown.
        model_id: MLflow's id of it; None likewise.
    """

    bundle: Path
    run_id: str | None
    model_id: str | None


def read_logged(folder: Path, uri: str) -> LoggedModel:
    """Read the `MLmodel` of a model that MLflow logged.

    Args:
        folder: of the model.
        uri: of it.

    Raises:
        BundleError: it is none of this project, or names a bundle elsewhere on this machine, which was not logged.
    """
    import yaml  # type: ignore[import-untyped]  # MLflow brings it

    uri = without_secrets(uri)
    try:
        # Read as what it is: MLflow's class for it needs pandas, which the service does not have.
        model = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        flavor = model["flavors"]["python_function"]
        ours, data = flavor["loader_module"] == LOADER, str(flavor["data"])
        within = (folder / data).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        ours = False
    if not ours:
        raise BundleError(
            f"{uri} is no model of this project, no MLmodel there says how to load one; name one that ssad registered, "
            "or train again."
        )
    if not within:
        raise BundleError(f"the MLmodel of {uri} names {data[:200]!r} as its data, outside of it; train again.")
    return LoggedModel(folder / data, model.get("run_id"), model.get("model_id"))


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
