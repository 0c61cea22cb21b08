"""Refusals as problem documents [RFC 9457]; never a value of the request in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from ssad.errors import RowsError

PROBLEM = "application/problem+json"

MAX_DETAIL = 4000
"""Characters of a sentence to a client: names of columns are its own, and may be long."""


@dataclass(eq=False)
class RefusalError(Exception):
    """A request that is refused.

    Attributes:
        status: of HTTP.
        detail: one sentence.
        reason: a word for the metric; empty where it is not counted.
        headers: further headers of the answer.
        cells: row, column and detail of each value at fault.
    """

    status: int
    detail: str
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)

    def response(self, path: str) -> Response:
        """A problem document, with the two fields that MLflow's clients read; or what the inference protocol wants."""
        detail = self.detail[:MAX_DETAIL]
        if path.startswith("/v2"):
            return Response(orjson.dumps({"error": detail}), self.status, self.headers, "application/json")
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": detail,
            "instance": path,
            "error_code": "BAD_REQUEST" if self.status < 500 else "INTERNAL_ERROR",
            "message": detail,
        }
        if self.cells:
            document["errors"] = self.cells
        return Response(orjson.dumps(document), self.status, self.headers, PROBLEM)


FAILED = RefusalError(500, "the service failed; report the X-Request-ID of this answer.")


def busy(detail: str, reason: str) -> RefusalError:
    """503, come back after a second."""
    return RefusalError(503, detail, reason, {"Retry-After": "1"})


def refusal_of(error: RefusalError | RowsError) -> RefusalError:
    """The refusal itself, or that of rows that cannot be scored: 422."""
    if isinstance(error, RefusalError):
        return error
    cells = [{"row": c.row, "column": c.column, "detail": f"expected {c.expected}"} for c in error.cells]
    return RefusalError(422, str(error), "rows", cells=cells)
