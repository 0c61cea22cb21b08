"""Score a table on Spark, by the registered pyfunc. PySpark is needed here; executors need what the model lists."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pyarrow as pa
from mlflow.models import ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME

from ssad.bundle import REGIONS, TableSchema
from ssad.bundle.explain import CONTRIBUTOR_SHARES, CONTRIBUTORS
from ssad.bundle.schema import MISSING_WORDS
from ssad.datasets.parquet import parquet_files
from ssad.datasets.stream import open_stream, suffix
from ssad.datasets.tables import (
    FETCHED_SCHEMES,
    PARQUET,
    SEPARATORS,
    check_shape,
    fetched,
    local_path,
    no_rows,
    read_table,
)
from ssad.errors import DatasetError, SettingsError, SsadError, disk_is_full, listed
from ssad.workflows.output_folder import check_free, partial_folder, region_counts
from ssad.workflows.registry import FetchedModel, copy_of_ssad, mlflow_model
from ssad.workflows.stopping import too_late_to_stop

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from ssad.workflows.score import ScoreSettings

READING: dict[str, Any] = {
    # Moments reach Python in the session's time zone; without one of their own they are read as UTC.
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.caseSensitive": "true",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
}
"""What makes Spark read and write a table as `engine=local` does."""

PATTERN = "[]{}*?:\\"
"""Of a path in which Spark sees one of these it reads what matches, or nothing."""

ROW = re.compile(r"(Malformed CSV record).*")
"""What Spark says of a row of text, which it then repeats: a run's tags are no place for whole rows."""

ANSWER = "score double, confidence double, region string"
EXPLAINED = f"{ANSWER}, {CONTRIBUTORS} array<string>, {CONTRIBUTOR_SHARES} array<double>"


def score_by_spark(settings: ScoreSettings, model: FetchedModel, run_id: str) -> dict[str, int]:
    """Score on Spark; a local folder is renamed when it is complete, elsewhere `_SUCCESS` says so.

    Args:
        settings: table and output.
        model: what scores.
        run_id: of the run that this is logged as.

    Returns:
        Rows of each region.

    Raises:
        SettingsError: PySpark is missing, the model is no logged one, or a disk is full.
        DatasetError: the table cannot be read, or its rows do not fit the detector.
    """
    if model.logged is None:
        raise SettingsError(f"engine=spark needs a logged model, {model.uri} is a bundle's folder; use engine=local.")
    output = None if "://" in settings.output else Path(settings.output).absolute()
    written_to = partial_folder(output, {"engine": "spark"}, run_id) if output else nullcontext()
    # Spark has ended, and writes no more, when what it left is cleared up.
    with written_to as partial, _session(settings.spark_master) as spark:
        return _scored_by(spark, settings, model, model.logged, partial)


def _scored_by(
    spark: SparkSession, settings: ScoreSettings, model: FetchedModel, logged: Path, partial: Path | None
) -> dict[str, int]:
    """Score to the folder that becomes the output; where it is None to the store that the output is in."""
    try:
        with tempfile.TemporaryDirectory() as folder, _reachable(settings.dataset) as table:
            copied = for_spark(logged, Path(folder) / "model")
            scored = _scored(spark, replace(settings, dataset=table), model, copied)
            if partial is None:
                return _written_to_a_store(spark, scored, settings.output)
            return _written_to_a_folder(scored, partial, Path(settings.output).absolute())
    except SsadError:
        raise
    except Exception as error:  # Py4J's and PySpark's own, with whole tracebacks of executors in them
        if disk_is_full(error):
            raise SettingsError(
                f"Spark found the disk of {settings.output}, or of its own temporary files, full; make room or name "
                "another output, and run again."
            ) from error
        raise DatasetError(f"Spark could not score {settings.dataset} ({_reason(error)}).") from error


