"""A user's mistake is one sentence and exit status 2, and leaves nothing registered."""

from __future__ import annotations

import errno
import io
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from ssad import cli
from ssad.bundle import Drift
from ssad.datamodules import features
from ssad.workflows.evaluate import EvaluateResult
from ssad.workflows.train import TrainSettings, prepare
from tests.conftest import CommandLine, default_store, small_disk, small_table
from tests.ssad.workflows.support import QUIET_LIBRARIES, environment, free_port, run_python, web_server

pytestmark = QUIET_LIBRARIES

Refusal = Callable[..., str]


@pytest.fixture
def refusal(tracking: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Refusal]:
    """Run `ssad ...` in this process, which must refuse; gives the sentence. Much faster than a process each."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ssad", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr().err
        assert stopped.value.code == 2, captured
        return one_sentence(captured)

    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as the command line sets it
    levels = {name: logging.getLogger(name).level for name in ("ssad", "lightning.pytorch")}
    yield run
    assert_nothing_registered(tracking)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger("ssad").handlers.clear()
    logging.getLogger("ssad").propagate = True


def one_sentence(stderr: str) -> str:
    """The last line, which is the sentence; libraries' progress may stand above it, a traceback may not."""
    assert "Traceback" not in stderr
    sentence = stderr.strip().splitlines()[-1]
    assert sentence.startswith("ssad: ")
    assert stderr.count("ssad: ") == 1
    assert sentence.endswith((".", ")"))
    return sentence


def assert_nothing_registered(uri: str) -> None:
    if uri.startswith("http") or Path(uri.removeprefix("sqlite:///")).exists():
        client = MlflowClient(uri)
        assert list(client.search_model_versions()) == []
        assert [run.info.status for run in client.search_runs(["0"]) if run.info.status == "FINISHED"] == []


def written(tmp_path: Path, table: pd.DataFrame) -> str:
    table.to_csv(tmp_path / "table.csv", index=False)
    return str(tmp_path / "table.csv")


def test_a_file_that_is_not_there_is_named_with_the_catalogue(refusal: Refusal) -> None:
    sentence = refusal("train", "--dataset", "nothing.csv")
    assert "nothing.csv" in sentence
    assert "breast-cancer" in sentence


@pytest.mark.parametrize("name", ["garbage.parquet", "garbage.csv"])
def test_a_file_that_cannot_be_read_is_named(refusal: Refusal, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(128, 256)) * 20)
    assert name in refusal("train", "--dataset", str(tmp_path / name))


