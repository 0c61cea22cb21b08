"""What is served, how its input has moved, and what was counted."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from serving.state import Service

router = APIRouter(tags=["state"])


@router.get("/v1/model")
async def model(request: Request) -> dict[str, Any]:
    """What is served: version, intervals, columns, its run, its training, and its recalibration if it had one."""
    service: Service = request.app.state.service
    served = service.current()
    source, bundle = served.source, served.bundle
    return {
        "name": source.name,
        "version": source.version,
        "alias": source.alias,
        "uri": source.uri,
        "run_id": source.run_id,
        "detector": bundle.manifest["detector"],
        "trained_at": _begun(source.trained_at),
        "recalibrated_at": _begun(source.recalibrated_at),
        "loaded_at": _iso(served.loaded_at),
        "training_rows": bundle.manifest["training_rows"],
        "recalibrated_rows": bundle.manifest.get("recalibrated_rows"),
        "metrics": source.metrics,
        "thresholds": bundle.curve.to_json()["thresholds"],
        "region_shares": bundle.histogram["region_shares"],
        "columns": bundle.schema.to_json()["columns"],
        **service.following,
    }


def _begun(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else _iso(milliseconds / 1000)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


@router.get("/v1/drift")
async def drift(request: Request) -> dict[str, Any]:
    """How far the most recent rows have moved from the training rows."""
    served = request.app.state.service.current()
    found = await run_in_threadpool(served.window.drift)
    return {"name": served.source.name, "version": served.source.version, **asdict(found)}


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """What was counted, in Prometheus' text format."""
    exposition = await run_in_threadpool(_exposition, request.app.state.service)
    return Response(exposition, media_type="text/plain; version=0.0.4; charset=utf-8")


def _exposition(service: Service) -> bytes:
    if service.served is not None:
        service.metrics.set_drift(service.served.window.drift())
    service.metrics.registry_age.set(-1 if service.registry_age is None else service.registry_age)
    return service.metrics.exposition()