def _written_to_a_folder(scored: DataFrame, partial: Path, output: Path) -> dict[str, int]:
    """Write what was scored, renamed when it is complete; gives the rows of each region."""
    aside = partial / output.name
    shutil.rmtree(aside, ignore_errors=True)  # Spark does not go on with what it left
    scored.write.parquet(_plain(aside))
    rows = region_counts(aside)
    check_free(output)
    too_late_to_stop()
    aside.rename(output)
    return rows


def _written_to_a_store(spark: SparkSession, scored: DataFrame, folder: str) -> dict[str, int]:
    """Write what was scored, with `_SUCCESS` when it is complete; gives the rows of each region."""
    scored.write.parquet(folder)
    counted = spark.read.parquet(folder).groupBy("region").count().collect()
    return dict.fromkeys(REGIONS, 0) | {row["region"]: row["count"] for row in counted}


def for_spark(logged: Path, folder: Path) -> Path:
    """A copy of a logged model with this package's code, whose signature does not say what types its input has.

    The code that was logged would run on every worker: it is as trusted as who writes the store, and `engine=local`
    runs none of it. The signature takes no whole number or truth value that is missing, and a moment only as it was
    in training; the bundle reads all of them, and Spark is to score what `engine=local` does.
    """
    shutil.copytree(logged, folder)
    shutil.rmtree(folder / "code", ignore_errors=True)
    copy_of_ssad(folder / "code")
    model = mlflow_model(folder)
    model.flavors["python_function"]["code"] = "code"
    model.signature = ModelSignature(None, model.signature.outputs, model.signature.params)
    model.save(str(folder / MLMODEL_FILE_NAME))
    return folder


@contextmanager
def _session(master: str) -> Iterator[SparkSession]:
    """A session at a master, ended afterwards; one beside that of a notebook, which goes on, if there is one."""
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise SettingsError(
            'engine=spark needs PySpark; install it by pip install -c constraints.txt -e ".[spark]".'
        ) from error
    running = SparkSession.getActiveSession()
    if running is not None:
        spark = running.newSession()
        for name, value in READING.items():
            spark.conf.set(name, value)
        yield spark
        return
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master).appName("ssad score").config("spark.ui.enabled", "false")
    handler = signal.getsignal(signal.SIGINT)
    try:
        spark = builder.config(map=READING).getOrCreate()
    except Exception as error:  # Java is missing, or the master does not answer
        raise SettingsError(f"Spark does not start at {master} ({_reason(error)}).") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)  # PySpark sets one of its own, of which nobody here hears
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        # A thread has a connection of its own: a signal may have cut this one's off in the middle of an answer.
        stopping = threading.Thread(target=_stop, args=(spark,))
        stopping.start()
        stopping.join()


def _stop(spark: SparkSession) -> None:
    with suppress(Exception):  # Py4J's own: it has ended by itself
        spark.sparkContext.setLogLevel("OFF")  # of what it breaks off
        spark.stop()


def _scored(spark: SparkSession, settings: ScoreSettings, model: FetchedModel, logged: Path) -> DataFrame:
    """The kept columns of every row and what the model says of it."""
    from pyspark.sql import functions as F

    frame = _read(spark, settings.dataset, model.bundle.schema, settings.kept)
    if frame.isEmpty():
        raise no_rows(settings.dataset)
    wanted = model.bundle.schema.names
    missing = [name for name in dict.fromkeys([*wanted, *settings.kept]) if name not in frame.columns]
    if missing:
        raise DatasetError(f"{settings.dataset} lacks columns {listed(missing)}; bring every one of them.")
    udf = mlflow.pyfunc.spark_udf(
        spark,
        str(logged),
        env_manager="local",
        result_type=EXPLAINED if settings.explain else ANSWER,
        params={"explain": settings.explain},
    )
    name = "answer" + "_" * max(map(len, settings.kept), default=0)  # no kept column is called so
    answer = udf(F.struct(*(F.col(_quoted(column)).alias(column) for column in wanted))).alias(name)
    kept = [F.col(_quoted(name)) for name in settings.kept]
    version = F.lit(model.version).cast("string").alias("model_version")
    scored = frame.select(*kept, answer)
    fields = [F.col(f"{name}.{field}") for field in ("score", "confidence", "region")]
    explained = [F.col(f"{name}.{field}") for field in (CONTRIBUTORS, CONTRIBUTOR_SHARES)] if settings.explain else []
    return scored.select(*kept, *fields, version, *explained)


