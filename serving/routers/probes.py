"""Whether the process lives, has started and should be sent requests; MLflow's names for the same."""

from __future__ import annotations

from importlib import metadata

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from serving.state import Service

router = APIRouter(tags=["probes"])


@router.get("/livez")
async def livez() -> Response:
    """The process answers."""
    return Response(status_code=200)


@router.get("/startupz")
@router.get("/ping")
@router.get("/health")
async def started(request: Request) -> Response:
    """A model is loaded."""
    return Response(status_code=200 if request.app.state.service.served else 503)


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """A model is loaded and the process is not about to end; tells too what may keep it at an old version."""
    service: Service = request.app.state.service
    status = "draining" if service.draining else "ready" if service.ready else "loading"
    return JSONResponse({"status": status, **service.following}, 200 if service.ready else 503)


@router.get("/version")
async def version() -> Response:
    """The version of MLflow, as its own scoring server tells it; of the part that the image has too."""
    return Response(metadata.version("mlflow-skinny"), media_type="text/plain")
