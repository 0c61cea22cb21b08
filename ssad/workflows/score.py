"""Score a table of any size to a folder of Parquet."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ssad.aside import fetching_folder
from ssad.bundle import REGIONS, Bundle
from ssad.bundle.bundle import CORES, file_digest
from ssad.bundle.explain import CONTRIBUTOR_SHARES, CONTRIBUTORS, contributors
from ssad.bundle.intervals import Floats
from ssad.datasets.parquet import BATCH_ROWS
from ssad.datasets.stream import TableStream, open_stream
from ssad.datasets.tables import fetched, local_path, names_in, no_rows
from ssad.errors import check_settings, nearest, rows_from, without_secrets
from ssad.workflows.output_folder import PARTS, check_free, finish, partial_folder, region_counts, writing_to
from ssad.workflows.registry import FetchedModel, fetch_model
from ssad.workflows.score_spark import score_by_spark
from ssad.workflows.tracking import log_new_params, tracked_run

ENGINES = ("local", "spark")

PART_BATCHES = 16
"""Batches of a part: about a million rows, what an interruption may cost."""

READ_ROWS = 8192
"""Rows of a batch that become the graph's inputs at once: few enough to stay in the processor's cache, many enough that
reading a column is not all calls."""

REPEATED = ["region", "model_version"]
"""Columns whose values are written once and numbered. Scores hardly repeat, so looking for repetitions would cost more
than it saves."""

ANSWERS = ("score", "confidence", "region", "model_version", CONTRIBUTORS, CONTRIBUTOR_SHARES)
"""Columns of the output that are not the table's."""


@dataclass(frozen=True)
class ScoreSettings:
    """What `score` takes.

    Attributes:
        model: a model URI, or the path of a bundle.
        dataset: name, path or URI of the table.
        output: folder to write; a part a million rows, and `_SUCCESS` when it is complete.
        engine: `local` or `spark`.
        explain: how many of the columns that contribute most are written with each row.
        keep: columns of the table to copy into the output, separated by commas.
        spark_master: where Spark runs, unless this process has a session already.
    """

    model: str
    dataset: str
    output: str
    engine: str = "local"
    explain: int = 0
    keep: str = ""
    spark_master: str = "local[*]"

    def __post_init__(self) -> None:
        problems = []
        if self.engine not in ENGINES:
            problems.append(f"there is no engine {self.engine!r}, {nearest(self.engine, ENGINES)}")
        if self.explain < 0:
            problems.append(f"explain must be at least 0, got {self.explain}")
        if not self.output:
            problems.append("output must name a folder to write")
        if "://" in self.output and self.engine == "local":
            problems.append(f"engine local writes to a folder's path, got {self.output}; give one, or use engine spark")
        folder = os.path.isdir(self.dataset)  # noqa: PTH112 - which raises where a name is too long
        if folder and Path(self.dataset).resolve() in Path(self.output).resolve().parents:
            problems.append(
                f"output must not lie in the dataset's folder {self.dataset}, or it would be scored next time"
            )
        taken = [name for name in self.kept if name.lower() in ANSWERS]  # Spark takes Score for score
        if taken:
            problems.append(f"keep must not name what scoring writes itself ({', '.join(taken)}); rename those columns")
        check_settings(problems)

    @property
    def kept(self) -> list[str]:
        """Names of the columns to write along."""
        return names_in(self.keep)


@dataclass(frozen=True)
class ScoreResult:
    """What scoring left.

    Attributes:
        output: the complete folder.
        model: what scored, with the version in place of an alias.
        rows: rows of each region.
    """

    output: str
    model: str
    rows: dict[str, int]


def score(settings: ScoreSettings, progress: bool = True) -> ScoreResult:
    """Score every row of a table into a folder of Parquet, as one run.

    The folder appears under its name only when it is complete; an interrupted run goes on where it was.

    Raises:
        SsadError: a mistake of the user; then there is no folder of that name.
    """
    with tracked_run("score", system_metrics=False) as run, fetching_folder() as folder:
        log_new_params(run, vars(settings))
        if "://" not in settings.output:
            check_free(Path(settings.output))
        model = fetch_model(settings.model, folder)
        mlflow.set_tags({"model": model.uri, "model_id": model.model_id or ""})
        if settings.engine == "spark":
            rows = score_by_spark(settings, model, run.info.run_id)
        else:
            rows = score_locally(settings, model, progress, run.info.run_id)
        mlflow.log_metrics({f"rows_{region}": count for region, count in rows.items()})
    return ScoreResult(settings.output, model.uri, rows)


