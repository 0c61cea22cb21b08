"""The service: rows in, score, confidence and region out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from serving.decoding import Columns, invocation_columns, score_columns
from serving.registry import Source
from ssad import __version__
from ssad.bundle import Bundle, Scores
from ssad.errors import RowsError

PROBLEM = "application/problem+json"

INLINE_ROWS = 1000
"""Up to so many rows are scored on the event loop: a hop to a thread costs more than they do."""

MAX_ROWS = 1_000_000
MAX_BODY_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Served:
    """A bundle and where it came from: one reference, so that a request never mixes two versions."""

    bundle: Bundle
    source: Source

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that name the version."""
        named = {"X-Model-Name": self.source.name, "X-Model-Version": self.source.version}
        return {name: value for name, value in named.items() if value is not None}


class RequestError(Exception):
    """A request that is refused: `status` and one sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def create_app(served: Served) -> FastAPI:
    """The application around one loaded bundle."""
    app = FastAPI(
        title=f"ssad: {served.source.name or served.source.uri}",
        description="Score, confidence and region (normal, unknown, abnormal) for every row.",
        version=__version__,
    )
    app.state.served = served
    _add_scoring(app)
    _add_state(app)
    app.add_exception_handler(RequestError, _refuse)
    app.add_exception_handler(RowsError, _refuse_rows)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(RequestValidationError, _refuse_rows)
    return app


def _add_scoring(app: FastAPI) -> None:
    served: Served = app.state.served
    example = _example(served.bundle)

    @app.post("/v1/score", openapi_extra=_body_schema({"records": [example]}))
    async def score(request: Request) -> Response:
        """Score rows, given as records or as columns and rows."""
        served: Served = request.app.state.served
        columns = score_columns(await _body(request), served.bundle.schema)
        scores = await _scored(served.bundle, columns)
        model = {"name": served.source.name, "version": served.source.version}
        return _json({"predictions": scores.records(), "model": model}, headers=served.headers)

    @app.post("/invocations", openapi_extra=_body_schema({"dataframe_records": [example]}))
    async def invocations(request: Request) -> Response:
        """Score rows in any of MLflow's layouts; its clients work unchanged."""
        served: Served = request.app.state.served
        content_type = request.headers.get("content-type", "application/json")
        columns = invocation_columns(await _body(request), content_type, served.bundle.schema)
        scores = await _scored(served.bundle, columns)
        return _json({"predictions": scores.records()}, headers=served.headers)


def _add_state(app: FastAPI) -> None:
    @app.get("/ping")
    @app.get("/health")
    @app.get("/livez")
    @app.get("/readyz")
    async def health() -> Response:
        """Up, with a model loaded: the service does not start without one."""
        return Response(status_code=200)

    @app.get("/v1/model")
    async def model(request: Request) -> Response:
        """What is served: version, thresholds, columns."""
        served: Served = request.app.state.served
        source, bundle = served.source, served.bundle
        return _json(
            {
                "name": source.name,
                "version": source.version,
                "uri": source.uri,
                "run_id": source.run_id,
                "detector": bundle.manifest["detector"],
                "training_rows": bundle.manifest["training_rows"],
                "thresholds": bundle.curve.to_json()["thresholds"],
                "region_shares": bundle.histogram["region_shares"],
                "columns": bundle.schema.to_json()["columns"],
            }
        )


async def _body(request: Request) -> bytes:
    """The body, refused as soon as it is known to be too large."""
    too_large = RequestError(413, f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer rows at a time.")
    if int(request.headers.get("content-length") or 0) > MAX_BODY_BYTES:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


async def _scored(bundle: Bundle, columns: Columns) -> Scores:
    rows = max((len(values) for values in columns.values()), default=0)
    if rows > MAX_ROWS:
        raise RequestError(413, f"{rows} rows are more than {MAX_ROWS}; send fewer at a time.")
    if rows <= INLINE_ROWS:
        return bundle.score(columns)
    return await run_in_threadpool(bundle.score, columns)


def _example(bundle: Bundle) -> dict[str, Any]:
    """The least abnormal golden row: a request that works."""
    return {name: values[0] for name, values in bundle.golden["rows"].items()}


def _body_schema(example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def _json(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, media_type="application/json")


def _problem(request: Request, status: int, title: str, detail: str) -> Response:
    """A problem document [RFC 9457], with the two fields that MLflow's clients read."""
    document = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "error_code": "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR",
        "message": detail,
    }
    return Response(orjson.dumps(document), status, media_type=PROBLEM)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _problem(request, error.status, "Request refused", error.detail)


async def _refuse_rows(request: Request, error: Exception) -> Response:
    return _problem(request, 422, "Rows cannot be scored", str(error))


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(request, error.status_code, str(error.detail), str(error.detail))
