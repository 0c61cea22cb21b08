"""Scores to JSON, and which of all formats the client accepts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from serving.problems import RefusalError
from serving.served import Served
from ssad.bundle import Scores

JSON, CSV = "application/json", "text/csv"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"

Reasons = list[dict[str, Any]]
"""What contributed to each row: entries beside its score."""

QUALITY = re.compile(r"q=(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")
"""How much a client likes a content type."""

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
    records = scores[rows].records()
    for record, reason in zip(records, (reasons or [])[rows], strict=False):
        record.update(reason)
    return orjson.dumps(records)[1:-1]


def liked(accept: str, writers: Mapping[str, Writer]) -> str:
    """The content type among those of the writers that an `Accept` header [RFC 9110, 12.5.1] likes best.

    Of two that it likes the same it is the one that is named first; the first writer's, if there is no header.

    Raises:
        RefusalError: it likes none.
    """
    if not accept:
        return next(iter(writers))
    ranges = _ranges(accept)

    def liking(known: str) -> tuple[float, int]:
        kinds = (known, f"{known.partition('/')[0]}/*", "*/*")
        return next((ranges[kind] for kind in kinds if kind in ranges), (0.0, 0))

    best = max(writers, key=liking)
    if liking(best)[0] <= 0:
        raise RefusalError(406, f"an answer can be {', '.join(writers)}; accept one of them.", "accept")
    return best


def _ranges(accept: str) -> dict[str, tuple[float, int]]:
    """Each range of content types of an `Accept` header -> its quality in [0, 1], and how far behind it stands."""
    ranges = {}
    for place, part in enumerate(accept.lower().split(",")):
        name, *parameters = (word.strip() for word in part.split(";"))
        given = next((word for word in parameters if QUALITY.fullmatch(word)), "q=1")
        ranges[name] = (float(given[2:]), -place)
    return ranges
