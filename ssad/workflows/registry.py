"""A bundle as a logged model and a registered version, and back."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature

import ssad
from ssad.bundle import Bundle
from ssad.bundle.bundle import MANIFEST
from ssad.errors import BundleError, SsadError, TrackingError

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"

LOADER = "ssad.bundle.pyfunc"

SCORING_PACKAGES = ("mlflow", "numpy", "onnxruntime", "pandas", "lazy-loader")
"""What scoring with a logged model needs; neither torch nor this package."""


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
        uri: the URI or path, with the version in place of an alias.
        name: name in the registry.
        version: its version there.
        model_id: MLflow's id of the logged model.
        logged: the folder MLflow logged.
        bundle: the bundle.
    """

    uri: str
    name: str | None
    version: str | None
    model_id: str | None
    logged: Path | None
    bundle: Bundle


def fetch_model(uri: str, folder: Path, threads: int = 1) -> FetchedModel:
    """Fetch a registered version, a run's model or a bundle.

    Args:
        uri: a model URI of MLflow, or the path of a bundle's folder.
        folder: where to put what is downloaded.
        threads: cores that one scoring call may use.

    Raises:
        TrackingError: there is no such model, or it is none of this project.
        BundleError: it is damaged.
    """
    if (Path(uri) / MANIFEST).is_file():
        return FetchedModel(uri, None, None, None, None, Bundle(Path(uri), threads))
    try:
        version = registered_version(uri)
        pinned = f"models:/{version.name}/{version.version}" if version else uri
        logged = Path(mlflow.artifacts.download_artifacts(artifact_uri=pinned, dst_path=str(folder)))
        model = Model.load(logged)
    except SsadError:
        raise
    except Exception as error:  # each store has exceptions of its own
        reason = " ".join(str(error).split())[:200]
        raise TrackingError(
            f"the model {uri} cannot be loaded ({reason}); name a version that is there, or a bundle's folder."
        ) from error
    flavor = model.flavors.get("python_function", {})
    if flavor.get("loader_module") != LOADER:
        raise BundleError(f"the model {uri} is not one of this project; name one that ssad registered.")
    bundle = Bundle(logged / flavor["data"], threads)
    name, number = (version.name, str(version.version)) if version else (None, None)
    return FetchedModel(pinned, name, number, model.model_id, logged, bundle)


def registered_version(uri: str) -> ModelVersion | None:
    """The version that a `models:/` URI means now, by its number or alias; None for any other URI."""
    name, separator, alias = uri.removeprefix("models:/").partition("@")
    if uri.startswith("models:/") and separator:
        return MlflowClient().get_model_version_by_alias(name, alias)
    name, separator, number = name.partition("/")
    return MlflowClient().get_model_version(name, number) if uri.startswith("models:/") and separator else None


def log_bundle(path: Path, example: pd.DataFrame) -> str:
    """Log the bundle in a folder to the active run as a pyfunc, and return its model URI.

    Args:
        path: the bundle.
        example: a few raw rows: the input example, and where the signature's types come from.
    """
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # MLflow would take compiled files along, which hold paths of this machine.
        source = Path(folder) / "ssad"
        shutil.copytree(Path(ssad.__file__).parent, source, ignore=shutil.ignore_patterns("__pycache__"))
        # Whole numbers stay whole in the signature on purpose: so the rows trained on can be scored.
        warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer column")
        output = pd.DataFrame(Bundle(path).score(example).columns())
        info = mlflow.pyfunc.log_model(
            name="model",
            loader_module=LOADER,
            data_path=str(path),
            code_paths=[str(source)],
            signature=infer_signature(example, output, params={"explain": 0}),
            input_example=example,
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in SCORING_PACKAGES],
        )
    return str(info.model_uri)


def register(model_uri: str, name: str) -> Registered:
    """Make a logged model a version with alias `challenger`, and `champion` too where there is none.

    A version whose aliases cannot be set is deleted again: nothing is left half-registered.
    """
    client = MlflowClient()
    version = mlflow.register_model(model_uri, name)
    aliases = (CHALLENGER,) if _champion(client, name) else (CHALLENGER, CHAMPION)
    try:
        for alias in aliases:
            client.set_registered_model_alias(name, alias, version.version)
    except BaseException:
        client.delete_model_version(name, version.version)
        raise
    return Registered(name, str(version.version), aliases)


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:  # how MLflow says that there is no such alias
        return None
