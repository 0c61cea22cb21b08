"""Scores of tables of any size, on this machine and on Spark."""

from __future__ import annotations

import errno
import shutil
import signal
import sys
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

import ssad
from ssad import AnomalyDetector
from ssad.bundle import Bundle
from ssad.bundle.intervals import SCORE_TOLERANCE
from ssad.datasets import stream as streams
from ssad.errors import DatasetError, RowsError, SettingsError, SsadError
from ssad.workflows import score as scoring
from ssad.workflows.cut_off import RESUMED_BY, RESUMES
from ssad.workflows.output_folder import finish
from ssad.workflows.registry import fetch_model, log_bundle, register
from ssad.workflows.score import ScoreSettings, score
from ssad.workflows.score_spark import for_spark
from ssad.workflows.signature import describe_rows
from ssad.workflows.train import TrainSettings, prepare
from tests.ssad.workflows.support import QUIET_SPARK, environment, file_server, run_python

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = QUIET_SPARK

CHAMPION = "models:/ssad@champion"
ROWS, BATCH, PART = 1000, 40, 6


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and parts so small that a small table has many."""
    monkeypatch.setattr(streams, "BATCH_ROWS", BATCH)
    monkeypatch.setattr(scoring, "BATCH_ROWS", BATCH)
    monkeypatch.setattr(scoring, "PART_BATCHES", PART)


@pytest.fixture
def rows() -> pd.DataFrame:
    test = prepare(TrainSettings("breast-cancer")).test
    assert test is not None
    many = test.frame().sample(ROWS, replace=True, random_state=0).reset_index(drop=True)
    return many.assign(number=np.arange(ROWS))


@pytest.fixture
def dataset(rows: pd.DataFrame, tmp_path: Path) -> str:
    rows.to_parquet(tmp_path / "rows.parquet", row_group_size=300)
    return str(tmp_path / "rows.parquet")


def settings(dataset: str, tmp_path: Path, **more: Any) -> ScoreSettings:
    return ScoreSettings(CHAMPION, dataset, str(tmp_path / "scores"), **more)


def cut_off(dataset: str, tmp_path: Path) -> None:
    """A scoring that is interrupted when all its parts are written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "finish", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            score(settings(dataset, tmp_path), progress=False)


def assert_scores(output: Path, bundle: Bundle, rows: pd.DataFrame) -> None:
    found, expected = pd.read_parquet(output), bundle.score(rows)
    at_once = vars(streams)["BATCH_ROWS"]  # of fewer rows a product is added up otherwise
    batches = [bundle.score(rows.iloc[start : start + at_once]) for start in range(0, len(rows), at_once)]
    assert found["score"].to_numpy() == pytest.approx(np.concatenate([b.score for b in batches]), rel=1e-12)
    assert found["score"].to_numpy() == pytest.approx(expected.score, rel=SCORE_TOLERANCE)
    assert found["confidence"].to_numpy() == pytest.approx(np.concatenate([b.confidence for b in batches]), abs=1e-12)
    assert found["region"].tolist() == expected.region.tolist()


@pytest.mark.every_back_end
@pytest.mark.usefixtures("small_parts")
def test_every_row_is_scored_in_order_with_its_version(
    champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path
) -> None:
    result = score(settings(dataset, tmp_path, keep="number"), progress=False)
    output = tmp_path / "scores"
    assert_scores(output, champion, rows)
    found = pd.read_parquet(output)
    assert list(found) == ["number", "score", "confidence", "region", "model_version"]
    assert found["number"].tolist() == list(range(ROWS))
    assert set(found["model_version"]) == {"1"}
    assert result.rows == {region: int((found["region"] == region).sum()) for region in result.rows}
    assert {path.name for path in output.iterdir()} == {f"part-{n:05}.parquet" for n in range(5)} | {"_SUCCESS"}
    assert not (tmp_path / "scores.partial").exists()


