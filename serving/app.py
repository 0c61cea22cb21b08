"""The service as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from serving.draining import drain_on_sigterm
from serving.follower import Follower
from serving.gate import DOCUMENT, Gate
from serving.openapi import Document
from serving.problems import FAILED, RefusalError, refusal_of
from serving.routers import admin, inference_protocol, page, probes, state
from serving.routers.scoring import scoring_endpoints
from serving.settings import Settings
from serving.state import Service
from serving.tracing import traced
from ssad import __version__
from ssad.errors import RowsError


def create_app(settings: Settings) -> ASGIApp:
    """The application, with a bundle loaded; it follows the registry while it runs.

    Raises:
        SsadError: there is no bundle that could be served, or traces are wanted and cannot be had.
    """
    service = Service(settings)
    follower = Follower(service)
    app = traced(app_around(service, follower), settings.traces_endpoint)
    follower.load_first()
    return app


def app_around(service: Service, follower: Follower) -> Gate:
    """The application of a service that has a bundle, or will have one."""
    app = FastAPI(
        title=f"ssad: {service.settings.told_model}",
        description="Score, confidence and region (normal, unknown, abnormal) for every row.",
        version=__version__,
        lifespan=_following,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service, app.state.follower, app.state.deliveries = service, follower, admin.Deliveries()
    hot = scoring_endpoints(service)
    hot_routes = [Route(path, endpoint, methods=["POST"]) for path, endpoint in hot.items()]
    document = Route(DOCUMENT, Document(app, service).answer, include_in_schema=False)
    app.router.routes.extend([*hot_routes, *inference_protocol.infer_routes(service), document])
    for router in (page.router, probes.router, state.router, admin.router, inference_protocol.router):
        app.include_router(router)
    app.add_exception_handler(Exception, _failed)
    app.add_exception_handler(RefusalError, _refused)
    app.add_exception_handler(RowsError, _refused)
    app.add_exception_handler(HTTPException, _refused_by_framework)
    app.add_exception_handler(RequestValidationError, _refused_by_framework)
    return Gate(app, service, hot)


def fetch_first(settings: Settings) -> None:
    """Have a bundle on disk that processes to come can start with.

    Raises:
        SsadError: there is none that could be served.
    """
    follower = Follower(Service(settings))
    follower.load_first()
    follower.stop()


@asynccontextmanager
async def _following(app: FastAPI) -> AsyncIterator[None]:
    drain_on_sigterm(app.state.service)
    app.state.follower.start()
    yield
    app.state.follower.stop()
    app.state.service.pool.shutdown(wait=False)
    app.state.service.scorers.shutdown(wait=False)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError | RowsError)
    refusal = refusal_of(error)
    request.app.state.service.metrics.rejected.labels(refusal.reason).inc()
    return refusal.response(request.url.path)


async def _refused_by_framework(request: Request, error: Exception) -> Response:
    refusal = RefusalError(422, "the parameters do not fit; see /docs.")
    if isinstance(error, HTTPException):
        detail = {404: "there is no such path; see /docs.", 405: "this path has other methods; see /docs."}
        said = detail.get(error.status_code, "the request cannot be answered; see /docs.")
        refusal = RefusalError(error.status_code, said, headers=dict(error.headers or {}))
    return refusal.response(request.url.path)


async def _failed(request: Request, _: Exception) -> Response:
    """What is answered; the framework raises the error again, and the gate logs it."""
    return FAILED.response(request.url.path)
