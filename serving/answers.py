"""Scores to what the client accepts: JSON, CSV, Arrow or Parquet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from serving.problems import RefusalError
from serving.state import Served
from ssad.bundle import REGIONS, Scores

if TYPE_CHECKING:
    import pyarrow as pa

JSON, CSV = "application/json", "text/csv"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"

Reasons = list[list[dict[str, Any]]]
"""What contributed to each row."""

JSON_ROWS = 10_000
"""Rows that are written at once: as Python objects they take more room than as text."""


@dataclass(slots=True)
class Answered:
    """Scored rows that are to be written.

    Attributes:
        served: what scored them.
        scores: of every row.
        reasons: what contributed to each row, where that was asked for.
    """

    served: Served
    scores: Scores
    reasons: Reasons | None = None


Writer = Callable[[Answered], bytes]


def write_score(answered: Answered) -> bytes:
    """The JSON answer of `POST /v1/score`."""
    return b'{"predictions":' + _records(answered) + b',"model":' + answered.served.named + b"}"


def write_invocations(answered: Answered) -> bytes:
    """The JSON answer of `POST /invocations`, as MLflow's."""
    return b'{"predictions":' + _records(answered) + b"}"


def _records(answered: Answered) -> bytes:
    """The rows as a list of JSON objects, written in parts."""
    scores, reasons = answered.scores, answered.reasons
    rows = len(scores.score)
    if rows <= JSON_ROWS and reasons is None:
        return orjson.dumps(scores.records())
    parts = [slice(start, start + JSON_ROWS) for start in range(0, rows, JSON_ROWS)]
    return b"[" + b",".join([_part(scores, reasons, part) for part in parts]) + b"]"


def _part(scores: Scores, reasons: Reasons | None, rows: slice) -> bytes:
    records = Scores(scores.score[rows], scores.confidence[rows], scores.codes[rows]).records()
    for record, reason in zip(records, (reasons or [])[rows], strict=False):
        record["features"] = reason
    return orjson.dumps(records)[1:-1]


def _table(answered: Answered) -> pa.Table:
    import pyarrow as pa

    scores = answered.scores
    region = pa.DictionaryArray.from_arrays(pa.array(scores.codes), pa.array(REGIONS)).cast(pa.string())
    return pa.table({"score": scores.score, "confidence": scores.confidence, "region": region})


def _write_csv(answered: Answered) -> bytes:
    import pyarrow as pa
    from pyarrow import csv

    sink = pa.BufferOutputStream()
    csv.write_csv(_table(answered), sink, csv.WriteOptions(quoting_style="none"))
    return bytes(sink.getvalue())


def _write_arrow(answered: Answered) -> bytes:
    import pyarrow as pa

    sink, table = pa.BufferOutputStream(), _table(answered)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _write_parquet(answered: Answered) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(_table(answered), sink)
    return bytes(sink.getvalue())


TABLE_WRITERS: dict[str, Writer] = {CSV: _write_csv, ARROW: _write_arrow, PARQUET: _write_parquet}


def writer_for(accept: str, json_writer: Writer) -> tuple[str, Writer]:
    """The first content type of an `Accept` header that can be written, and its writer.

    Raises:
        RefusalError: none can.
    """
    for part in accept.split(","):
        wanted = part.partition(";")[0].strip().lower()
        if wanted in ("", "*/*", "application/*", JSON):
            return JSON, json_writer
        if wanted in TABLE_WRITERS:
            return wanted, TABLE_WRITERS[wanted]
    known = ", ".join([JSON, *TABLE_WRITERS])
    raise RefusalError(406, f"an answer can be {known}; accept one of them.", "accept")
