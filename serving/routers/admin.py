"""Hints to look at the registry now: the admin's, and MLflow's registry webhook."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import time
from collections import deque

from fastapi import APIRouter, Request, Response

from serving.problems import RefusalError, busy
from serving.scoring import read_body

MAX_AGE_SECONDS = 300
"""A delivery signed longer ago may be a copy of an old one."""

STAMP_DIGITS = 12
"""Of a time in seconds, at most: 30,000 years."""

SIGNATURE = re.compile(r"v1,[A-Za-z0-9+/]{43}=")

MAX_DELIVERY_BYTES = 2**16
"""Anybody may send to the hook, and its signature is known when all has been read; MLflow's deliveries are small."""

MOST_READ = 8
"""Deliveries that are read at once, for the same reason."""

REMEMBERED = 1000
"""Deliveries whose repetition is noticed."""

router = APIRouter(tags=["registry"])


@router.post("/admin/reload", status_code=202)
async def reload(request: Request) -> Response:
    """Look at the alias now; needs the admin key."""
    request.app.state.follower.wake()
    return Response(status_code=202)


@router.post("/hooks/mlflow", status_code=202)
async def hook(request: Request) -> Response:
    """Look at the alias now, because MLflow says that something has changed; what it says is not relied on."""
    service, deliveries = request.app.state.service, request.app.state.deliveries
    secret = service.settings.webhook_secret
    names = ("signature", "delivery-id", "timestamp")
    signature, delivery, stamp = (request.headers.get(f"x-mlflow-{name}", "") for name in names)
    if not secret or not SIGNATURE.fullmatch(signature):
        raise RefusalError(401, "the delivery is not signed, or this service has no webhook secret.", "webhook")
    if not stamp.isdecimal() or len(stamp) > STAMP_DIGITS or abs(time.time() - int(stamp)) > MAX_AGE_SECONDS:
        raise RefusalError(401, f"the delivery was not signed within the last {MAX_AGE_SECONDS} s.", "webhook")
    if deliveries.reading.locked():
        raise busy("too many deliveries at once; try again soon.", "concurrency")
    async with deliveries.reading:
        body = await read_body(request.receive, dict(request.scope["headers"]), service.deadline, MAX_DELIVERY_BYTES)
    if not hmac.compare_digest(signature.encode(), sign(secret, delivery, stamp, body).encode()):
        raise RefusalError(401, "the delivery is not signed with this service's webhook secret.", "webhook")
    if delivery not in deliveries.last:
        deliveries.last.append(delivery)
        request.app.state.follower.wake()
    return Response(status_code=202)


def sign(secret: str, delivery: str, stamp: str, body: bytes) -> str:
    """MLflow's signature of a delivery: HMAC-SHA256 of its id, its time and its body."""
    signed = f"{delivery}.{stamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


class Deliveries:
    """What is remembered of deliveries.

    Attributes:
        last: ids of the last ones that were signed.
        reading: those that are being read.
    """

    def __init__(self) -> None:
        self.last: deque[str] = deque(maxlen=REMEMBERED)
        self.reading = asyncio.Semaphore(MOST_READ)
