"""The service's OpenAPI document, with the served model's own columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi

from serving import answers
from serving.bodies import MOST_EXPLAINED
from serving.gate import ADMIN, HOOK, OPEN, PROBES, UNLIMITED
from serving.problems import PROBLEM
from serving.routers.inference_protocol import DATATYPES, UNNAMED
from serving.routers.scoring import NDJSON_TYPES
from serving.served import Served
from serving.state import Service
from ssad.bundle import REGIONS, Bundle, Column
from ssad.bundle.schema import MISSING_CATEGORY, GraphInputs

JSON_TYPES: dict[str, dict[str, Any]] = {
    "numeric": {"type": ["number", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "date": {"type": ["string", "null"], "format": "date-time"},
    "categorical": {"type": ["string", "null"]},
}

SHOWN_CATEGORIES = 20

REFUSALS = {
    "400": "The body cannot be parsed.",
    "401": "An API key is needed.",
    "406": "No accepted content type can be written.",
    "408": "The body comes too slowly.",
    "413": "The body is too large, or has too many rows.",
    "415": "The content type cannot be read.",
    "422": "The rows do not fit the model; the answer names rows and columns.",
    "429": "One client sends too many requests.",
    "503": "Too busy, or without a model; see Retry-After.",
}


BESIDE: list[dict[str, str | Any]] = [{"url": "."}]
"""Where the paths begin: where the document lies, which holds behind a proxy's prefix too."""

LIMITED, KEYED = ("401", "429", "503"), ("401",)
"""How what has a limit, and what needs a key alone, can refuse."""

UNREAD = "Too many deliveries come at once; see Retry-After."

UNSIGNED = "The delivery is not signed with this service's secret, or is too old."

UNREADY = "No model is loaded, or the process is about to end."

READY = PROBES - {"/livez", "/version", "/v2/health/live"}
"""Probes that tell of more than that the process runs."""


class Document:
    """The OpenAPI document, written once for what is served: anybody may ask for it, and it takes 30 ms."""

    def __init__(self, app: FastAPI, service: Service) -> None:
        self._app, self._service = app, service
        self._written: tuple[tuple[Served | None, bool], bytes] | None = None

    async def answer(self, request: Request) -> Response:
        """The document."""
        told = self._service.served, self._service.keys.needed
        if self._written is None or self._written[0] != told:
            self._written = told, orjson.dumps(openapi(self._app, self._service))
        return Response(self._written[1], media_type=answers.JSON)


def openapi(app: FastAPI, service: Service) -> dict[str, Any]:
    """The document for what is served now."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, servers=BESIDE
    )
    served = service.served
    if served is None:
        return document
    columns = served.bundle.schema.columns
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Row"] = _row_schema(columns, with_values=not service.keys.needed)
    schemas["Prediction"] = PREDICTION
    document["components"]["securitySchemes"] = {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
    if service.keys.needed:
        document["security"] = [{"key": []}]
    document["paths"] = _paths(served, example(served.bundle)) | document["paths"]  # what it is there for comes first
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"] = _refusals(path) | operation["responses"]
            if path in OPEN:
                operation["security"] = []
    return document


def _refusals(path: str) -> dict[str, Any]:
    """What the gate, or the hook, answers instead."""
    if path.startswith(ADMIN):
        return _described({"403": "The admin key is needed."})
    if path == HOOK:
        return _described({"401": UNSIGNED, "408": REFUSALS["408"], "413": REFUSALS["413"], "503": UNREAD})
    if path in READY:
        return _described({"503": UNREADY})
    keyed = KEYED if path in UNLIMITED else LIMITED
    return _described({status: REFUSALS[status] for status in keyed if path not in OPEN})


def _described(statuses: dict[str, str]) -> dict[str, Any]:
    return {status: {"description": meaning} for status, meaning in statuses.items()}


def example(bundle: Bundle) -> dict[str, Any]:
    """A row that scores: each column's middle value or most frequent word. It is nobody's row."""
    middle = [bundle.reference.middle_value(name) for name in bundle.schema.graph_order]
    numeric, words = middle[: len(bundle.schema.numeric)], middle[len(bundle.schema.numeric) :]
    inputs = GraphInputs(np.asarray([numeric], dtype=np.float64), np.asarray([words], dtype=object))
    values = bundle.schema.plain_values(inputs)
    return {column.name: values[column.name][0] for column in bundle.schema.columns}


TABLES: dict[str, dict[str, Any]] = {
    answers.CSV: {"schema": {"type": "string"}},
    answers.ARROW: {"schema": {"type": "string", "format": "binary"}},
    answers.PARQUET: {"schema": {"type": "string", "format": "binary"}},
}
"""Tables are read and written in the same formats."""

PREDICTION = {
    "type": "object",
    "required": ["score", "confidence", "region"],
    "properties": {
        "score": {"type": "number", "description": "Higher is more abnormal."},
        "confidence": {"type": "number", "minimum": -1, "maximum": 1, "description": "1 surely normal, -1 abnormal."},
        "region": {"enum": list(REGIONS)},
        "features": {"type": "array", "items": {"type": "object"}, "description": "What contributed most."},
        "contributors": {"type": "array", "items": {"type": "string"}, "description": "The same, asked by params."},
        "contributor_shares": {"type": "array", "items": {"type": "number"}, "description": "Their shares."},
    },
}

PARAMS = {
    "type": "object",
    "properties": {"explain": {"type": "integer", "minimum": 0, "maximum": MOST_EXPLAINED}},
    "additionalProperties": False,
    "description": "How many columns to explain in each row, as the logged model does.",
}


def _row_schema(columns: tuple[Column, ...], with_values: bool) -> dict[str, Any]:
    """What a row holds; words and ends of the training rows' ranges only where anybody may ask for scores too."""
    properties = {}
    for column in columns:
        properties[column.name] = dict(JSON_TYPES[column.kind])
        if not with_values:
            continue
        if column.kind == "categorical":
            known = [word for word in column.categories if word != MISSING_CATEGORY]
            properties[column.name]["examples"] = known[:SHOWN_CATEGORIES]
        elif column.kind == "numeric":
            properties[column.name]["description"] = f"Training values: {column.minimum:g} to {column.maximum:g}."
    return {"type": "object", "required": [column.name for column in columns], "properties": properties}