@pytest.mark.usefixtures("champion")
def test_what_is_kept_keeps_its_type_and_is_not_told_as_ignored(
    rows: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen = pd.Timestamp("2024-01-01", tz="Asia/Tokyo")
    rows.assign(took=pd.Timedelta(3, "s"), seen=seen, day=date(2024, 1, 1)).to_parquet(tmp_path / "rows.parquet")
    score(settings(str(tmp_path / "rows.parquet"), tmp_path, keep="took,seen,day"), progress=False)
    given, found = (
        pq.read_table(tmp_path / name, columns=["took", "seen", "day"]) for name in ("rows.parquet", "scores")
    )
    assert found.equals(given)
    assert "ignored" not in caplog.text


def test_the_run_says_what_scored_and_how_many_rows(
    own_store: MlflowClient, champion: Bundle, dataset: str, tmp_path: Path
) -> None:
    result = score(settings(dataset, tmp_path), progress=False)
    run = own_store.search_runs(["0"], order_by=["start_time DESC"], max_results=1)[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["model"] == result.model == "models:/ssad/1"
    assert run.data.params["dataset"] == dataset
    assert sum(run.data.metrics[f"rows_{region}"] for region in result.rows) == ROWS


@pytest.mark.usefixtures("small_parts")
def test_an_interrupted_scoring_goes_on_where_it_was(
    champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, partial = tmp_path / "scores", tmp_path / "scores.partial"
    score_batch, scored = scoring.score_batch, []

    def counted(batch: pa.RecordBatch, *arguments: Any) -> pa.RecordBatch:
        scored.append(len(batch))
        if batch.column("number")[0].as_py() >= 600 and len(scored) <= ROWS // BATCH:
            raise KeyboardInterrupt
        return score_batch(batch, *arguments)

    monkeypatch.setattr(scoring, "score_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        score(settings(dataset, tmp_path, keep="number"), progress=False)
    assert not output.exists()
    assert not (partial / "_SUCCESS").exists()
    assert len(list(partial.glob("part-*"))) == 2
    (partial / "_part-00002.parquet").write_bytes(b"half a part")

    scored[:] = [0] * ROWS
    score(settings(dataset, tmp_path, keep="number"), progress=False)
    assert sum(scored) == ROWS - 2 * PART * BATCH
    assert_scores(output, champion, rows)
    assert not list(output.glob("_part*"))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("changed", [False, True])
def test_an_interrupted_scoring_of_a_fetched_table_goes_on_if_it_is_the_same_as_then(
    champion: Bundle,
    rows: pd.DataFrame,
    dataset: str,
    tmp_path: Path,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: bool,
) -> None:
    write_parts, done = scoring._write_parts, []

    def counted(partial: Path, *arguments: Any) -> None:
        done.append(len(list(partial.glob("part-*"))))
        write_parts(partial, *arguments)
        if len(done) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "_write_parts", counted)
    with file_server(tmp_path) as (address, asked):
        with pytest.raises(KeyboardInterrupt):
            score(settings(f"{address}/rows.parquet", tmp_path), progress=False)
        if changed:
            rows = rows[::-1].reset_index(drop=True)
        rows.to_parquet(dataset, row_group_size=300)  # a new file, whether its content is new or not
        score(settings(f"{address}/rows.parquet", tmp_path), progress=False)
    assert done == [0, 0 if changed else 5]
    assert asked == ["/rows.parquet"] * 2
    assert_scores(tmp_path / "scores", champion, rows)
    assert not list(temporary.glob("ssad-*"))


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_a_scoring_that_is_killed_leaves_no_output_and_goes_on(
    own_store: MlflowClient, champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path
) -> None:
    output, partial = tmp_path / "scores", tmp_path / "scores.partial"
    program = f"""
import os, signal
from ssad.datasets import stream
from ssad.workflows import score as scoring
stream.BATCH_ROWS, scoring.BATCH_ROWS, scoring.PART_BATCHES = {BATCH}, {BATCH}, {PART}
whole, scored = scoring.score_batch, []
def killed(batch, *arguments):
    scored.append(len(batch))
    if len(scored) == {2 * PART + 3}:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(batch, *arguments)
scoring.score_batch = killed
scoring.score(scoring.ScoreSettings({CHAMPION!r}, {dataset!r}, {str(output)!r}), progress=False)
"""
    done = run_python("-c", program, cwd=tmp_path, env=environment(own_store._tracking_client.tracking_uri))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not output.exists()
    assert len(list(partial.glob("part-*"))) == 2
    (killed,) = (run.info.run_id for run in own_store.search_runs(["0"]) if run.info.status == "RUNNING")
    score(settings(dataset, tmp_path), progress=False)
    assert_scores(output, champion, rows)
    assert not partial.exists()
    resumed, left = own_store.search_runs(["0"], max_results=1)[0], own_store.get_run(killed)
    assert (left.info.status, left.data.tags[RESUMED_BY]) == ("KILLED", resumed.info.run_id)
    assert (resumed.info.status, resumed.data.tags[RESUMES]) == ("FINISHED", killed)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("change", ["keep", "table"])
def test_another_job_does_not_go_on_with_what_is_there(
    champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path, change: str
) -> None:
    cut_off(dataset, tmp_path)
    assert len(list((tmp_path / "scores.partial").glob("part-*"))) == 5
    if change == "table":
        rows = rows[::-1].reset_index(drop=True)
        rows.to_parquet(dataset)
    score(settings(dataset, tmp_path, keep="number" if change == "keep" else ""), progress=False)
    assert_scores(tmp_path / "scores", champion, rows)
    assert ("number" in pd.read_parquet(tmp_path / "scores")) == (change == "keep")


@pytest.mark.usefixtures("small_parts")
def test_a_run_that_left_what_another_job_deletes_has_ended_and_nothing_goes_on_with_it(
    own_store: MlflowClient, champion: Bundle, dataset: str, tmp_path: Path
) -> None:
    cut_off(dataset, tmp_path)
    before = own_store.search_runs(["0"], max_results=1)[0].info.run_id
    own_store.update_run(before, "RUNNING")  # as if nothing could have been said at its end
    score(settings(dataset, tmp_path, explain=1), progress=False)
    left = own_store.get_run(before)
    assert (left.info.status, left.data.tags.get(RESUMED_BY)) == ("KILLED", None)


@pytest.mark.usefixtures("small_parts")
def test_what_was_left_while_another_job_cleared_it_is_not_gone_on_with(
    champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, deleted = Path.unlink, []

    def interrupted(self: Path, *arguments: Any, **more: Any) -> None:
        if self.parent.name == "scores.partial":
            deleted.append(self.name)
            if len(deleted) == 3:
                raise KeyboardInterrupt
        unlink(self, *arguments, **more)

    cut_off(dataset, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            score(settings(dataset, tmp_path, explain=1), progress=False)
    assert len(list((tmp_path / "scores.partial").glob("part-*"))) == 3
    score(settings(dataset, tmp_path), progress=False)
    assert_scores(tmp_path / "scores", champion, rows)


def test_a_signal_comes_too_late_once_the_output_gets_its_name(
    own_store: MlflowClient, champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path
) -> None:
    """Sent at the rename, it is heard by none: the output is there, and the run says so."""
    program = f"""
import os, signal
from pathlib import Path
from ssad.workflows.score import ScoreSettings, score
from ssad.workflows.stopping import stop_by_signals
stop_by_signals()
rename = Path.rename
def signalled(self, target):
    os.kill(os.getpid(), signal.SIGTERM if self.name == "scores.partial" else 0)
    return rename(self, target)
Path.rename = signalled
score(ScoreSettings({CHAMPION!r}, {dataset!r}, "scores"), progress=False)
"""
    run_python("-c", program, cwd=tmp_path, env=environment(own_store._tracking_client.tracking_uri)).check_returncode()
    assert_scores(tmp_path / "scores", champion, rows)
    assert own_store.search_runs(["0"], max_results=1)[0].info.status == "FINISHED"


@pytest.mark.usefixtures("small_parts")
def test_a_scoring_whose_last_step_failed_goes_on(
    champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if self.name == "scores.partial":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises((SsadError, OSError), match=r"No space left|disk is full"):
            score(settings(dataset, tmp_path), progress=False)
    score(settings(dataset, tmp_path), progress=False)
    assert_scores(tmp_path / "scores", champion, rows)
    assert not {"_job.json", "_lock"} & {path.name for path in (tmp_path / "scores").iterdir()}


@pytest.mark.usefixtures("champion")
def test_what_somebody_else_put_in_the_way_is_not_deleted(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "scores.partial").mkdir()
    (tmp_path / "scores.partial" / "notes.txt").write_text("precious")
    with pytest.raises(SettingsError, match=r"scores\.partial exists and is not what an interrupted"):
        score(settings(dataset, tmp_path), progress=False)
    assert (tmp_path / "scores.partial" / "notes.txt").read_text() == "precious"


@pytest.mark.usefixtures("small_parts")
def test_the_second_of_two_scorings_to_one_output_stops(
    champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fetch_model(str(champion.path), tmp_path)

    def meanwhile(*arguments: Any) -> None:
        with pytest.raises(SettingsError, match=r"another process is scoring to .*scores at this moment"):
            scoring.score_locally(settings(dataset, tmp_path, keep="number"), model, progress=False)
        finish(*arguments)

    monkeypatch.setattr(scoring, "finish", meanwhile)
    score(settings(dataset, tmp_path), progress=False)
    assert_scores(tmp_path / "scores", champion, rows)


def test_a_scoring_that_looked_before_another_had_ended_scores_nothing(
    champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fetch_model(str(champion.path), tmp_path)
    score(settings(dataset, tmp_path), progress=False)
    monkeypatch.delattr(scoring, "_write_parts")
    with pytest.raises(SettingsError, match=r"scores exists already; name another output"):
        scoring.score_locally(settings(dataset, tmp_path, keep="number"), model, progress=False)
    assert_scores(tmp_path / "scores", champion, rows)
    assert not (tmp_path / "scores.partial").exists()


@pytest.mark.usefixtures("small_parts")
def test_what_appears_under_the_name_meanwhile_is_left_and_so_is_what_was_scored(
    champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*arguments: Any) -> None:
        (tmp_path / "scores").write_text("precious")
        finish(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "finish", meanwhile)
        with pytest.raises(SettingsError, match=r"scores exists already"):
            score(settings(dataset, tmp_path), progress=False)
    assert (tmp_path / "scores").read_text() == "precious"
    (tmp_path / "scores").unlink()
    monkeypatch.setattr(scoring, "score_batch", None)  # all of it is there
    score(settings(dataset, tmp_path), progress=False)
    assert_scores(tmp_path / "scores", champion, rows)


@pytest.mark.usefixtures("champion")
def test_an_output_among_the_rows_is_refused(rows: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    rows.to_parquet(tmp_path / "table" / "rows.parquet")
    with pytest.raises(SettingsError, match="must not lie in the dataset's folder"):
        ScoreSettings(CHAMPION, str(tmp_path / "table"), str(tmp_path / "table" / "scored"))


def test_an_output_may_have_a_colon_in_its_name(
    champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    score(ScoreSettings(CHAMPION, dataset, "scores:friday"), progress=False)
    assert_scores(tmp_path / "scores:friday", champion, rows)


def test_an_explained_row_names_the_columns_that_contribute_most(
    champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path
) -> None:
    score(settings(dataset, tmp_path, explain=3), progress=False)
    found, errors = pd.read_parquet(tmp_path / "scores"), champion.errors(rows)
    for at in range(0, ROWS, 97):
        names = [champion.schema.graph_order[column] for column in np.argsort(-errors[at], kind="stable")[:3]]
        assert found["contributors"][at].tolist() == names
        assert found["contributor_shares"][at] == pytest.approx(np.sort(errors[at] / errors[at].sum())[::-1][:3])


def test_a_bundles_folder_scores_without_a_version(
    own_store: MlflowClient, champion: Bundle, rows: pd.DataFrame, dataset: str, tmp_path: Path
) -> None:
    score(ScoreSettings(str(champion.path), dataset, str(tmp_path / "scores")), progress=False)
    assert_scores(tmp_path / "scores", champion, rows)
    assert pd.read_parquet(tmp_path / "scores")["model_version"].isna().all()


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize(
    ("more", "error", "sentence"),
    [
        ({"engine": "sparc", "explain": -1}, SettingsError, "did you mean 'spark'.* explain must be at least 0"),
        ({"output": "s3://bucket/scores"}, SettingsError, "engine local writes to a folder's path"),
        ({"dataset": "nothing.csv"}, DatasetError, "there is no file"),
        ({"keep": "numbre"}, DatasetError, "no column 'numbre'"),
        ({"keep": "Score"}, SettingsError, r"keep must not name .* \(Score\)"),
        ({"model": "models:/ssad/77"}, SsadError, "models:/ssad/77 cannot be loaded"),
        ({"model": "models:/ssad@best"}, SsadError, "best"),
        ({"model": "nowhere"}, SsadError, "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    more: dict[str, Any], error: type[Exception], sentence: str, dataset: str, tmp_path: Path
) -> None:
    arguments = {"model": CHAMPION, "dataset": dataset, "output": str(tmp_path / "scores")} | more
    with pytest.raises(error, match=sentence):
        score(ScoreSettings(**arguments), progress=False)
    assert not list(tmp_path.glob("scores*"))


@pytest.mark.usefixtures("own_store")
def test_nothing_is_written_over(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    with pytest.raises(SettingsError, match="exists already"):
        score(settings(dataset, tmp_path), progress=False)
    assert list((tmp_path / "scores").iterdir()) == []


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize("lost", ["rows", "column"])
def test_a_table_without_rows_or_without_a_column_leaves_nothing(rows: pd.DataFrame, tmp_path: Path, lost: str) -> None:
    rows = rows.iloc[:0] if lost == "rows" else rows.drop(columns="mean radius")
    rows.to_parquet(tmp_path / "lost.parquet")
    with pytest.raises(DatasetError, match="no rows" if lost == "rows" else "mean radius"):
        score(settings(str(tmp_path / "lost.parquet"), tmp_path), progress=False)
    assert not (tmp_path / "scores").exists()


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize("row", [5000, 70_000])
def test_a_row_that_does_not_fit_is_named_by_its_place_in_the_table(
    rows: pd.DataFrame, tmp_path: Path, row: int
) -> None:
    many = pd.concat([rows] * 71, ignore_index=True).astype({"mean radius": object})
    many.loc[row, "mean radius"] = "wide"
    many.astype({"mean radius": str}).to_parquet(tmp_path / "many.parquet")
    with pytest.raises(RowsError, match=f"^row {row}, column 'mean radius'"):
        score(settings(str(tmp_path / "many.parquet"), tmp_path), progress=False)


@pytest.fixture(scope="module")
def spark_here() -> Iterator[None]:
    """Spark can run, on this machine alone."""
    pytest.importorskip("pyspark", reason="engine=spark needs it")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        yield


@pytest.fixture(scope="module")
def notebook(spark_here: None) -> Iterator[SparkSession]:
    """The session of a notebook, beside which scoring has one of its own; the tests from here on are in it."""
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    yield spark
    spark.stop()


@pytest.mark.slow
@pytest.mark.every_back_end
@pytest.mark.usefixtures("own_store", "spark_here")
def test_spark_workers_give_the_same_rows_the_same_scores(dataset: str, tmp_path: Path) -> None:
    two_workers = "local-cluster[2,1,1024]"
    local = ScoreSettings(CHAMPION, dataset, str(tmp_path / "local"), explain=2, keep="number")
    with file_server(tmp_path) as (address, _):
        served = f"{address}/{Path(dataset).name}"
        spark = ScoreSettings(CHAMPION, served, str(tmp_path / "spark"), "spark", 2, "number", two_workers)
        assert score(spark).rows == score(local, progress=False).rows
    expected, found = (pd.read_parquet(tmp_path / name).set_index("number").sort_index() for name in ("local", "spark"))
    assert found["score"].to_numpy() == pytest.approx(expected["score"].to_numpy(), rel=1e-9)
    assert found["confidence"].to_numpy() == pytest.approx(expected["confidence"].to_numpy(), abs=1e-9)
    for name in ("region", "model_version"):
        assert found[name].tolist() == expected[name].tolist()
    for name in ("contributors", "contributor_shares"):
        assert [list(v) for v in found[name]] == [pytest.approx(list(v)) for v in expected[name]]
    assert (tmp_path / "spark" / "_SUCCESS").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_signal_ends_spark_in_the_middle_of_a_job_and_leaves_no_output(
    own_store: MlflowClient, spark_here: None, dataset: str, tmp_path: Path
) -> None:
    """Sent when the job has begun to write, while this process waits for the JVM's answer."""
    program = """
import os, signal, sys, threading
from pathlib import Path
from ssad import cli

def send():
    while not Path("scores.partial/scores/_temporary").exists():
        threading.Event().wait(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=send, daemon=True).start()
cli.main()
"""
    command = ["score", "--engine", "spark", "--spark-master", "local[1]", "--dataset", dataset, "--output", "scores"]
    done = run_python("-c", program, *command, cwd=tmp_path, env=environment(own_store._tracking_client.tracking_uri))
    assert done.returncode == 143, done.stderr
    assert done.stderr.endswith("ssad: stopped by SIGTERM\n")
    assert "Traceback" not in done.stderr
    assert "\tat org.apache.spark" not in done.stderr
    assert own_store.search_runs(["0"], max_results=1)[0].info.status == "KILLED"
    assert not list(tmp_path.glob("scores*"))


@pytest.mark.usefixtures("own_store")
def test_spark_workers_run_no_code_of_the_artifact_store(tmp_path: Path) -> None:
    logged = fetch_model(CHAMPION, tmp_path / "fetched").logged
    assert logged is not None
    for name in ("ssad/bundle/pyfunc.py", "ssad/more.py", "pandas.py"):
        (logged / "code" / name).write_text("raise SystemExit")
    code = for_spark(logged, tmp_path / "copy") / "code"
    installed = Path(ssad.__file__).parent
    assert [path.name for path in code.iterdir()] == ["ssad"]
    assert (code / "ssad" / "bundle" / "pyfunc.py").read_bytes() == (installed / "bundle" / "pyfunc.py").read_bytes()
    assert not (code / "ssad" / "more.py").exists()
    assert mlflow.pyfunc.load_model(str(code.parent)).metadata.flavors["python_function"]["code"] == "code"


@pytest.mark.slow
@pytest.mark.usefixtures("own_store")
def test_the_pyfunc_scores_in_a_notebook_s_spark(champion: Bundle, rows: pd.DataFrame, notebook: SparkSession) -> None:
    from pyspark.sql.functions import struct

    columns = [column.name for column in champion.schema.columns]
    udf = mlflow.pyfunc.spark_udf(notebook, CHAMPION, env_manager="local")
    answered = notebook.createDataFrame(rows).select("number", udf(struct(*[f"`{c}`" for c in columns])).alias("says"))
    found, expected = answered.orderBy("number").select("says.*").toPandas(), champion.score(rows)
    assert found["score"].tolist() == pytest.approx(expected.score, rel=SCORE_TOLERANCE)
    assert found["confidence"].tolist() == pytest.approx(expected.confidence, abs=1e-4)
    assert found["region"].tolist() == expected.region.tolist()


@pytest.mark.slow
@pytest.mark.usefixtures("own_store")
def test_a_notebook_s_session_stays_as_it_was(dataset: str, tmp_path: Path, notebook: SparkSession) -> None:
    without = pd.read_parquet(dataset).drop(columns="mean radius")
    without.to_parquet(tmp_path / "without.parquet")
    with pytest.raises(DatasetError, match="mean radius"):
        score(ScoreSettings(CHAMPION, str(tmp_path / "without.parquet"), str(tmp_path / "no"), "spark"))
    assert notebook.conf.get("spark.sql.session.timeZone") == "Asia/Tokyo"
    assert notebook.range(3).count() == 3
    assert not list(tmp_path.glob("no*"))


@pytest.mark.slow
@pytest.mark.usefixtures("own_store", "notebook")
def test_spark_reads_gaps_moments_and_truth_values_as_the_local_engine_does(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    trained = pd.DataFrame({"size": generator.normal(size=300), "tries": generator.integers(0, 50, 300)})
    trained["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(generator.integers(0, 10**6, 300), unit="s")
    trained["open"], trained["kind"] = generator.random(300) < 0.5, generator.choice(["tcp", 'a "b"', "NA"], 300)
    AnomalyDetector(random_state=0, max_epochs=1).fit(trained).save(tmp_path / "bundle")
    described = describe_rows(Bundle(tmp_path / "bundle").schema, trained)
    with mlflow.start_run():
        register(log_bundle(tmp_path / "bundle", described), "gaps")
    table = trained.assign(row=range(300)).astype({"tries": "Int64", "open": "boolean"})
    for at, name in enumerate(trained):
        table.loc[at::7, name] = None
    table.loc[[1, 2, 9], "kind"] = [" NA ", "two\nlines", "  "]
    table = table.assign(KIND="other", when=table["when"].astype("datetime64[ns]"))
    table.to_parquet(tmp_path / "table.parquet")
    table.to_csv(tmp_path / "table.csv", index=False)
    table.iloc[:0].to_parquet(tmp_path / "bad.parquet")
    a_field_more_in_each_row = (tmp_path / "table.csv").read_text().replace("\n", ",\n").replace(",\n", "\n", 1)
    (tmp_path / "bad.csv").write_text(a_field_more_in_each_row)

    for suffix, refused in ((".parquet", "holds no rows"), (".csv", "Expected 7 columns, got 8")):
        found = []
        for engine in ("local", "spark"):
            output = str(tmp_path / f"{engine}{suffix}")
            dataset = str(tmp_path / f"table{suffix}")
            score(ScoreSettings("models:/gaps/1", dataset, output, engine, 0, "row"), progress=False)
            found.append(pd.read_parquet(output).astype({"row": int}).set_index("row").sort_index())
        assert found[1]["score"].tolist() == pytest.approx(found[0]["score"].tolist(), rel=1e-9)
        assert found[1]["region"].tolist() == found[0]["region"].tolist()
        with pytest.raises(DatasetError, match=refused):
            score(ScoreSettings("models:/gaps/1", str(tmp_path / f"bad{suffix}"), str(tmp_path / "no"), "spark"))
    assert not list(tmp_path.glob("no*"))


@pytest.mark.slow
@pytest.mark.usefixtures("champion", "notebook")
def test_spark_scores_every_file_of_a_folder(rows: pd.DataFrame, tmp_path: Path) -> None:
    rows = rows.reset_index(drop=True).assign(number=range(len(rows)), seen=pd.Timestamp("2024-01-01", tz="Asia/Tokyo"))
    (tmp_path / "table" / "below").mkdir(parents=True)
    rows.head(100).drop(columns="mean area").to_parquet(tmp_path / "table" / "a.parquet")
    rows[100:].to_parquet(tmp_path / "table" / "below" / "b.parquet")
    found = {}
    for engine in ("local", "spark"):
        dataset, output = str(tmp_path / "table"), tmp_path / engine
        score(ScoreSettings(CHAMPION, dataset, str(output), engine, keep="number,seen"), progress=False)
        found[engine] = pd.read_parquet(output).set_index("number").sort_index()
    assert found["spark"]["score"].tolist() == pytest.approx(found["local"]["score"].tolist(), rel=1e-9)
    assert (found["spark"]["seen"] == found["local"]["seen"]).all()


@pytest.mark.usefixtures("champion", "notebook")
@pytest.mark.parametrize(("dataset", "output"), [("rows[1]", "scores"), ("rows1", "scores{1}")])
def test_a_path_that_spark_takes_for_a_pattern_is_refused(
    dataset: str, output: str, rows: pd.DataFrame, tmp_path: Path
) -> None:
    rows.to_parquet(tmp_path / f"{dataset}.parquet")
    with pytest.raises(SettingsError, match="Spark sees a pattern in a path with"):
        score(ScoreSettings(CHAMPION, str(tmp_path / f"{dataset}.parquet"), str(tmp_path / output), "spark"))
    assert not list(tmp_path.glob("scores*"))


def test_a_column_that_would_be_written_over_is_not_kept(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"what scoring writes itself \(score, region\); rename"):
        settings(dataset, tmp_path, keep="number,score,region")
    assert settings(dataset, tmp_path, keep="number, number").kept == ["number"]
    assert settings(dataset, tmp_path, keep='number, "press, bar"').kept == ["number", "press, bar"]


@pytest.mark.usefixtures("champion")
def test_an_output_that_cannot_be_written_is_named(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"file/scores cannot be written \(Not a directory\)"):
        score(ScoreSettings(CHAMPION, dataset, str(tmp_path / "file" / "scores")), progress=False)


@pytest.mark.usefixtures("champion", "small_parts")
def test_a_full_disk_is_named_and_scoring_goes_on_when_there_is_room(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = pq.ParquetWriter.write_batch

    def full(writer: Any, batch: pa.RecordBatch) -> None:
        if batch.column("number")[0].as_py() >= 600:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(writer, batch)

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", full)
    with pytest.raises(SettingsError, match=r"scores cannot be written \(No space left on device\); make room"):
        score(settings(dataset, tmp_path, keep="number"), progress=False)
    assert not (tmp_path / "scores").exists()
    monkeypatch.setattr(pq.ParquetWriter, "write_batch", written)
    assert sum(score(settings(dataset, tmp_path, keep="number"), progress=False).rows.values()) == ROWS


@pytest.mark.slow
@pytest.mark.usefixtures("own_store", "champion", "notebook")
def test_a_disk_that_spark_fills_is_named_and_keeps_nothing(dataset: str, full_disk: Path) -> None:
    with pytest.raises(SettingsError, match=r"disk of .*scores, or of its own temporary files, full; make room"):
        score(ScoreSettings(CHAMPION, dataset, str(full_disk / "scores"), "spark"))
    assert not list(full_disk.iterdir())


@pytest.mark.usefixtures("champion")
def test_a_table_with_none_of_the_columns_is_told_apart_from_an_empty_one(tmp_path: Path) -> None:
    pd.DataFrame({"other": [1, 2]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(RowsError, match="the rows lack 30 of the detector's 30 columns"):
        score(settings(str(tmp_path / "other.parquet"), tmp_path), progress=False)
    assert not list(tmp_path.glob("scores*"))


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns"), pa.timestamp("us"), pa.timestamp("us", "Asia/Tokyo"), pa.date32()]
)
def test_moments_in_a_column_of_words_are_the_words_that_they_are_to_pandas(tmp_path: Path, kind: pa.DataType) -> None:
    generator = np.random.default_rng(0)
    moments = [datetime(2024, 1, 1), datetime(2024, 2, 1)]
    due = pa.array([moments[at] for at in generator.integers(0, 2, 60)], pa.timestamp("us")).cast(kind)
    words = [*due.to_pandas().astype(object).map(str), *60 * ["never"]]
    trained = pd.DataFrame({"x": generator.normal(size=120), "due": words})
    AnomalyDetector("radon", max_epochs=1, random_state=0).fit(trained).save(tmp_path / "bundle")
    pq.write_table(pa.table({"x": trained["x"][:60], "due": due}), tmp_path / "t.parquet")
    score(
        ScoreSettings(str(tmp_path / "bundle"), str(tmp_path / "t.parquet"), str(tmp_path / "scores")), progress=False
    )
    expected = Bundle(tmp_path / "bundle").score(trained[:60])
    assert pd.read_parquet(tmp_path / "scores")["score"].tolist() == expected.score.tolist()


@pytest.mark.usefixtures("champion")
def test_a_folder_without_a_file_holds_no_rows(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty holds no rows"):
        score(settings(str(tmp_path / "empty"), tmp_path), progress=False)


@pytest.mark.usefixtures("champion")
def test_periods_are_no_numbers(rows: pd.DataFrame, tmp_path: Path) -> None:
    months = pd.period_range("2024-01", periods=len(rows), freq="M")
    rows.assign(**{"mean radius": months}).to_parquet(tmp_path / "months.parquet")
    with pytest.raises(RowsError, match="row 0, column 'mean radius': expected a number or null"):
        score(settings(str(tmp_path / "months.parquet"), tmp_path), progress=False)


@pytest.mark.usefixtures("champion")
def test_a_word_among_the_numbers_leaves_no_partial_folder(rows: pd.DataFrame, tmp_path: Path) -> None:
    rows.assign(**{"mean radius": "wide"}).to_csv(tmp_path / "words.csv")
    with pytest.raises(RowsError, match="row 0, column 'mean radius': expected a number or null"):
        score(settings(str(tmp_path / "words.csv"), tmp_path), progress=False)
    assert not list(tmp_path.glob("scores*"))
