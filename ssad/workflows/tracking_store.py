"""The store that runs and models are in: whether it can be used, and what is said of it where it cannot."""

from __future__ import annotations

import errno
import os
import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import requests
from filelock import FileLock
from mlflow.exceptions import MlflowException
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from ssad.errors import TrackingError, disk_is_full, reason_of, without_secrets

CONNECT_SECONDS = 15.0
"""How long a tracking server may stay silent at the start before that is an error."""

LEAST_SERVER = 3
"""Major version of MLflow that a server must have: before it none knew logged models."""

NOT_ALLOWED = "PERMISSION_DENIED"
"""How a server says that this account may not do what was asked."""

REMEDIES = {
    "UNAUTHENTICATED": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    NOT_ALLOWED: "this account may not do that, ask for the permission {permission} on the experiment and on "
    "the registered model with the experiment that it is from",
}
"""What to do about a refusal of the server's, by MLflow's code; of others its words tell."""

FAILURES = (OSError, MlflowException, SQLAlchemyError)
"""What a store or a disk that fails raises."""

NOT_THERE = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""How a store says that there is nothing of a name, or that it was deleted."""

LOOK_THERE = "see what is wrong there, and run again"

FILE_STORE = "MLFLOW_ALLOW_FILE_STORE"
"""What MLflow names where it refuses a tracking URI that is a folder of files."""


def check_server(uri: str) -> None:
    """Wait for a tracking server, up to `CONNECT_SECONDS`.

    Raises:
        TrackingError: it did not answer, or is of an older MLflow than `LEAST_SERVER`.
    """
    if urlparse(uri).scheme not in ("http", "https"):
        return
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=5)
            answer = requests.get(f"{uri.rstrip('/')}/version", timeout=5)
            break
        except requests.RequestException as error:
            if time.monotonic() > deadline:
                raise TrackingError(
                    f"no tracking server answers at {without_secrets(uri)} (waited {CONNECT_SECONDS:.0f} s); "
                    "start it, or set MLFLOW_TRACKING_URI to one that runs."
                ) from error
        time.sleep(0.5)
    version = re.match(r"(\d+)\.\d[\w.]*", answer.text)  # what stands before the server may answer by a page
    if answer.ok and version and int(version[1]) < LEAST_SERVER:
        raise TrackingError(
            f"the tracking server at {without_secrets(uri)} is MLflow {version[0]}; ssad needs {LEAST_SERVER} or newer."
        )


def make_database(uri: str) -> None:
    """Make the SQLite database of a tracking URI if it is not there: whole or not at all, by one process.

    MLflow has no lock around it: of two first runs in a new directory one would end in the middle of the tables. What
    a full disk or a signal leaves in the middle of them it neither uses nor mends, so they are made aside.

    Raises:
        OSError: it cannot be made, or be read and written.
    """
    database = make_url(uri).database if urlparse(uri).scheme == "sqlite" else None
    if not database or database == ":memory:":
        return
    with suppress(FileNotFoundError):
        if Path(database).stat().st_size:  # whole: another account's, whose lock this one may not open, may be shared
            if not os.access(database, os.R_OK | os.W_OK):  # MLflow would try for minutes
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), database)
            return
    with FileLock(f"{database}.lock"):  # beside it: the same from every directory
        if not Path(database).exists():
            made, (head, *query) = Path(f"{database}.new"), uri.split("?")
            made.unlink(missing_ok=True)  # of a process that was killed
            try:
                mlflow.MlflowClient("?".join([f"{head}.new", *query]))
                made.rename(database)
            finally:
                made.unlink(missing_ok=True)
        mlflow.MlflowClient(uri)


def explained(error: Exception, otherwise: str = LOOK_THERE) -> TrackingError:
    """What went wrong on the way, as one sentence; `otherwise` is what to do if nothing here knows better."""
    uri = without_secrets(mlflow.get_tracking_uri())
    if disk_is_full(error):
        return TrackingError(f"the disk of {_written_to(error, uri)} is full; make room and run again.")
    if isinstance(error, OSError) and error.filename is not None:
        return TrackingError(
            f"{error.filename} cannot be read or written ({error.strerror}); see that it can, and run again."
        )
    if FILE_STORE in str(error):
        return TrackingError(
            f"MLflow keeps no runs in a folder of files any more, as {uri} is; set MLFLOW_TRACKING_URI to a database "
            "(sqlite:///mlruns.db) or a server."
        )
    remedy = remedy_for(error, otherwise)
    return TrackingError(f"logging to {uri} failed ({without_secrets(reason_of(error))}); {remedy}.")


def remedy_for(error: Exception, otherwise: str, permission: str = "EDIT") -> str:
    """What to do about a failure of a store's: what mends a refusal of this account, else what the caller has.

    Args:
        error: what the store raised.
        otherwise: what to do if it is no refusal.
        permission: of MLflow's, that is enough for what was asked.
    """
    remedy = REMEDIES.get(getattr(error, "error_code", ""))
    return remedy.format(permission=permission) if remedy else otherwise


def _written_to(error: Exception, uri: str) -> str:
    """What was written where a disk is full: the file if the error names it, else all that it may be."""
    path = getattr(error, "filename2", None) or getattr(error, "filename", None)  # of a copy that which was to be
    if path is not None:
        return str(path)
    run = mlflow.active_run()
    artifacts = [without_secrets(run.info.artifact_uri)] if run else []
    return " or ".join([uri, *artifacts, tempfile.gettempdir()])
