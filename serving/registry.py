"""From a model URI to a bundle on disk, in a process of its own.

MLflow takes a second and 150 MiB to import; the service does not need it to score. Run as
`python -m serving.registry URI FOLDER`: it downloads into FOLDER and prints what it found as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from ssad.errors import TrackingError

FETCH_SECONDS = 120
"""How long fetching a model may take before the service gives up."""


@dataclass(frozen=True)
class Source:
    """Where a served bundle came from.

    Attributes:
        uri: the model URI that was asked for.
        name: name in the registry; None for a model that is not registered.
        version: its version; None likewise.
        run_id: the run that logged it; None if unknown.
        path: the bundle on disk.
    """

    uri: str
    name: str | None
    version: str | None
    run_id: str | None
    path: str


def fetch(uri: str, folder: Path) -> Source:
    """Download the model at `uri` into `folder`.

    Raises:
        TrackingError: there is no such model, it is no bundle of this project, or the registry is away.
    """
    command = [sys.executable, "-m", "serving.registry", uri, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise TrackingError(
            f"fetching {uri} took longer than {FETCH_SECONDS} s; check that the tracking server answers."
        ) from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise TrackingError(f"{uri} cannot be loaded ({reason}); train first, or name a version that is there.")
    return Source(**json.loads(done.stdout.splitlines()[-1]))


def _download(uri: str, folder: Path) -> Source:
    import mlflow
    from mlflow import MlflowClient
    from mlflow.models import Model

    name, version, run_id = None, None, None
    pinned = uri
    if uri.startswith("models:/"):
        reference = uri.removeprefix("models:/")
        client = MlflowClient()
        if "@" in reference:
            found = client.get_model_version_by_alias(*reference.split("@", 1))
            pinned, name, version, run_id = (
                f"models:/{found.name}/{found.version}",
                found.name,
                found.version,
                found.run_id,
            )
        elif "/" in reference:
            found = client.get_model_version(*reference.split("/", 1))
            name, version, run_id = found.name, found.version, found.run_id
    local = Path(mlflow.artifacts.download_artifacts(artifact_uri=pinned, dst_path=str(folder)))
    flavor = Model.load(local).flavors.get("python_function", {})
    if flavor.get("loader_module") != "ssad.bundle.pyfunc":
        raise ValueError("it is not a model of this project")
    version = None if version is None else str(version)
    return Source(uri, name, version, run_id, str(local / flavor["data"]))


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(_download(sys.argv[1], Path(sys.argv[2])))))
    except Exception as error:  # whatever MLflow raises; the parent makes one sentence of it
        print(" ".join(str(error).split())[:300], file=sys.stderr)
        sys.exit(1)