def test_an_empty_folder_is_named(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    assert "parts" in refusal("train", "--dataset", str(tmp_path / "parts"))


def test_no_dataset_at_all_is_refused(refusal: Refusal) -> None:
    assert "no dataset was named" in refusal("train", "--dataset", "")


def test_labels_of_one_class_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    sentence = refusal("train", "--dataset", written(tmp_path, small_table().assign(label="normal")))
    assert "one class" in sentence


def test_a_column_s_name_is_no_line_of_its_own(refusal: Refusal, tmp_path: Path) -> None:
    table = small_table().rename(columns={"x": "x\ndone \x1b[2J"})
    assert r"columns are x\ndone \x1b[2J, " in refusal(
        "train", "--dataset", written(tmp_path, table), "--label", "none"
    )


def test_labels_of_one_class_in_the_test_table_are_refused(refusal: Refusal, small: Path, tmp_path: Path) -> None:
    test = written(tmp_path, small_table().assign(label="normal"))
    assert "one class" in refusal("train", "--dataset", str(small), "--test-dataset", test)


def test_label_values_for_a_table_without_labels_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    table = written(tmp_path, small_table().drop(columns="label"))
    assert "no label column 'label'" in refusal("train", "--dataset", table, "--normal", "ok")


def test_labels_of_the_test_table_alone_may_be_named(tmp_path: Path) -> None:
    unlabelled = written(tmp_path, small_table().drop(columns="label"))
    labelled = tmp_path / "test.csv"
    small_table().replace({"label": {"normal": "ok"}}).to_csv(labelled, index=False)
    tables = prepare(TrainSettings(unlabelled, str(labelled), normal="ok"))
    assert tables.test_anomalous is not None
    assert tables.test_anomalous.sum() == (small_table()["label"] != "normal").sum()


@pytest.mark.parametrize("setting", ["--alpha", "--contamination"])
def test_a_first_confidence_with_what_leaves_rows_out_is_refused(refusal: Refusal, small: Path, setting: str) -> None:
    sentence = refusal("train", "--dataset", str(small), "--confidence", "known.csv", setting, "0.1")
    assert "confidence has a row for each training row" in sentence


@pytest.mark.parametrize("rows", [1, 9, 20])
def test_too_few_labelled_rows_are_refused(refusal: Refusal, tmp_path: Path, rows: int) -> None:
    labels = ["attack", *["normal"] * (rows - 1)] if rows > 1 else ["normal"]
    sentence = refusal("train", "--dataset", written(tmp_path, small_table().head(rows).assign(label=labels)))
    assert "rows" in sentence


def test_too_few_unlabelled_rows_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    sentence = refusal("train", "--dataset", written(tmp_path, small_table().head(9).drop(columns="label")))
    assert "9 training rows are too few" in sentence


@pytest.mark.parametrize("value", ["0.7", "0.5", "-0.1", "nan", "inf"])
def test_a_contamination_out_of_its_range_is_refused(refusal: Refusal, small: Path, value: str) -> None:
    sentence = refusal("train", "--dataset", str(small), "--contamination", value)
    assert "contamination must be in [0, 0.5)" in sentence
    assert value in sentence


def test_a_contamination_that_is_no_number_is_refused(refusal: Refusal, small: Path) -> None:
    assert "'much'" in refusal("train", "--dataset", str(small), "--contamination", "much")


def test_the_contamination_that_the_sentence_offers_is_accepted(refusal: Refusal, small: Path) -> None:
    offered = refusal("train", "--dataset", str(small), "--contamination", "0.4").split("at most ")[1].split()[0]
    assert len(prepare(TrainSettings(str(small), contamination=float(offered))).train) > 100


def test_contamination_without_labels_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    path = written(tmp_path, small_table().drop(columns="label"))
    assert "no label column" in refusal("train", "--dataset", path, "--contamination", "0.1")


def test_an_unknown_detector_names_the_nearest(refusal: Refusal, small: Path) -> None:
    assert "did you mean 'radon'?" in refusal("train", "--dataset", str(small), "--detector", "RADON")


def test_a_loss_that_is_not_finite_names_the_epoch(refusal: Refusal, small: Path, tracking: str) -> None:
    sentence = refusal("train", "--dataset", str(small), "--learning-rate", "1e30", "--max-epochs", "3")
    assert "at epoch" in sentence
    assert "learning rate" in sentence
    (run,) = MlflowClient(tracking).search_runs(["0"])
    assert run.info.status == "FAILED"
    assert run.data.tags["ssad.error"] in sentence


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-epochs", "0"),
        ("--max-epochs", "abc"),
        ("--max-epochs", "1.5"),
        ("--learning-rate", "nan"),
        ("--model-name", "a/b"),
        ("--model-name", "a@b"),
        ("--model-name", "a?b"),
        ("--model-name", 257 * "a"),
        ("--model-name", ""),
    ],
)
def test_a_setting_out_of_its_range_is_named(refusal: Refusal, small: Path, option: str, value: str) -> None:
    sentence = refusal("train", "--dataset", str(small), option, value)
    assert option.removeprefix("--").replace("-", "_") in sentence
    assert value in sentence


def test_a_models_name_that_cannot_be_printed_is_refused(refusal: Refusal, small: Path) -> None:
    sentence = refusal("train", "--dataset", str(small), "--model-name", "a\tb")
    assert "printable characters" in sentence


