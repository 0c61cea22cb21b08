"""The floor: a FastAPI route that answers a constant of the length of a scored row."""

from __future__ import annotations

from fastapi import FastAPI, Response

ANSWER = (
    b'{"predictions":[{"score":1.2345678901234567,"confidence":0.123456789012345,"region":"normal"}],'
    b'"model":{"name":"bench","version":"1"}}'
)

app = FastAPI()


@app.post("/v1/score")
async def constant() -> Response:
    return Response(ANSWER, media_type="application/json")


@app.get("/health")
async def health() -> Response:
    return Response()
