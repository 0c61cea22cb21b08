"""A bundle as a logged model and a registered version, and back."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mlflow
import pandas as pd
import yaml  # type: ignore[import-untyped]  # MLflow brings it
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.models.model import MLMODEL_FILE_NAME

import ssad
from ssad.bundle import Bundle
from ssad.bundle.bundle import MANIFEST
from ssad.bundle.logged_model import LOADER, check_registered, named_by, read_logged
from ssad.errors import SettingsError, SsadError, TrackingError, disk_is_full, reason_of, without_secrets
from ssad.model_uri import ModelUri
from ssad.workflows.signature import DescribedRows
from ssad.workflows.tracking_store import NOT_ALLOWED, NOT_THERE, remedy_for

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"

NO_NAME = "/:@?#'\""
"""What a registry refuses in a model's name, or takes and no model URI can name."""

NAME_LENGTH = 256
"""Characters of a model's name that MLflow's tables have room for; SQLite, unlike other databases, does not count."""

CLAIM = "ssad.promotion."
"""What tags of a model begin with, by which runs hold off other promotions of it."""

SCORING_PACKAGES = ("mlflow", "numpy", "onnxruntime", "pandas", "lazy-loader")
"""What scoring with a logged model needs; neither torch nor this package."""


def name_problems(name: str) -> list[str]:
    """Why a registry would refuse this name of a model: said before the work, not after it."""
    fits = name.strip() and name.isprintable() and len(name) <= NAME_LENGTH
    if fits and not any(sign in name for sign in NO_NAME):
        return []
    expected = f"a name of up to {NAME_LENGTH} printable characters without any of {' '.join(NO_NAME)}"
    return [f"model_name must be {expected}, got {name!r}"]


def check_may_register(name: str) -> None:
    """Have the registry refuse before the work an account that may read a model and not write it.

    Raises:
        TrackingError: it does, or does not answer.
    """
    client = MlflowClient()
    if not _is_registered(client, name):
        return
    try:
        client.delete_registered_model_tag(name, CLAIM)  # which is there of no run: this asks, and changes nothing
    except MlflowException as error:
        if error.error_code == NOT_ALLOWED:
            raise TrackingError(
                f"this account may not register versions of {name} ({reason_of(error)}); ask for the permission EDIT "
                "on that registered model, or name another by model_name."
            ) from error


@dataclass(frozen=True)
class Registered:
    """A version in the registry and the aliases it was given."""

    name: str
    version: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class FetchedModel:
    """A model on this machine and where it came from; what a bundle's folder cannot tell is None.

    Attributes:
        uri: the URI or path, with the version in place of an alias, without secrets.
        bundle: the bundle.
        name: name in the registry.
        version: its version there.
        model_id: MLflow's id of the logged model, where this tracking store has it.
        logged: the folder MLflow logged.
    """

    uri: str
    bundle: Bundle
    name: str | None = None
    version: str | None = None
    model_id: str | None = None
    logged: Path | None = None


def fetch_model(uri: str, folder: Path) -> FetchedModel:
    """Fetch a registered version, a run's model or a bundle.

    Args:
        uri: a model URI of MLflow, or the path of a bundle's folder.
        folder: where to put what is downloaded.

    Raises:
        TrackingError: there is no such model.
        BundleError: it is none of this project, damaged, or not what was registered.
    """
    shown = without_secrets(uri)
    if (Path(uri) / MANIFEST).is_file():
        return FetchedModel(uri, Bundle(Path(uri)))
    try:
        found = ModelUri.of(uri)
        version: ModelVersion | None = found.find(MlflowClient()) if found else None
        pinned = str(ModelUri(version.name, version=str(version.version))) if version else uri
        downloaded = Path(mlflow.artifacts.download_artifacts(artifact_uri=pinned, dst_path=str(folder)))
    except SsadError:
        raise
    except Exception as error:  # each store has exceptions of its own
        if disk_is_full(error, folder):
            raise TrackingError(f"the disk of {folder} is full; make room and run again.") from error
        otherwise = "name a version that is there, as in models:/ssad@champion, or a bundle's folder"
        remedy = remedy_for(error, otherwise, "READ")
        raise TrackingError(
            f"the model {shown} cannot be loaded ({without_secrets(reason_of(error))}); {remedy}."
        ) from error
    logged = read_logged(downloaded, uri)
    check_registered(logged.bundle, version.tags if version else {}, shown)
    with named_by(shown, logged.bundle):
        bundle = Bundle(logged.bundle)
    name, number = (version.name, str(version.version)) if version else (None, None)
    return FetchedModel(without_secrets(pinned), bundle, name, number, _known_model(logged.model_id), downloaded)


