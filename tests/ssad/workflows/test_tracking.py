"""The run of a command, and the store it is in."""

from __future__ import annotations

import errno
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sklearn.ensemble import IsolationForest

from ssad.datasets.table_rows import open_rows
from ssad.errors import DatasetError, TrackingError
from ssad.loggers.report import report_html
from ssad.workflows.registry import Registered
from ssad.workflows.summary import next_step
from ssad.workflows.tracking import ERROR, log_dataset, log_new_params, log_rows, project_elsewhere, tracked_run
from tests.conftest import PROJECT, default_store, small_disk
from tests.ssad.workflows.support import PROCESS_SECONDS, QUIET_LIBRARIES, environment, run_python

pytestmark = [*QUIET_LIBRARIES, pytest.mark.slow]

RUN = "from ssad.workflows.tracking import tracked_run\nwith tracked_run('main', system_metrics=False): pass"


def test_the_first_runs_of_a_directory_may_begin_together(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    together = [
        subprocess.Popen([sys.executable, "-c", RUN], cwd=tmp_path, env=environment(uri), stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=PROCESS_SECONDS)[1].decode() for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], said
    assert [run.info.status for run in MlflowClient(uri).search_runs(["0"])] == 3 * ["FINISHED"]


def test_a_disk_that_is_full_leaves_no_database_that_is_half_made(tmp_path: Path) -> None:
    with small_disk(tmp_path, "64k") as disk:
        uri = f"sqlite:///{disk}/mlflow.db"
        cut_off = run_python("-c", RUN, cwd=tmp_path, env=environment(uri))
        assert "full; make room and run again" in cut_off.stderr
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        again = run_python("-c", RUN, cwd=tmp_path, env=environment(uri))
        assert again.returncode == 0, again.stderr
        assert {path.name for path in disk.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def test_a_database_that_is_there_needs_no_lock_which_may_be_another_accounts(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    (tmp_path / "mlflow.db").touch()  # an empty one is made whole
    first = run_python("-c", RUN, cwd=tmp_path, env=environment(uri))
    assert first.returncode == 0, first.stderr
    (tmp_path / "mlflow.db.lock").unlink()
    (tmp_path / "mlflow.db.lock").mkdir()  # which cannot be opened, by root neither
    second = run_python("-c", RUN, cwd=tmp_path, env=environment(uri))
    assert second.returncode == 0, second.stderr
    assert len(MlflowClient(uri).search_runs(["0"])) == 2


def test_a_database_that_this_account_may_not_write_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "mlflow.db"
    database.write_bytes(b"of another account")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setattr("os.access", lambda *_: False)  # to root all files are open
    told = re.escape(f"{database} cannot be read or written (Permission denied); see that it can")
    with pytest.raises(TrackingError, match=told), tracked_run("main", system_metrics=False):
        pass


def test_a_machine_without_git_is_told_nothing_of_it(tmp_path: Path) -> None:
    done = run_python("-c", RUN, cwd=tmp_path, env=environment("sqlite:///runs.db", PATH=str(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert "git executable" not in done.stderr.lower()


def test_the_run_says_from_which_code_it_came(tracking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    with tracked_run("main", system_metrics=False) as run:
        pass
    tags = MlflowClient(tracking).get_run(run.info.run_id).data.tags
    assert re.fullmatch(r"[0-9a-f]{40}", tags["mlflow.source.git.commit"])
    assert tags["git.dirty"] in ("true", "false")
    assert tags["mlflow.project.entryPoint"] == "main"


def test_a_run_within_the_callers_own_is_its_child_and_ends_alone(tracking: str) -> None:
    with mlflow.start_run() as parent:
        with tracked_run("main", system_metrics=False) as child:
            pass
        with pytest.raises(DatasetError), tracked_run("evaluate", system_metrics=False) as failed:
            raise DatasetError("no rows.")
        with pytest.raises(KeyboardInterrupt), tracked_run("score", system_metrics=False) as killed:
            raise KeyboardInterrupt
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == parent.info.run_id
        mlflow.log_param("goes", "on")
    ended = [MlflowClient(tracking).get_run(run.info.run_id) for run in (child, failed, killed, parent)]
    assert [run.info.status for run in ended] == ["FINISHED", "FAILED", "KILLED", "FINISHED"]
    assert [run.data.tags.get(MLFLOW_PARENT_RUN_ID) for run in ended] == [*3 * [parent.info.run_id], None]


def test_what_libraries_log_by_themselves_is_no_part_of_a_run(tracking: str) -> None:
    mlflow.sklearn.autolog(silent=True)
    try:
        with tracked_run("main", system_metrics=False) as run:
            IsolationForest(n_estimators=2).fit([[0.0], [1.0]])
    finally:
        mlflow.sklearn.autolog(disable=True, silent=True)
    logged = MlflowClient(tracking).get_run(run.info.run_id)
    assert logged.data.params == {}
    assert not MlflowClient(tracking).search_logged_models([logged.info.experiment_id])


def test_the_source_of_a_run_is_the_command_that_it_is_of(
    tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = []
    command, nightly = str(tmp_path / "ssad"), str(tmp_path / "nightly.py")
    for program in (command, nightly):
        monkeypatch.setattr(sys, "argv", [program])
        for entry_point in ("main", "evaluate"):
            with tracked_run(entry_point, system_metrics=False) as run:
                pass
            sources.append(MlflowClient(tracking).get_run(run.info.run_id).data.tags["mlflow.source.name"])
    assert sources == ["ssad train", "ssad evaluate", nightly, nightly]


@pytest.mark.parametrize(
    ("source", "fetched"),
    [
        ("/srv/ssad", None),
        ("file:///srv/ssad", None),
        ("git@example.org:team/ssad.git", "git@example.org:team/ssad.git -v 0abc"),
        ("https://me:word@example.org/my ssad.git", "'https://example.org/my ssad.git' -v 0abc"),
    ],
)
def test_what_to_type_next_names_the_project_as_mlflow_run_fetched_it(
    tracking: str, source: str, fetched: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {"mlflow.source.name": source, "mlflow.source.type": "PROJECT", "mlflow.source.git.commit": "0abc"}
    opened = MlflowClient(tracking).create_run("0", tags=tags)
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    monkeypatch.setattr("ssad.workflows.tracking._run_in_its_folder", lambda: True)
    with tracked_run("main", system_metrics=False) as run:
        pass
    assert project_elsewhere(run) == fetched
    expected = f"Serve it:  mlflow run {fetched} --env-manager local -e serve -P model=models:/m@champion"
    assert (next_step(Registered("m", "1", ("champion",)), fetched) == expected) == bool(fetched)
    assert MlflowClient(tracking).get_run(run.info.run_id).data.tags["mlflow.source.name"] == source


@pytest.mark.parametrize(("of_caller", "named"), [(PROJECT, "None"), (Path("/"), str(PROJECT))])
def test_what_to_type_next_names_the_folder_of_a_project_that_was_run_from_another(
    tracking: str, monkeypatch: pytest.MonkeyPatch, of_caller: Path, named: str
) -> None:
    tags = {"mlflow.source.name": str(PROJECT), "mlflow.source.type": "PROJECT"}
    opened = MlflowClient(tracking).create_run("0", tags=tags)
    asked = (
        "import sys, mlflow; from ssad.workflows.tracking import project_elsewhere\n"
        "print(project_elsewhere(mlflow.get_run(sys.argv[1])))"
    )
    monkeypatch.chdir(of_caller)
    done = run_python("-c", asked, opened.info.run_id, cwd=PROJECT, env=environment(tracking))
    assert done.stdout.splitlines() == [named]


@pytest.mark.usefixtures("tracking")
def test_a_file_that_cannot_be_used_is_named_and_not_the_server(tmp_path: Path) -> None:
    sentence = r"x{300} cannot be read or written \(File name too long\)"
    with pytest.raises(TrackingError, match=sentence), tracked_run("main", system_metrics=False):
        (tmp_path / ("x" * 300)).stat()


def test_an_experiment_or_run_that_cannot_be_logged_to_is_told_with_what_named_it(
    tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(tracking)
    client.delete_experiment(client.create_experiment("gone"))
    for name, value, reason in (
        ("MLFLOW_EXPERIMENT_NAME", "", "Invalid experiment name: ''"),
        ("MLFLOW_EXPERIMENT_NAME", "gone", "Current state is deleted."),
        ("MLFLOW_EXPERIMENT_ID", "77", "Provide a valid experiment_id."),
        ("MLFLOW_RUN_ID", "abc", "Run with id=abc not found"),
    ):
        sentence = rf"{re.escape(reason)}\); name what is there by {name}, or unset that\.$"
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(TrackingError, match=sentence), tracked_run("main", system_metrics=False):
                pass
    client.delete_experiment("0")
    sentence = r"deleted\.\); name an experiment that is there by MLFLOW_EXPERIMENT_NAME\.$"
    with pytest.raises(TrackingError, match=sentence), tracked_run("main", system_metrics=False):
        pass


def test_a_folder_of_files_as_a_store_is_refused_with_what_to_use_instead(tmp_path: Path) -> None:
    sentence = (
        rf"as file:{tmp_path}/ml-runs is; set MLFLOW_TRACKING_URI to a database \(sqlite:///mlruns\.db\) or a server"
    )
    with default_store(f"file:{tmp_path}/ml-runs"), pytest.raises(TrackingError, match=sentence), tracked_run("main"):
        pass


def test_what_went_wrong_is_told_though_the_store_fails_after_it(tmp_path: Path) -> None:
    def fail() -> None:
        with tracked_run("main", system_metrics=False):
            with sqlite3.connect(tmp_path / "lost.db") as connection:
                connection.execute("drop table runs")
            connection.close()
            raise DatasetError("bad")

    with default_store(f"sqlite:///{tmp_path / 'lost.db'}"), pytest.raises(DatasetError, match=r"^bad$"):
        fail()


def test_a_full_disk_of_artifacts_is_named(tracking: str, full_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = MlflowClient(tracking).create_experiment("artifacts elsewhere", full_disk.as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    sentence = rf"^the disk of .*{full_disk}/\S+ .*is full; make room"
    with pytest.raises(TrackingError, match=sentence), tracked_run("main", system_metrics=False):
        mlflow.log_text("x" * 10_000, "large.txt")


def test_a_full_temporary_folder_is_named_where_the_report_copies_pictures(
    tracking: str, full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracked_run("main", system_metrics=False) as run:
        mlflow.log_text("x" * 10_000, "region_shares.svg")
    monkeypatch.setattr(tempfile, "tempdir", str(full_disk))
    sentence = rf"^the disk of {full_disk}/\w+ is full; make room"
    with pytest.raises(TrackingError, match=sentence), tracked_run("main", system_metrics=False):
        report_html(MlflowClient(tracking), run.info.run_id)


def test_a_disk_that_is_full_and_not_named_is_one_of_those_written_to(tracking: str) -> None:
    told = rf"^the disk of {tracking} or \S+artifacts or {tempfile.gettempdir()} is full"
    with pytest.raises(TrackingError, match=told), tracked_run("main", system_metrics=False):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_store_is_told_no_password_of_a_table(tracking: str) -> None:
    uri = "https://user:s3cret@host/t.csv"
    with suppress(DatasetError), tracked_run("main", system_metrics=False) as run:
        log_new_params(run, {"dataset": uri})
        log_dataset(pd.DataFrame({"x": [1.0]}), uri, "training")
        raise DatasetError(f"{uri} is gone.")
    told = MlflowClient(tracking).get_run(run.info.run_id)
    assert told.data.params["dataset"] == "https://host/t.csv"
    assert told.data.tags[ERROR] == "https://host/t.csv is gone."
    assert "s3cret" not in str(told.to_dictionary())


@pytest.mark.parametrize("in_files", [False, True])
def test_a_column_that_mlflow_has_no_type_for_hides_no_other(
    tracking: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, in_files: bool
) -> None:
    table = pd.DataFrame({"x": [0.5, None], "id": pd.Series([1, 2], dtype="uint64"), "flag": [True, False]})
    table.to_parquet(tmp_path / "rows.parquet")
    with mlflow.start_run() as run:
        if in_files:
            log_rows(open_rows(str(tmp_path / "rows.parquet")), str(tmp_path / "rows.parquet"), "training")
        else:
            log_dataset(table, "rows.csv", "training")
    inputs = MlflowClient(tracking).get_run(run.info.run_id).inputs
    assert inputs is not None
    columns = json.loads(str(inputs.dataset_inputs[0].dataset.schema))["mlflow_colspec"]
    assert [(column["name"], column["type"]) for column in columns] == [
        ("x", "double"),
        ("id", "any"),
        ("flag", "boolean"),
    ]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
