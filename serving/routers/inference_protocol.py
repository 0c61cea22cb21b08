"""Open Inference Protocol v2, as KServe, Triton and MLServer speak it: a tensor for each column."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Scope

from serving import answers, bodies, scoring
from serving.problems import RefusalError
from serving.served import Served
from serving.settings import Settings
from serving.state import Service
from ssad import __version__
from ssad.bundle import TableSchema
from ssad.bundle.schema import GraphInputs
from ssad.errors import RowsError

router = APIRouter(prefix="/v2", tags=["inference protocol"])

DATATYPES = {"numeric": "FP64", "boolean": "BOOL", "date": "BYTES", "categorical": "BYTES"}

OUTPUTS = ("score", "confidence", "region")

UNNAMED = "model"
"""Name of a model that is not registered."""


@router.get("")
async def server() -> dict[str, Any]:
    """This server."""
    return {"name": "ssad", "version": __version__, "extensions": []}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@router.get("/health/ready")
async def ready(request: Request) -> JSONResponse:
    """A model is loaded and the process is not about to end."""
    service: Service = request.app.state.service
    return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)


@router.get("/models/{name}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """The model's tensors: one for each column, and three of answers."""
    return _tensors(named(request.app.state.service, name), name)


@router.get("/models/{name}/versions/{version}")
async def version(request: Request, name: str, version: str) -> dict[str, Any]:
    """The tensors of a version of the model."""
    return _tensors(named(request.app.state.service, name, version), name)


def _tensors(served: Served, name: str) -> dict[str, Any]:
    inputs = [
        {"name": column.name, "datatype": DATATYPES[column.kind], "shape": [-1]}
        for column in served.bundle.schema.columns
    ]
    outputs = [
        {"name": output, "datatype": "BYTES" if output == "region" else "FP64", "shape": [-1]} for output in OUTPUTS
    ]
    versions = [served.source.version] if served.source.version else []
    return {"name": name, "versions": versions, "platform": "onnx", "inputs": inputs, "outputs": outputs}


@router.get("/models/{name}/ready")
async def model_ready(request: Request, name: str) -> dict[str, Any]:
    """The model is loaded."""
    named(request.app.state.service, name)
    return {"name": name, "ready": True}


@router.get("/models/{name}/versions/{version}/ready")
async def version_ready(request: Request, name: str, version: str) -> dict[str, Any]:
    """A version of the model is loaded."""
    named(request.app.state.service, name, version)
    return {"name": name, "ready": True}


def named(service: Service, name: str, version: str | None = None) -> Served:
    """What is served, if it is called so.

    Raises:
        RefusalError: it is not.
    """
    served = service.current()
    if name != (served.source.name or UNNAMED) or version not in (None, served.source.version):
        raise RefusalError(404, "no model of this name and version is served; GET /v1/model tells which is.", "model")
    return served


class InferEndpoint(scoring.ScoringEndpoint):
    """`POST /v2/models/{name}/infer`."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, {answers.JSON: bodies.score_rows}, {answers.JSON: answers.write_score})

    def _wishes(self, scope: Scope, headers: dict[bytes, bytes]) -> scoring.Wishes:
        named(self._service, scope["path_params"]["name"], scope["path_params"].get("version"))
        inference = Inference()
        return replace(super()._wishes(scope, headers), decode=inference.rows, write=inference.write, explained=0)


class Inference:
    """One request of the protocol: its answer repeats its id and has the outputs that were asked for."""

    def __init__(self) -> None:
        self._id: str | None = None
        self._outputs: tuple[str, ...] = OUTPUTS

    def rows(self, body: bytes, schema: TableSchema, settings: Settings) -> list[GraphInputs]:
        """The request's tensors as rows."""
        document = bodies.parse_json(body, settings)
        tensors = document.get("inputs") if isinstance(document, dict) else None
        if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
            raise RowsError('the body must be {"inputs": [tensor, ...]}, a tensor for each column.')
        self._id = document["id"] if isinstance(document.get("id"), str) else None
        self._outputs = _asked_outputs(document.get("outputs") or [])
        read = [_read_tensor(tensor) for tensor in tensors]
        names = [name for name, _, _ in read]
        if len(read) == 1 and names[0] not in schema.graph_order and len(read[0][1]) == 2:
            _, (_, width), values = read[0]
            rows = [values[at : at + width] for at in range(0, len(values), max(width, 1))]
            return [bodies.from_rows(schema.names, rows, schema, settings)]
        bodies.check_names(names, schema)
        wrong = [name for name, shape, _ in read if len(shape) != 1 and shape[1:] != [1]]
        if wrong:
            raise RowsError(f"the tensor of a column has shape [n] or [n, 1], that of {wrong[0][:100]!r} has not.")
        return [bodies.from_columns({name: values for name, _, values in read}, schema, settings)]

    def write(self, answered: answers.Answered) -> bytes:
        """The answer's tensors."""
        columns = answered.scores.columns()
        outputs = [
            {"name": name, "shape": [len(values)], "datatype": "BYTES" if name == "region" else "FP64", "data": values}
            for name, values in columns.items()
            if name in self._outputs
        ]
        source = answered.served.source
        document = {"model_name": source.name or UNNAMED, "outputs": outputs}
        document |= {"model_version": source.version} if source.version else {}
        return orjson.dumps(document | ({"id": self._id} if self._id is not None else {}))


def _asked_outputs(asked: Any) -> tuple[str, ...]:
    """Names of the outputs that are asked for; all where none is."""
    if not isinstance(asked, list) or not all(isinstance(one, dict) and one.get("name") in OUTPUTS for one in asked):
        raise RowsError(f"the outputs must be a list of objects, each with one of the names {', '.join(OUTPUTS)}.")
    return tuple(one["name"] for one in asked) or OUTPUTS


def _read_tensor(tensor: dict[str, Any]) -> tuple[str, list[int], list[Any]]:
    """Name, shape and flat values of a tensor."""
    name, shape, data = tensor.get("name"), tensor.get("shape"), tensor.get("data")
    if not isinstance(name, str) or not isinstance(data, list):
        raise RowsError("a tensor must have a name and data.")
    if not isinstance(shape, list) or not shape or not all(type(side) is int and side >= 0 for side in shape):
        raise RowsError("the shape of a tensor must be a list of whole numbers.")
    rows, width = len(shape) > 1 and bool(data) and all(isinstance(row, list) for row in data), math.prod(shape[1:])
    if rows and any(len(row) != width for row in data):
        raise RowsError("a row of a tensor must have as many values as its shape says.")
    if rows:
        data = [value for row in data for value in row]
    if math.prod(shape) != len(data):
        raise RowsError("a tensor must have as much data as its shape says.")
    return name, shape, data


def infer_routes(service: Service) -> list[Route]:
    """The routes that score."""
    endpoint = InferEndpoint(service)
    paths = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
    return [Route(path, endpoint, methods=["POST"]) for path in paths]
