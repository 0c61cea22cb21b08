"""`POST /v1/score` and MLflow's `POST /invocations`: the hot routes, plain ASGI endpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

from starlette.types import Scope

from serving import answers, bodies
from serving.scoring import ScoringEndpoint, Wishes, check_explainable, check_explained
from serving.settings import Settings
from serving.state import Service
from ssad.bundle import TableSchema
from ssad.bundle.explain import contributors
from ssad.bundle.schema import GraphInputs

PARQUET_TYPES = (answers.PARQUET, "application/parquet", "application/x-parquet")
NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonlines")


def _of_tables(name: str) -> Callable[..., Any]:
    """A function of `serving.tables`, which is imported by the first table that comes or is asked for: for pyarrow."""
    return lambda *given: getattr(import_module("serving.tables"), name)(*given)


TABLE_DECODERS: dict[str, bodies.Decoder] = {
    answers.CSV: _of_tables("csv_rows"),
    **dict.fromkeys(PARQUET_TYPES, _of_tables("parquet_rows")),
    answers.ARROW: _of_tables("arrow_rows"),
}

TABLE_WRITERS: dict[str, answers.Writer] = {
    answers.CSV: _of_tables("write_csv"),
    answers.ARROW: _of_tables("write_arrow"),
    answers.PARQUET: _of_tables("write_parquet"),
}


def scoring_endpoints(service: Service) -> dict[str, ScoringEndpoint]:
    """The two, by path."""
    score: dict[str, bodies.Decoder] = {
        answers.JSON: bodies.score_rows,
        **dict.fromkeys(NDJSON_TYPES, bodies.ndjson_rows),
        **TABLE_DECODERS,
    }
    return {
        "/v1/score": ScoringEndpoint(service, score, {answers.JSON: answers.write_score, **TABLE_WRITERS}),
        "/invocations": InvocationsEndpoint(service),
    }


class InvocationsEndpoint(ScoringEndpoint):
    """`POST /invocations`."""

    def __init__(self, service: Service) -> None:
        # That JSON is taken; what decodes it is each request's own.
        decoders = {answers.JSON: bodies.score_rows, **TABLE_DECODERS}
        super().__init__(service, decoders, {answers.JSON: answers.write_invocations, **TABLE_WRITERS})

    def _wishes(self, scope: Scope, headers: dict[bytes, bytes]) -> Wishes:
        wishes = super()._wishes(scope, headers)
        if not wishes.at_once:
            return wishes  # a table has no params
        invocation = Invocation(wishes)
        return replace(wishes, decode=invocation.rows, write=invocation.write)


class Invocation:
    """One request in JSON: the `params` beside its rows may ask for explanations, answered as the logged model does."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._explained = 0
        self._inputs: GraphInputs

    def rows(self, body: bytes, schema: TableSchema, settings: Settings) -> list[GraphInputs]:
        """The rows, and what their params say."""
        document = bodies.parse_json(body, settings)
        self._inputs = bodies.invocation_rows(document, schema, settings)
        self._explained = bodies.explained_by(document.get("params"))
        if self._explained:
            check_explainable(self._wishes)
            check_explained(self._explained * len(self._inputs), settings)
        return [self._inputs]

    def write(self, answered: answers.Answered) -> bytes:
        """The answer; to each row what `params` asked for is added."""
        if self._explained:
            columns = contributors(answered.served.bundle, self._inputs, self._explained)
            named = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            others = answered.reasons or [{}] * len(named)
            answered.reasons = [one | other for one, other in zip(named, others, strict=True)]
        return self._wishes.write(answered)