def score_locally(
    settings: ScoreSettings, model: FetchedModel, progress: bool = True, run_id: str | None = None
) -> dict[str, int]:
    """Stream the table through the bundle in this process; `run_id` is of the run that this is logged as, if it is.

    Returns:
        Rows of each region.

    Raises:
        SettingsError: the output cannot be written.
        DatasetError: the table cannot be read, holds no rows, or its rows do not fit the detector.
    """
    output = Path(settings.output).absolute()  # a relative one with a colon in it is a URI to PyArrow
    with fetched(settings.dataset) as table:
        stream = open_stream(table, model.bundle.schema, settings.kept)
        if not stream.names:  # a folder without a file
            raise no_rows(settings.dataset)
        model.bundle.schema.check_none_missing(stream.names)
        with writing_to(output), partial_folder(output, _job(settings, model, table), run_id) as partial:
            _write_parts(partial, stream, settings, model, progress)
            rows = region_counts(partial)
            finish(partial, output)
    return rows


def _write_parts(
    partial: Path, stream: TableStream, settings: ScoreSettings, model: FetchedModel, progress: bool
) -> None:
    """Write the parts that are not there yet.

    Raises:
        DatasetError: the table cannot be read to its end, holds no rows, or a row does not fit the detector.
    """
    done = len(list(partial.glob(PARTS)))
    start = done * PART_BATCHES * BATCH_ROWS
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("scoring", total=stream.rows, completed=start)
        scored = _scored(stream.batches(start), start, settings, model)
        for number, first in enumerate(scored, start=done):
            part = partial / f"part-{number:05}.parquet"
            aside = part.with_name(f"_{part.name}")  # until it is complete
            with pq.ParquetWriter(aside, first.schema, use_dictionary=REPEATED) as writer:
                for batch in chain([first], islice(scored, PART_BATCHES - 1)):
                    writer.write_batch(batch)
                    bar.advance(task, len(batch))
            aside.rename(part)
    if not any(partial.glob(PARTS)):
        raise no_rows(settings.dataset)


def score_batch(batch: pa.RecordBatch, start: int, settings: ScoreSettings, model: FetchedModel) -> pa.RecordBatch:
    """The kept columns of a batch, and what the model says of each row.

    Raises:
        RowsError: a row does not fit the detector; says which of the table, whose row `start` is the batch's first.
    """
    bundle = model.bundle
    words = set(bundle.schema.words)
    columns = {name: _values(batch.column(name), name in words) for name in bundle.schema.names}
    scored = []
    for at in range(0, len(batch), READ_ROWS):
        rows = {name: values[at : at + READ_ROWS] for name, values in columns.items()}
        with rows_from(start + at):
            scored.append(_score_rows(bundle, rows, settings.explain))
    decided = bundle.decide(np.concatenate([scores for scores, _ in scored]))
    answers: dict[str, Any] = {
        "score": decided.score,
        "confidence": decided.confidence,
        "region": pa.array(REGIONS).take(pa.array(decided.codes)),
        "model_version": pa.repeat(pa.scalar(model.version, pa.string()), len(batch)),
    }
    for name in scored[0][1]:
        answers[name] = pa.concat_arrays([found[name] for _, found in scored])
    return pa.RecordBatch.from_pydict({name: batch.column(name) for name in settings.kept} | answers)


def _values(column: pa.Array, words: bool) -> Any:
    """A column as NumPy has it; words as Python has them: NumPy's moments have no zone, its integers no gap.

    Periods, which are numbers to both, as pandas has them.
    """
    if isinstance(column.type, pa.BaseExtensionType):
        return column.to_pandas()
    if words and not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column.to_pylist()
    return column.to_numpy(zero_copy_only=False)


def _score_rows(bundle: Bundle, rows: dict[str, Any], explain: int) -> tuple[Floats, dict[str, pa.Array]]:
    """Scores of rows by column and, if asked for, the columns that contribute most with their shares."""
    inputs = bundle.schema.inputs(rows)
    scores = bundle.score_inputs(inputs)
    if not explain:
        return scores, {}
    found = contributors(bundle, inputs, explain)
    return scores, {name: pa.array(entries) for name, entries in found.items()}


def _scored(
    batches: Iterator[pa.RecordBatch], start: int, settings: ScoreSettings, model: FetchedModel
) -> Iterator[pa.RecordBatch]:
    """The batches from the table's row `start` on, scored in order, as many at a time as there are cores."""
    with ThreadPoolExecutor(CORES) as pool:
        waiting: deque[Future[pa.RecordBatch]] = deque()
        for batch in batches:
            waiting.append(pool.submit(score_batch, batch, start, settings, model))
            start += len(batch)
            if len(waiting) > CORES:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _job(settings: ScoreSettings, model: FetchedModel, table: str) -> dict[str, Any]:
    """What decides every byte of the output: another job's parts are none of this one."""
    path = local_path(table)
    files = sorted(path.rglob("*")) if path and path.is_dir() else [path] if path else []
    if table == settings.dataset:
        known = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    else:  # a copy, whose path and time are new each time
        known = [[str(file.relative_to(table)), file_digest(file)] for file in files if file.is_file()]
    return {
        "dataset": without_secrets(settings.dataset),
        "files": known,
        "explain": settings.explain,
        "keep": settings.kept,
        "model": [model.version, model.bundle.manifest["files"]],
    }
