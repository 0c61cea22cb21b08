"""`POST /v1/score` and MLflow's `POST /invocations`: the hot routes, plain ASGI endpoints."""

from __future__ import annotations

from serving import answers, bodies, tables
from serving.scoring import ScoringEndpoint
from serving.state import Service

PARQUET_TYPES = ("application/vnd.apache.parquet", "application/parquet", "application/x-parquet")
ARROW_TYPES = ("application/vnd.apache.arrow.stream",)
NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonlines")


def scoring_endpoints(service: Service) -> dict[str, ScoringEndpoint]:
    """The two, by path."""
    table_decoders: dict[str, bodies.Decoder] = {
        "text/csv": tables.csv_rows,
        **dict.fromkeys(PARQUET_TYPES, tables.parquet_rows),
        **dict.fromkeys(ARROW_TYPES, tables.arrow_rows),
    }
    score: dict[str, bodies.Decoder] = {
        "application/json": bodies.score_rows,
        **dict.fromkeys(NDJSON_TYPES, bodies.ndjson_rows),
        **table_decoders,
    }
    invocations: dict[str, bodies.Decoder] = {"application/json": bodies.invocation_rows, **table_decoders}
    return {
        "/v1/score": ScoringEndpoint(service, score, answers.write_score),
        "/invocations": ScoringEndpoint(service, invocations, answers.write_invocations),
    }
