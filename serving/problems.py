"""Refusals as problem documents [RFC 9457]; never a value of the request in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson

from ssad.errors import RowsError

PROBLEM = "application/problem+json"

FAILED = "the service failed; report the X-Request-ID of this answer."

MAX_DETAIL = 4000
"""Characters of a sentence to a client: names of columns are its own, and may be long."""


@dataclass(eq=False)
class RefusalError(Exception):
    """A request that is refused.

    Attributes:
        status: of HTTP.
        detail: one sentence.
        reason: a word for the metric.
        headers: further headers of the answer.
        cells: row, column and detail of each value at fault.
    """

    status: int
    detail: str
    reason: str
    headers: dict[str, str] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)

    def body(self, path: str) -> bytes:
        """The problem document."""
        return problem_body(self.status, self.detail, path, **({"errors": self.cells} if self.cells else {}))


def busy(detail: str, reason: str) -> RefusalError:
    """503, come back after a second."""
    return RefusalError(503, detail, reason, {"Retry-After": "1"})


def refusal_of(error: RefusalError | RowsError) -> RefusalError:
    """The refusal itself, or that of rows that cannot be scored: 422."""
    if isinstance(error, RefusalError):
        return error
    cells = [{"row": c.row, "column": c.column, "detail": f"expected {c.expected}"} for c in error.cells]
    return RefusalError(422, str(error), "rows", cells=cells)


def problem_body(status: int, detail: str, path: str, **more: Any) -> bytes:
    """A problem document, with the two fields that MLflow's clients read; or what the inference protocol wants."""
    detail = detail[:MAX_DETAIL]
    if path.startswith("/v2"):
        return orjson.dumps({"error": detail})
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": path,
        "error_code": "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR",
        "message": detail,
    }
    return orjson.dumps(document | more)


def problem_type(path: str) -> str:
    """Content type of a refusal at this path."""
    return "application/json" if path.startswith("/v2") else PROBLEM