@pytest.mark.parametrize("arguments", [["train"], ["serve", "--port", "abc"], ["train", "--dataset"], ["tarin"]])
def test_a_wrong_call_exits_with_status_2_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ssad", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_label_column_asked_for_by_name_that_is_missing_is_named(refusal: Refusal, small: Path) -> None:
    sentence = refusal("train", "--dataset", str(small), "--label", "verdict")
    assert "'verdict'" in sentence
    assert "kind" in sentence


def test_a_confidence_of_another_length_says_both_lengths(refusal: Refusal, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "confidence.csv"
    pd.DataFrame({"confidence": np.ones(200)}).to_csv(path, index=False)  # of the table, held-out rows among it
    sentence = refusal("train", "--dataset", str(small), "--confidence", str(path))
    assert "200 rows" in sentence
    assert "140 training rows" in sentence


def test_the_test_table_may_not_lack_a_column(refusal: Refusal, small: Path, tmp_path: Path) -> None:
    test = written(tmp_path, small_table().drop(columns="y"))
    sentence = refusal("train", "--dataset", str(small), "--test-dataset", test)
    assert f"the test table {test} lacks columns y" in sentence


def test_the_test_table_may_lack_what_is_not_learned_from(small: Path, tmp_path: Path) -> None:
    table = pd.read_csv(small).assign(same=1.0)
    table.to_csv(small, index=False)
    test = written(tmp_path, table.drop(columns="same"))
    assert prepare(TrainSettings(str(small), test_dataset=test)).test is not None


def test_a_word_among_the_test_tables_numbers_is_said_to_be_there(
    refusal: Refusal, small: Path, tmp_path: Path
) -> None:
    test = written(tmp_path, small_table().astype({"y": object}).replace({"y": {small_table()["y"][0]: "wide"}}))
    sentence = refusal("train", "--dataset", str(small), "--test-dataset", test, "--max-epochs", "1")
    assert "the test table does not fit the training table: row 0, column 'y'" in sentence


def test_serving_a_model_that_is_not_there_is_refused(refusal: Refusal) -> None:
    assert "models:/ssad@champion cannot be loaded" in refusal("serve")


@pytest.mark.parametrize("uri", ["models:/other/7", "nowhere", "runs:/0123/model"])
def test_serving_a_uri_that_leads_nowhere_is_refused(refusal: Refusal, uri: str) -> None:
    assert uri in refusal("serve", "--model", uri)


def test_what_is_served_and_where_comes_from_the_environment_too(
    refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSAD_SERVE_MODEL", "models:/elsewhere@champion")
    assert "models:/elsewhere@champion" in refusal("serve")
    assert "models:/other/7" in refusal("serve", "--model", "models:/other/7")
    monkeypatch.setenv("SSAD_SERVE_HOST", "256.1.1.1")
    monkeypatch.setenv("SSAD_SERVE_PORT", "1")
    assert "256.1.1.1, port 1" in refusal("serve")


def test_a_tracking_server_that_does_not_answer_is_named_after_a_bounded_wait(
    refusal: Refusal, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    uri = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    monkeypatch.setattr("ssad.workflows.tracking_store.CONNECT_SECONDS", 1.0)  # as bounded as the real wait
    assert uri in refusal("train", "--dataset", str(small), "--max-epochs", "1")


class OldServer(BaseHTTPRequestHandler):
    """What a tracking server of MLflow 2 says."""

    def do_GET(self) -> None:  # the name that http.server asks for
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"2.22.0" if self.path == "/version" else b"OK")

    def log_message(self, *_: object) -> None:
        pass


def test_a_tracking_server_of_an_older_mlflow_is_refused_before_anything_is_read(
    refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    with web_server(OldServer) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        try:
            sentence = refusal("train", "--dataset", "nothing.csv")
        finally:
            mlflow.set_tracking_uri(before)
    assert f"the tracking server at {uri} is MLflow 2.22.0; ssad needs 3 or newer" in sentence


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--dataset", "caf\udce9.csv"),
        ("evaluate", "--dataset", "caf\udce9.csv"),
        ("score", "--dataset", "nothing.csv", "--output", "caf\udce9.csv"),
        ("serve", "--model", "caf\udce9.csv"),
    ],
)
def test_a_name_that_is_not_utf8_is_refused(refusal: Refusal, arguments: tuple[str, ...]) -> None:
    assert r"the name of 'caf\udce9.csv' is not UTF-8" in refusal(*arguments)


def test_standard_output_that_cannot_be_written_is_told_as_such() -> None:
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(
            [sys.executable, "-m", "ssad.cli", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert told.returncode == 2
    assert told.stderr == "ssad: standard output cannot be written (No space left on device).\n"


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    drift = Drift(3, 0.0, 0.0, {"price": 0.5, "weight": 2.0}, {}, {})
    regions = pd.DataFrame({"region": ["normal"], "rows": [3]})
    found = EvaluateResult("0", "models:/m/1", {"rows": 3, "max_column_psi": 2.0}, regions, drift)
    monkeypatch.setattr("ssad.workflows.evaluate.evaluate", lambda settings: found)
    monkeypatch.setattr(sys, "argv", ["ssad", "evaluate", "--dataset", "t.csv"])


@pytest.mark.usefixtures("evaluation")
def test_an_evaluation_names_the_column_that_moved_most(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out.splitlines()[-1].split(maxsplit=1) == ["max_column_psi", "2, of weight"]


@pytest.mark.usefixtures("evaluation")
def test_a_reader_that_leaves_after_the_first_line_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader(io.StringIO):
        def write(self, text: str) -> int:
            if self.getvalue():
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", Reader())
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0


def test_a_folder_that_was_deleted_is_told_as_such(
    refusal: Refusal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with monkeypatch.context() as inside:
        inside.chdir(gone)
        gone.rmdir()
        assert "the folder that this runs in was deleted" in refusal("evaluate", "--dataset", "t.csv")


def test_a_user_whom_the_system_does_not_know_gets_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOME")
    unknown = """
import pwd
def getpwuid(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
from ssad.cli import main
main()
"""
    done = run_python("-c", unknown, "serve", "--help", cwd=tmp_path, env=environment("sqlite:///runs.db"))
    assert done.returncode == 0, done.stderr
    assert "(~/.cache/ssad/serving)" in done.stdout


@pytest.mark.slow
def test_training_needs_no_stream_to_be_open(tracking: str, small: Path, tmp_path: Path) -> None:
    train = [sys.executable, "-m", "ssad.cli", "train", "--dataset", str(small), "--max-epochs", "1"]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    done = subprocess.run([*closed, *train], env=environment(tracking), check=False)
    assert done.returncode == 0
    assert [version.name for version in MlflowClient(tracking).search_model_versions()] == ["ssad"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "--dataset", "nothing.csv"], "models:/ssad@champion cannot be loaded"),
        (["score", "--dataset", "nothing.csv", "--output", "scores", "--engine", "sparc"], "did you mean 'spark'?"),
        (["recalibrate", "--dataset", "nothing.csv", "--force", "perhaps"], "force must be true or false"),
        (["recalibrate", "--dataset", "nothing.csv", "--max-abnormal", "7"], "max_abnormal must be in (0, 1]"),
        (["promote"], "no registered model 'ssad'"),
        (["promote", "--candidate", "ssad"], "expected a registered version"),
        (["promote", "--dry-run", "1"], "dry_run must be true or false"),
    ],
)
def test_a_mistake_in_a_models_life_is_one_sentence(refusal: Refusal, arguments: list[str], sentence: str) -> None:
    assert sentence in refusal(*arguments)


def test_mistakes_in_the_hardware_are_one_sentence(refusal: Refusal, small: Path) -> None:
    told = refusal("train", "--dataset", str(small), "--devices", "0", "--strategy", "dpp", "--precision", "8")
    assert "devices must be at least 1, got 0; " in told
    assert "did you mean 'ddp'?" in told
    assert "no precision '8'" in told


def test_a_folder_whose_features_cannot_be_kept_is_one_sentence(
    refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table").mkdir()
    small_table().to_parquet(tmp_path / "table" / "a.parquet")
    (tmp_path / "file").touch()
    monkeypatch.setattr(features, "IN_MEMORY_BYTES", 0)
    monkeypatch.setenv("SSAD_DATA", str(tmp_path / "file"))
    assert "cannot be written (Not a directory)" in refusal("train", "--dataset", str(tmp_path / "table"))


# The same through a real process, where what the interpreter itself prints would show.


@pytest.mark.slow
def test_a_mistake_in_a_real_process_is_one_sentence_and_nothing_else(command_line: CommandLine) -> None:
    done = command_line("train", "--dataset", "nothing.csv")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    one_sentence(done.stderr)


@pytest.fixture
def uploads(tracking: str, tmp_path: Path) -> Path:
    """A folder with a table, and beside it files that are called as modules which every verb imports."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    small_table().to_csv(folder / "rows.csv", index=False)
    for name in ("fastapi", "mlflow", "pandas", "pyarrow", "torch", "uvicorn"):
        (folder / f"{name}.py").write_text(f"raise BaseException('{name} of the uploads was run')")
    return folder


def in_uploads(uploads: Path, *arguments: str) -> str:
    """What `ssad`, started in that folder, says of a mistake."""
    command = Path(sys.executable).parent / "ssad"
    done = run_python(str(command), *arguments, cwd=uploads, env=environment(os.environ["MLFLOW_TRACKING_URI"]))
    assert done.returncode == 2, done.stderr
    return one_sentence(done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "--dataset", "rows.csv", "--normal", "ok"), "'ok'"),
        (("evaluate", "--dataset", "rows.csv"), "models:/ssad@champion cannot be loaded"),
        (("recalibrate", "--dataset", "rows.csv"), "models:/ssad@champion cannot be loaded"),
        (("promote", "--dataset", "rows.csv"), "no registered model 'ssad'"),
        (("score", "--dataset", "rows.csv", "--output", "scored"), "models:/ssad@champion cannot be loaded"),
        (("serve",), "models:/ssad@champion cannot be loaded"),  # so says the process that it starts
    ],
)
def test_a_file_beside_a_table_is_never_run(uploads: Path, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in in_uploads(uploads, *arguments)


@pytest.mark.slow
def test_a_detector_of_ones_own_is_found_in_the_folder_after_what_is_installed(uploads: Path) -> None:
    (uploads / "own.py").write_text("import pandas\nOWN = pandas.DataFrame")
    benchmark = ("benchmark", "--suite", "adbench", "--data", ".", "--peers", "none", "--detectors")
    for arguments in (("train", "--dataset", "rows.csv", "--detector"), benchmark):
        assert "detector 'own:OWN' is of type type, expected a Preset" in in_uploads(uploads, *arguments, "own:OWN")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["64k", "1200k", "1600k"])
def test_a_full_disk_is_named_and_nothing_is_registered(
    refusal: Refusal, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    with small_disk(tmp_path, size) as disk:
        with default_store(f"sqlite:///{disk / 'mlflow.db'}"), monkeypatch.context() as patch:
            patch.chdir(disk)
            assert "full" in refusal("train", "--dataset", str(small), "--max-epochs", "1", "--detector", "radon")
        files = sorted(path.name for path in disk.iterdir())
        if "mlflow.db" in files and size != "64k":
            with sqlite3.connect(disk / "mlflow.db") as connection:
                assert connection.execute("select count(*) from model_versions").fetchone() == (0,)
            connection.close()