def _paths(served: Served, row: dict[str, Any]) -> dict[str, Any]:
    rows = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Row"}}
    explain = {"name": "explain", "in": "query", "schema": {"type": "integer", "minimum": 0}}
    explain["description"] = "How many columns to explain in each row."
    tensors = _tensors(served, row)
    invocations = [
        _object(dataframe_split=_object(columns=NAMES, data=LISTS)),
        _object(dataframe_records=rows),
        _object(instances={"oneOf": [rows, LISTS]}),
        _object(inputs={"oneOf": [LISTS, {"type": "object", "additionalProperties": VALUES}]}),
    ]
    layouts = {"oneOf": [_object(records=rows), _object(columns=NAMES, rows=LISTS)]}
    score = _post("Score rows", layouts, {"records": [row]}, "predictions", [explain])
    score["post"]["requestBody"]["content"][NDJSON_TYPES[0]] = {"schema": {"type": "string"}}
    return {
        "/v1/score": score,
        "/invocations": _post(
            "Score rows as MLflow does",
            {"oneOf": [_with_params(layout) for layout in invocations]},
            {"dataframe_records": [row]},
            "predictions",
        ),
        f"/v2/models/{served.source.name or UNNAMED}/infer": _post(
            "Score rows given as a tensor for each column",
            _object(inputs={"type": "array", "items": {"type": "object"}, "minItems": 1}),
            {"inputs": tensors},
            "outputs",
        ),
    }


def _tensors(served: Served, row: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": column.name, "shape": [1], "datatype": DATATYPES[column.kind], "data": [row[column.name]]}
        for column in served.bundle.schema.columns
    ]


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _with_params(layout: dict[str, Any]) -> dict[str, Any]:
    return layout | {"properties": layout["properties"] | {"params": PARAMS}}


NAMES: dict[str, Any] = {"type": "array", "items": {"type": "string"}}

VALUES: dict[str, Any] = {"type": "array", "items": {}}
"""Of any kind, which those who write clients from this document want to read."""

LISTS: dict[str, Any] = {"type": "array", "minItems": 1, "items": VALUES}

PROTOCOL_REFUSAL = _object(error={"type": "string"})

REFUSAL = _object(detail={"type": "string", "description": "What came, what was expected, what to do."})
REFUSAL["properties"]["errors"] = {
    "type": "array",
    "items": {"type": "object", "properties": {"row": {"type": "integer"}, "column": {"type": "string"}}},
    "description": "The first values at fault.",
}


def _post(
    summary: str, schema: dict[str, Any], body: Any, key: str, parameters: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    answer_items = {"$ref": "#/components/schemas/Prediction"} if key == "predictions" else {"type": "object"}
    content = {answers.JSON: {"schema": schema, "example": body}}
    answer = {answers.JSON: {"schema": _object(**{key: {"type": "array", "items": answer_items}})}}
    if key == "predictions":
        content |= TABLES
        answer |= TABLES
    told = {PROBLEM: {"schema": REFUSAL}} if key == "predictions" else {answers.JSON: {"schema": PROTOCOL_REFUSAL}}
    refusals = {status: {"description": meaning, "content": told} for status, meaning in REFUSALS.items()}
    return {
        "post": {
            "summary": summary,
            "tags": ["scoring"],
            "parameters": parameters or [],
            "requestBody": {"required": True, "content": content},
            "responses": {"200": {"description": "One entry a row.", "content": answer}, **refusals},
        }
    }
