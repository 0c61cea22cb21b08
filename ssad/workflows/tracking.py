"""The MLflow run of an entry point: opened once, told where it came from, and closed with the truth."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.pandas_dataset import PandasDataset, from_pandas
from mlflow.entities import Run, SourceType
from mlflow.exceptions import MlflowException
from mlflow.types import ColSpec, Schema
from mlflow.utils.autologging_utils import disable_autologging
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_PROJECT_ENTRY_POINT,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
)

from ssad.datasets.table_rows import TableRows, frame_digest
from ssad.errors import SsadError, without_secrets
from ssad.workflows.cut_off import PROCESS, end_cut_off, fail_models, process_name
from ssad.workflows.signature import ANY
from ssad.workflows.stopping import Postponed, Stopped, end_now, heard_while_waiting, too_late_to_stop
from ssad.workflows.tracking_store import FAILURES, LOOK_THERE, NOT_THERE, check_server, explained, make_database

ENDING_SECONDS = 5.0
"""How long a run may take to be told that it ended."""

MLFLOW_DEFAULTS = {
    # Its own wait for many minutes on a server that is gone.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # MLflow's own interval, 10 s, would miss a short training.
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
    # A line for each of a hundred small files hides what is said beside it.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Without git MLflow's library for it says so on twenty lines; a run without a commit is well.
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Settings of MLflow's in place of its own defaults; what the user has set stays."""

PLACES = ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")
"""Where MLflow reads which experiment and run are meant."""

ERROR = "ssad.error"
"""Tag that says why a run came to no good end."""

VERBS = {"main": "train"}
"""Entry points that the command has another word for."""

DIGEST_LENGTH = 36
"""Characters of a digest that MLflow keeps."""

TYPED_ROWS = 1000
"""Rows that the logged types of columns are read from."""


@contextmanager
def tracked_run(entry_point: str, system_metrics: bool = True) -> Iterator[Run]:
    """The run that `mlflow run` opened, or a new one; FAILED if the body raises, KILLED if a signal ends it.

    Where the caller has a run of its own it is a child of that one. What libraries log by themselves is left out
    (`mlflow.autolog`): a forest that only starts a training would be a model of its run, beside the one it registers.

    Args:
        entry_point: its name in `MLproject`; a tag of the run, as `mlflow run` has it.
        system_metrics: whether to log the load of the machine meanwhile. Not around `mlflow.models.evaluate`:
            that imports libraries under a lock of MLflow's, which the monitor's own imports wait for, and the
            two have been seen to wait for each other.

    Raises:
        TrackingError: the server does not answer, or fails on the way; the disk is full.
    """
    told: SsadError | None = None
    places = [name for name in PLACES if name in os.environ]  # before MLflow takes the run's from it
    ends = nullcontext if entry_point == "main" else _ended_by_signals  # training looks after itself
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    check_server(mlflow.get_tracking_uri())
    tags = git_state() | {MLFLOW_PROJECT_ENTRY_POINT: entry_point, PROCESS: process_name(os.getpid())}
    signals = Postponed()  # while a run is opened, and others are looked for, one would leave it RUNNING
    try:
        make_database(mlflow.get_tracking_uri())
        signals.begin()
        # Progress and MLflow's own words go to standard error: a pipe that nobody reads ends no training.
        with (
            redirect_stdout(sys.stderr),
            disable_autologging(),
            mlflow.start_run(nested=True, tags=tags, log_system_metrics=system_metrics) as run,
        ):
            try:
                mlflow.set_tags(_source(run, entry_point))
                end_cut_off(mlflow.MlflowClient(), run.info.experiment_id)
                signals.end()
                signals.check()
                with ends(run.info.run_id):
                    yield run
                too_late_to_stop()
            except (SsadError, *FAILURES) as error:
                told = error if isinstance(error, SsadError) else explained(error)
                with suppress(MlflowException):  # the store may be what failed
                    mlflow.set_tag(ERROR, without_secrets(str(told)))
                raise
            except (Stopped, KeyboardInterrupt) as stop:
                mlflow.set_tag(ERROR, str(stop) or "stopped by SIGINT")
                mlflow.end_run("KILLED")
                fail_models(mlflow.MlflowClient(), run)
                raise
    except FAILURES as error:
        raise told or explained(error, _another_place(error, places)) from error
    finally:
        signals.end()


def _another_place(error: Exception, places: list[str]) -> str:
    """What to do about a run that cannot be opened, where such variables of the environment said in what experiment."""
    if getattr(error, "error_code", "") not in NOT_THERE:
        return LOOK_THERE
    if not places:
        return f"name an experiment that is there by {PLACES[0]}"
    return f"name what is there by {' and '.join(places)}, or unset that"


@contextmanager
def _ended_by_signals(run_id: str) -> Iterator[None]:
    """Meanwhile end this process for a signal though it is in a scoring graph that never ends."""

    def end(signum: int) -> None:
        tell_the_end(run_id, "KILLED", str(Stopped(signum)))
        end_now(128 + signum)

    with heard_while_waiting(end):
        yield


