"""What every request passes: request id, key, limits, metrics, log. Pure ASGI, one layer, because all is hot."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
import traceback
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.keys import given_key, hash_of
from serving.limits import RateLimit
from serving.logs import AccessLog
from serving.problems import FAILED, RefusalError, busy, refusal_of
from serving.routers import page
from serving.scoring import Headers, ScoringEndpoint
from serving.state import Service
from ssad.errors import RowsError

PROBES = {"/livez", "/readyz", "/startupz", "/ping", "/health", "/version", "/v2/health/live", "/v2/health/ready"}

DOCUMENT, HOOK = "/openapi.json", "/hooks/mlflow"

OPEN = PROBES | page.FILES.keys() | {"/docs", DOCUMENT, HOOK}
"""Paths that need no key: probes, the page and the documentation (no training row is in them), and a hook that is
signed."""

UNLIMITED = OPEN | {"/metrics"}
"""Paths without a limit of requests: how busy the service is must be told when it is too busy."""

ADMIN = "/admin/"

KNOWN = OPEN | {
    "/v1/score",
    "/invocations",
    "/metrics",
    "/v1/model",
    "/v1/drift",
    "/v1/histogram",
    "/v2",
    "/admin/reload",
}
"""Paths that have a name of their own in metrics and traces; any client can invent others."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
"""A client's request id that is taken over; another would let it write into the log what it likes."""

logger = logging.getLogger(__name__)


class Exchange:
    """One request and its answer, as the gate sees them."""

    __slots__ = ("_request_id", "_send", "_service", "status")

    def __init__(self, send: Send, service: Service, request_id: bytes) -> None:
        self._send, self._service, self._request_id = send, service, request_id
        self.status = 0

    async def send(self, message: Message) -> None:
        """Pass a message on, with the gate's headers in its first."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._extra()]
        await self._send(message)

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer with a whole body."""
        if self.status:
            return  # the answer has begun: it can only be cut off
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *self._extra()]})
        await self._send({"type": "http.response.body", "body": body})

    def _extra(self) -> Headers:
        """The gate's headers; of every answer that is sent while the process drains one that ends its connection."""
        named = (b"x-request-id", self._request_id)
        return [named, (b"connection", b"close")] if self._service.draining else [named]

    async def refuse(self, path: str, refusal: RefusalError) -> None:
        """Answer with a problem."""
        answer = refusal.response(path)
        await self.answer(answer.status_code, answer.raw_headers, bytes(answer.body))


class Gate:
    """The outermost layer of the service."""

    def __init__(self, app: ASGIApp, service: Service, hot: dict[str, ScoringEndpoint]) -> None:
        """Guard an application; a POST to one of the `hot` paths goes straight to its endpoint."""
        self._app = app
        self._hot = hot
        self.service = service
        self._running = self._unlimited = 0
        self._prefix, self._numbers = uuid.uuid4().hex[:12].encode(), itertools.count(1)
        self._log = AccessLog(service.settings.log_level)
        limit = service.settings.rate_limit
        self._rate = RateLimit(limit) if limit else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it; count and log it either way."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        path, headers = scope["path"], _joined(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not request_id or not REQUEST_ID.fullmatch(request_id):
            request_id = b"%s-%x" % (self._prefix, next(self._numbers))
        exchange = Exchange(send, self.service, request_id)
        self._running += 1
        self._unlimited += path in UNLIMITED
        self.service.metrics.running = self._running
        try:
            self._check(path, headers, scope)
            endpoint = self._hot.get(path) if scope["method"] == "POST" else None
            if endpoint is None:
                await self._app(_as_get(scope), receive, exchange.send)
            else:
                await exchange.answer(200, *await endpoint.answer(scope, headers, receive))
        except (RefusalError, RowsError) as error:
            refusal = refusal_of(error)
            self.service.metrics.rejected.labels(refusal.reason).inc()
            await exchange.refuse(path, refusal)
        except Exception as error:
            # Not what the error says: that may be a value of a row.
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{where.filename}:{where.lineno}"
            logger.error("request %s failed: %s at %s", request_id.decode(), type(error).__name__, place)
            await exchange.refuse(path, FAILED)
        except asyncio.CancelledError:  # the server's time to end is over
            if not exchange.status:
                refusal = busy("the service ends before this is answered; ask again.", "shutdown")
                self.service.metrics.rejected.labels(refusal.reason).inc()
                await exchange.refuse(path, refusal)
            raise
        finally:
            self._running -= 1
            self._unlimited -= path in UNLIMITED
            self.service.metrics.running = self._running
            self._count(scope["method"], path, exchange.status, time.perf_counter() - started, request_id)

    def _check(self, path: str, headers: dict[bytes, bytes], scope: Scope) -> None:
        """Refuse a request without the right key, too many at once, and too many of one client."""
        if path in OPEN:
            return
        keys = self.service.keys
        if path.startswith(ADMIN):
            if not keys.opens_admin(given_key(headers)):
                raise RefusalError(403, "this needs the admin key; send it as X-API-Key.", "admin_key")
            return
        key = given_key(headers) if keys.needed else b""  # one that nobody checks names no client
        if keys.needed and not keys.opens(key):
            raise RefusalError(
                401, "an API key is needed; send it as X-API-Key.", "key", {"WWW-Authenticate": "Bearer"}
            )
        if path in UNLIMITED:
            return
        if self._running - self._unlimited > self.service.settings.max_concurrency:
            raise busy("too many requests at once; try again soon.", "concurrency")
        if self._rate is not None:
            self._rate.check(hash_of(key) if key else (scope.get("client") or ("",))[0])

    def _count(self, method: str, path: str, status: int, seconds: float, request_id: bytes) -> None:
        handler = handler_of(path)
        self.service.metrics.count_request(known_method(method), handler, status, seconds)
        self._log.write(method, handler, status, seconds, request_id)


def handler_of(path: str) -> str:
    """What a path is counted as: itself, or a name for all that are like it."""
    return path if path in KNOWN else "/v2/models" if path.startswith("/v2/models/") else "other"


def known_method(method: str) -> str:
    """What a method is counted as, likewise."""
    return method if method in METHODS else "other"


def _joined(headers: Headers) -> dict[bytes, bytes]:
    """Headers by name; one that comes more than once is a list [RFC 9110, 5.3]."""
    joined = dict(headers)
    if len(joined) < len(headers):
        for name in joined:
            joined[name] = b", ".join(value for other, value in headers if other == name)
    return joined


def _as_get(scope: Scope) -> Scope:
    """What is done for a HEAD is what a GET does [RFC 9110, 9.3.2]; the server leaves the body out."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