def mlflow_model(folder: Path) -> Model:
    """What MLflow says of the model that it logged in a folder; its own reader takes the path for a URI with `%20`."""
    return Model.from_dict(yaml.safe_load((folder / MLMODEL_FILE_NAME).read_text(encoding="utf-8")))


def _known_model(model_id: str | None) -> str | None:
    """The id of a logged model; None where this store does not have it, as of a folder that came from another."""
    try:
        return MlflowClient().get_logged_model(model_id).model_id if model_id else None
    except MlflowException:
        return None


def copy_of_ssad(folder: Path) -> Path:
    """Copy this package's source into a folder; compiled files, which hold paths of this machine, stay behind."""
    source = Path(ssad.__file__).parent
    return Path(shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__")))


def log_bundle(path: Path, rows: DescribedRows) -> str:
    """Log the bundle in a folder to the active run as a pyfunc, and return its model URI.

    Args:
        path: the bundle.
        rows: what it takes: the signature's types, and the input example.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = copy_of_ssad(Path(folder))
        answers = pd.DataFrame(Bundle(path).score(rows.example).columns())
        answered = infer_signature(model_output=answers, params={"explain": 0})
        info = mlflow.pyfunc.log_model(
            name="model",
            loader_module=LOADER,
            data_path=str(path),
            code_paths=[str(source)],
            signature=ModelSignature(rows.types, answered.outputs, answered.params),
            input_example=rows.example,
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in SCORING_PACKAGES],
        )
    return str(info.model_uri)


def register(
    model_uri: str, name: str, description: str | None = None, tags: dict[str, str] | None = None
) -> Registered:
    """Make a logged model a version with alias `challenger`, and `champion` too where there is none.

    A version that cannot be told all of it is deleted again, with the model if nobody has another version of it, and
    the challenger until then is it again unless there is a newer one: nothing is left half-registered.
    """
    client = MlflowClient()
    known = _is_registered(client, name)
    version, former = None, None
    try:
        version = mlflow.register_model(model_uri, name, tags=tags)
        if description:
            client.update_model_version(name, version.version, description)
        former = alias_version(client, name, CHALLENGER)
        aliases = (CHALLENGER,) if alias_version(client, name, CHAMPION) else (CHALLENGER, CHAMPION)
        for alias in aliases:
            client.set_registered_model_alias(name, alias, version.version)
    except BaseException:
        if version:
            client.delete_model_version(name, version.version)  # with its aliases
        if former and alias_version(client, name, CHALLENGER) is None:
            client.set_registered_model_alias(name, CHALLENGER, former.version)
        if not known and _is_registered(client, name) and not client.search_model_versions(f"name='{name}'"):
            client.delete_registered_model(name)
        raise
    return Registered(name, str(version.version), aliases)


def _is_registered(client: MlflowClient, name: str) -> bool:
    """Whether there is such a model, as far as this account may know.

    Raises:
        TrackingError: the registry, which may be another server than the tracking one, does not answer.
    """
    try:
        return client.get_registered_model(name) is not None
    except MlflowException as error:
        if error.error_code in (*NOT_THERE, NOT_ALLOWED):
            return False
        otherwise = "see that MLFLOW_REGISTRY_URI, or MLFLOW_TRACKING_URI without it, names one that answers"
        raise TrackingError(
            f"the registry at {without_secrets(mlflow.get_registry_uri())} does not tell whether there is a model "
            f"{name} ({without_secrets(reason_of(error))}); {remedy_for(error, otherwise)}."
        ) from error


def registered_name(uri: str) -> str:
    """The name in a `models:/` URI of a version or an alias.

    Raises:
        SettingsError: it is another URI.
    """
    found = ModelUri.of(uri)
    if found is None:
        raise SettingsError(f"expected a registered version, as in models:/ssad@challenger, got {uri!r}.")
    return found.name


def alias_version(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that an alias means; None where there is no such alias.

    Raises:
        TrackingError: the registry knows no aliases, or does not answer.
    """
    try:
        return client.get_model_version_by_alias(name, alias)
    except (MlflowException, NotImplementedError) as error:
        if "not found" in str(error) and getattr(error, "error_code", "") in NOT_THERE:
            return None
        raise TrackingError(
            f"the registry at {without_secrets(mlflow.get_registry_uri())} cannot tell the alias {alias} of {name} "
            f"({reason_of(error)}); {remedy_for(error, 'it must be one with aliases, of MLflow 2.3 or newer', 'READ')}."
        ) from error
