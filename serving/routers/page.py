"""The page at `/`: static files, and the score distribution that it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

router = APIRouter(tags=["page"])

FOLDER = Path(__file__).parents[1] / "page"

FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
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
    return FileResponse(FOLDER / FILES[request.url.path], headers=HEADERS)


for path in FILES:
    router.add_api_route(path, page_file, include_in_schema=False)


@router.get("/v1/histogram")
async def histogram(request: Request) -> dict[str, Any]:
    """Training and recent scores, counted in the same bins."""
    served = request.app.state.service.current()
    recent = await run_in_threadpool(served.window.counts)
    document = served.bundle.histogram
    return {"edges": document["edges"], "training": document["counts"], "recent": recent.score.tolist()}
