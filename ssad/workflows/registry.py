"""A bundle as a logged model and a registered version."""

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
from mlflow.models import infer_signature

import ssad
from ssad.bundle import Bundle

CHAMPION, CHALLENGER = "champion", "challenger"

SCORING_PACKAGES = ("mlflow", "numpy", "onnxruntime", "pandas", "lazy-loader")
"""What scoring with a logged model needs; neither torch nor this package."""


@dataclass(frozen=True)
class Registered:
    """A version in the registry and the aliases it was given."""

    name: str
    version: str
    aliases: tuple[str, ...]


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
            loader_module="ssad.bundle.pyfunc",
            data_path=str(path),
            code_paths=[str(source)],
            signature=infer_signature(example, output),
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