def _in_a_store(location: str) -> bool:
    """Whether a URI names what Spark reads itself."""
    return "://" in location and not location.startswith(("file://", *FETCHED_SCHEMES))


def _reachable(location: str) -> AbstractContextManager[str]:
    """The table where Spark reads it; what lies in a store is not fetched first."""
    return nullcontext(location) if _in_a_store(location) else fetched(location)


def _read(spark: SparkSession, location: str, schema: TableSchema, keep: Sequence[str]) -> DataFrame:
    """The table as a DataFrame, columns of words and those to keep as they are written."""
    if _in_a_store(location):
        return spark.read.parquet(location)
    path, words = local_path(location), {*schema.words, *keep}
    kind = suffix(path) if path else ""
    if path and kind in PARQUET:
        return _read_parquet(spark, path, words)
    if path and kind in SEPARATORS:
        open_stream(location, schema, keep)  # which refuses a header that Spark would read in a way of its own
        return _read_text(spark, _plain(path), SEPARATORS[kind])
    return spark.createDataFrame(read_table(location, words))


def _read_parquet(spark: SparkSession, path: Path, words: Collection[str]) -> DataFrame:
    """The files that `engine=local` reads: Spark by itself leaves out those in folders of a folder."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import LongType

    files = parquet_files(path, words)
    check_shape(path, files.rows, files.schema.names)
    reader = spark.read.options(mergeSchema=True, basePath=_plain(path if path.is_dir() else path.parent))
    frame = reader.parquet(*map(_plain, files.paths))
    for field in files.schema:
        if pa.types.is_timestamp(field.type) and isinstance(frame.schema[field.name].dataType, LongType):
            moment = "timestamp_micros(({0} - pmod({0}, 1000)) div 1000)".format(_quoted(field.name))
            frame = frame.withColumn(field.name, F.expr(moment))  # Spark had read a number of nanoseconds
    return frame


def _read_text(spark: SparkSession, path: str, separator: str) -> DataFrame:
    """A file of text as `engine=local` reads it: rows of one width, quotes doubled in quotes, words for nothing."""
    from pyspark.sql import functions as F

    reader = spark.read.options(sep=separator, header=True, mode="FAILFAST", columnPruning=False, escape='"')
    # A file with lines in its values is read by one worker, and scored by all.
    frame = reader.options(multiLine=True).csv(path).repartition(spark.sparkContext.defaultParallelism)
    columns = [F.col(_quoted(name)) for name in frame.columns]
    told = [~(column.isin(*MISSING_WORDS) | (F.trim(column) == "")) for column in columns]
    return frame.select(*(F.when(t, c).alias(n) for n, t, c in zip(frame.columns, told, columns, strict=True)))


def _plain(path: Path) -> str:
    """A path for Spark.

    Raises:
        SettingsError: Spark would see a pattern in it.
    """
    found = sorted(set(PATTERN) & set(str(path.absolute())))
    if found:
        raise SettingsError(
            f"Spark sees a pattern in a path with {' '.join(found)}, as in {path}; rename it, or use engine=local."
        )
    return str(path.absolute())


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _reason(error: BaseException) -> str:
    """The line of an error that says what happened, without the tracebacks around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Error: " in line or "Exception: " in line]
    reason = (told or lines or [type(error).__name__])[-1 if told else 0]
    return ROW.sub(r"\1.", reason)[:300]
