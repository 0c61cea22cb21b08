"""The page at `/`: static files, and the score distribution that it draws; the documentation at `/docs`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from starlette.concurrency import run_in_threadpool

router = APIRouter(tags=["page"])

FOLDER = Path(__file__).parents[1] / "page"

SWAGGER = Path(str(files("fastapi_swagger.resources")))
"""Swagger UI as a package has it: a service often runs where no browser may fetch it from elsewhere."""

FILES = {
    "/": FOLDER / "index.html",
    "/page.css": FOLDER / "page.css",
    "/page.js": FOLDER / "page.js",
    "/docs/swagger-ui.css": SWAGGER / "swagger-ui.css",
    "/docs/swagger-ui-bundle.js": SWAGGER / "swagger-ui-bundle.js",
}
"""Paths that hold no row and no fact of the model, and need no key: the page asks for one."""

HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""The page may ask this service alone, run its own script alone, and be framed by nobody."""


async def page_file(request: Request) -> FileResponse:
    """One of the page's files."""
    return FileResponse(FILES[request.url.path], headers=HEADERS)


for path in FILES:
    router.add_api_route(path, page_file, include_in_schema=False)


@router.get("/docs", include_in_schema=False)
async def documentation(request: Request) -> HTMLResponse:
    """Swagger UI over `/openapi.json`, by addresses that hold behind a proxy's prefix too."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=request.app.title,
        swagger_css_url="docs/swagger-ui.css",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_favicon_url="data:,",
    )
    page.headers.update(HEADERS | {"Content-Security-Policy": "frame-ancestors 'none'"})  # its script is in the page
    return page


@router.get("/v1/histogram")
async def histogram(request: Request) -> dict[str, Any]:
    """Training and recent scores, counted in the same bins."""
    served = request.app.state.service.current()
    recent = await run_in_threadpool(served.window.counts)
    document = served.bundle.histogram
    return {"edges": document["edges"], "training": document["counts"], "recent": recent.score.tolist()}