def tell_the_end(run_id: str | None, state: str, reason: str) -> None:
    """Say why this process ends, in its run too if that can be told soon; for one whose main thread nothing reaches."""
    print(f"ssad: {reason}", file=sys.stderr, flush=True)
    told = threading.Thread(target=_tell_run, args=(run_id, state, reason), daemon=True)
    told.start()
    told.join(ENDING_SECONDS)


def _tell_run(run_id: str | None, state: str, reason: str) -> None:
    if run_id:
        with suppress(Exception):  # the store may be what everything waits for
            client = mlflow.MlflowClient()
            client.set_tag(run_id, ERROR, reason)
            client.set_terminated(run_id, state)
            fail_models(client, client.get_run(run_id))


def git_state() -> dict[str, str]:
    """Commit and cleanness of the working tree, as tags; empty outside a repository."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {
            MLFLOW_GIT_COMMIT: commit,
            "git.dirty": str(bool(_git("status", "--porcelain"))).lower(),
        }
    except (OSError, subprocess.SubprocessError):
        return {}


def _source(run: Run, entry_point: str) -> dict[str, str]:
    """The command as what a run is from, where MLflow has its file alone: its list of runs tells what they did by it.

    Empty for another program's run, and for one that `mlflow run` opened, of which the entry point is shown.
    """
    tags = run.data.tags
    if tags.get(MLFLOW_SOURCE_TYPE) != SourceType.to_string(SourceType.LOCAL):
        return {}
    command = Path(tags.get(MLFLOW_SOURCE_NAME, "")).stem
    return {MLFLOW_SOURCE_NAME: f"ssad {VERBS.get(entry_point, entry_point)}"} if command == "ssad" else {}


def project_elsewhere(run: Run) -> str | None:
    """What `mlflow run` takes this project by: what it was fetched by with its commit, or its folder on this machine.

    None where `mlflow run` was typed in that folder, and where it was another command.
    """
    tags = run.data.tags
    uri = tags.get(MLFLOW_SOURCE_NAME, "")
    # What lies in a git repository of this machine is told as file://, what does not as its path.
    lies_here = Path(uri).is_absolute() or uri.startswith("file://")
    if tags.get(MLFLOW_SOURCE_TYPE) != SourceType.to_string(SourceType.PROJECT):
        return None
    if lies_here:
        return None if _run_in_its_folder() else shlex.quote(str(Path.cwd()))
    commit = tags.get(MLFLOW_GIT_COMMIT)
    return shlex.quote(without_secrets(uri)) + (f" -v {commit}" if commit else "")


def _run_in_its_folder() -> bool:
    """Whether the process that started this one, as `mlflow run`, is in the same folder; as far as can be seen."""
    try:
        return Path(psutil.Process(os.getppid()).cwd()) == Path.cwd()
    except psutil.Error:
        return True


def log_new_params(run: Run, params: Mapping[str, Any]) -> None:
    """Log parameters that the run does not have yet: `mlflow run` logs its own, and they cannot change."""
    known = mlflow.get_run(run.info.run_id).data.params
    new = {name: without_secrets(str(value)) for name, value in params.items() if name not in known}
    mlflow.log_params(new)


def log_dataset(rows: pd.DataFrame, source: str, context: str) -> PandasDataset:
    """Log a table as an input of the active run, with its digest: MLflow's own looks at the first rows alone.

    Metrics can be logged as of what it gives.

    Args:
        rows: what was used of it.
        source: where it came from: a name, path or URI.
        context: what it was used for: training, test, evaluation, recalibration, promotion.
    """
    source = without_secrets(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints on whole numbers and on sources MLflow cannot resolve
        dataset = from_pandas(
            rows, source=source, name=Path(source).stem or source, digest=frame_digest(rows)[:DIGEST_LENGTH]
        )
        dataset.schema = _types(dataset)
    mlflow.log_input(dataset, context=context)
    return dataset


def log_rows(rows: TableRows, source: str, context: str) -> None:
    """Likewise log rows that may lie in files; those are known by the digest of all files, and none is read in."""
    digest, source = rows.digest(), without_secrets(source)
    if digest is None:
        log_dataset(rows.frame(), source, context)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints on whole numbers and on sources MLflow can read in two ways
        head = from_pandas(rows.head(TYPED_ROWS), source=source, digest=digest[:DIGEST_LENGTH])
        dataset = _RowsInFiles(head.source, Path(source).stem, head.digest, _types(head))
    dataset.rows = len(rows)
    mlflow.log_input(dataset, context=context)


def _types(table: PandasDataset) -> Schema:
    """What MLflow takes the columns for, and `Any` those that it has no type for, as unsigned integers of 64 bits.

    For one of these it tells of none of the others by itself.
    """
    if table.schema:
        return table.schema
    columns = [PandasDataset(table.df[[name]], table.source, digest=table.digest).schema for name in table.df]
    named = zip(columns, table.df, strict=True)
    return Schema([types.inputs[0] if types else ColSpec(ANY, str(name)) for types, name in named])


class _RowsInFiles(MetaDataset):
    """What MLflow is told of rows that stay in their files."""

    rows: int

    @property
    def profile(self) -> dict[str, int]:
        return {"num_rows": self.rows}

    def to_dict(self) -> dict[str, str]:
        return super().to_dict() | {"profile": json.dumps(self.profile)}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
