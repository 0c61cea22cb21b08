"""A body in, an answer out: the path every scoring route shares, as plain ASGI because it is the hot one."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import parse_qs

import numpy as np
from starlette.types import Receive, Scope, Send

from serving.answers import JSON, Answered, Reasons, Writer, liked
from serving.bodies import MOST_EXPLAINED, Decoder
from serving.deadline import Deadline
from serving.drift import DriftWindow
from serving.problems import RefusalError, busy
from serving.served import Served
from serving.settings import Settings
from serving.state import Service
from ssad.bundle import Bundle, Scores
from ssad.bundle.explain import explain
from ssad.bundle.intervals import Floats
from ssad.bundle.schema import MAX_REPORTED_PROBLEMS, GraphInputs
from ssad.errors import RowsError

INLINE_BYTES = 2**18
"""JSON up to this size is scored on the event loop: a hop to a thread costs more than most of it does. What a table
unpacks to, its size does not say."""


KNOWN_WISHES = 64
"""Combinations of headers and query that are read once."""

Headers = list[tuple[bytes, bytes]]

PARTS_AHEAD = 4
"""Parts of a large body that are decoded before the first of them is scored: no core waits, little is held."""


@dataclass(frozen=True)
class Wishes:
    """What a request asks for, apart from its rows.

    Attributes:
        decode: of its body.
        at_once: whether that gives all rows in one part, as it does for JSON.
        content_type: of the answer, as a header.
        write: of the answer.
        explained: columns to explain in each row; 0 for none.
    """

    decode: Decoder
    at_once: bool
    content_type: tuple[bytes, bytes]
    write: Writer
    explained: int


@dataclass(slots=True)
class Scoring:
    """A body that is being scored.

    Attributes:
        served: what scores it.
        wishes: what was asked for.
        ends: when it must have been scored, on the performance counter.
        started: when scoring began, on the same.
    """

    served: Served
    wishes: Wishes
    ends: float
    started: float = field(default_factory=time.perf_counter)


class ScoringEndpoint:
    """An ASGI application that scores the rows of a body."""

    def __init__(self, service: Service, decoders: dict[str, Decoder], writers: dict[str, Writer]) -> None:
        """Read bodies and write answers of these content types; the first of each is for a request that names none."""
        self._service = service
        self._decoders = decoders
        self._default = next(iter(decoders))
        self._writers = writers
        self._known = lru_cache(KNOWN_WISHES)(self._read_wishes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, score, answer."""
        headers, body = await self.answer(scope, dict(scope["headers"]), receive)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> tuple[Headers, bytes]:
        """Read and score: headers and body of the answer.

        Raises:
            RefusalError: the request cannot be answered.
            RowsError: its rows cannot be scored.
        """
        service = self._service
        served = service.current()
        wishes = self._wishes(scope, headers)
        ends = time.perf_counter() + service.settings.timeout_seconds
        body = await read_body(receive, headers, service.deadline, service.settings.max_body_bytes)
        scoring = Scoring(served, wishes, ends)
        if wishes.at_once and not wishes.explained and len(body) <= INLINE_BYTES:
            answer = await self._answer_gathered(scoring, body)
        else:
            answer = await asyncio.get_running_loop().run_in_executor(service.pool, self._answer, scoring, body)
        return [wishes.content_type, (b"content-length", b"%d" % len(answer)), *served.headers], answer

    def _wishes(self, scope: Scope, headers: dict[bytes, bytes]) -> Wishes:
        sent = headers.get
        named = sent(b"content-type", b""), sent(b"content-encoding", b""), sent(b"accept", b"")
        return self._known(*named, scope["query_string"])

    def _read_wishes(self, sent_type: bytes, encoding: bytes, accepted: bytes, query: bytes) -> Wishes:
        """What these headers and this query ask for; clients send the same ones again and again."""
        sent = sent_type.partition(b";")[0].strip().lower().decode("latin-1") or self._default
        decode = self._decoders.get(sent)
        if decode is None:
            raise RefusalError(415, f"a body can be {', '.join(self._decoders)}; send one of them.", "content_type")
        if encoding.lower() not in (b"", b"identity"):
            raise RefusalError(415, "a body cannot have a content encoding; send it as it is.", "content_encoding")
        answered = liked(accepted.decode("latin-1"), self._writers)
        header = b"content-type", answered.encode()
        wishes = Wishes(decode, "json" in sent, header, self._writers[answered], _explained(query))
        if wishes.explained:
            check_explainable(wishes)
        return wishes

    async def _answer_gathered(self, scoring: Scoring, body: bytes) -> bytes:
        """Score the rows together with those of other requests."""
        served = scoring.served
        (inputs,) = scoring.wishes.decode(body, served.bundle.schema, self._service.settings)
        read = time.perf_counter() - scoring.started
        decided = await served.gathering.score(inputs)
        served.window.add(finite(decided.score, 0), inputs)
        return self._write(scoring, decided, read, None)

    def _answer(self, scoring: Scoring, body: bytes) -> bytes:
        """Score part by part, of a large body holding only the scores; then write them."""
        served, wishes = scoring.served, scoring.wishes
        window = DriftWindow(served.bundle, self._service.settings.drift_rows)
        scoring.started = time.perf_counter()  # which does not count the wait for a thread
        scores: list[Floats] = []
        reasons: Reasons = []
        rows = 0
        parts = Timed(wishes.decode(body, served.bundle.schema, self._service.settings), scoring.started)
        for inputs, scored in scored_parts(served.bundle, parts, self._service.scorers):
            if time.perf_counter() > scoring.ends:
                raise busy("scoring took too long; send fewer rows at a time.", "timeout")
            scores.append(finite(scored, rows))
            rows += len(inputs)
            window.add(scored, inputs)
            if wishes.explained:
                check_explained(wishes.explained * rows, self._service.settings)
                found = explain(served.bundle, inputs, wishes.explained)
                reasons += [{"features": features} for features in found]
        decided = served.bundle.decide(np.concatenate(scores))
        served.window.add(*window.recent())  # not those of a body that was refused at its end
        return self._write(scoring, decided, parts.seconds, reasons if wishes.explained else None)

    def _write(self, scoring: Scoring, decided: Scores, read: float, reasons: Reasons | None) -> bytes:
        """The answer, counted; `read` are the seconds that decoding took."""
        scored = time.perf_counter()
        answer = scoring.wishes.write(Answered(scoring.served, decided, reasons))
        seconds = (read, scored - scoring.started - read, time.perf_counter() - scored)
        self._service.metrics.count_scores(scoring.served, decided, seconds)
        return answer


class Timed:
    """Decoded parts of a body, and the seconds that decoding has taken."""

    def __init__(self, parts: Iterable[GraphInputs], started: float) -> None:
        """Go through parts, some of which may have been decoded since `started`."""
        self._parts = iter(parts)
        self.seconds = time.perf_counter() - started

    def __iter__(self) -> Iterator[GraphInputs]:
        return self

    def __next__(self) -> GraphInputs:
        started = time.perf_counter()
        try:
            return next(self._parts)
        finally:
            self.seconds += time.perf_counter() - started


def scored_parts(
    bundle: Bundle, parts: Iterator[GraphInputs], scorers: Executor
) -> Iterator[tuple[GraphInputs, Floats]]:
    """Each part with its scores, in order; the next ones are decoded while `scorers` score the last."""
    ahead: deque[tuple[GraphInputs, Future[Floats]]] = deque()
    for inputs in parts:
        ahead.append((inputs, scorers.submit(bundle.score_inputs, inputs)))
        if len(ahead) > PARTS_AHEAD:
            inputs, scored = ahead.popleft()
            yield inputs, scored.result()
    for inputs, scored in ahead:
        yield inputs, scored.result()


def finite(scores: Floats, before: int) -> Floats:
    """The scores themselves.

    Raises:
        RowsError: one is not finite: its row holds numbers too large to compute with.
    """
    if math.isfinite(scores.item()) if len(scores) == 1 else np.isfinite(scores).all():
        return scores
    rows = np.flatnonzero(~np.isfinite(scores))[:MAX_REPORTED_PROBLEMS] + before
    raise RowsError(f"the numbers of row {', '.join(map(str, rows.tolist()))} are too large to be scored.")


def check_explainable(wishes: Wishes) -> None:
    """Refuse (406) explanations in anything but JSON."""
    if wishes.content_type[1] != JSON.encode():
        raise RefusalError(406, "explanations are answered in JSON alone; accept application/json.", "accept")


def check_explained(columns: int, settings: Settings) -> None:
    """Refuse (413) an answer that explains too many columns, counted over all rows."""
    most = settings.max_explained
    if columns > most:
        raise RefusalError(413, f"an answer explains {most} columns at most, rows x explain; ask for fewer.", "explain")


async def read_body(receive: Receive, headers: dict[bytes, bytes], deadline: Deadline, most: int) -> bytes:
    """The body, refused as soon as it is known to be too slow or to have more than `most` bytes.

    Raises:
        RefusalError: it is, or the client has gone.
    """
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    parts, size, more = [], 0, True
    with deadline:
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusalError(400, "the client went away.", "disconnect")
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > most:
                raise _too_large(most)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(most: int) -> RefusalError:
    return RefusalError(413, f"a body may have {most} bytes; send less at a time.", "body_size")


def _explained(query: bytes) -> int:
    """How many columns of each row are to be explained."""
    if not query:
        return 0
    given = parse_qs(query.decode("latin-1")).get("explain", ["0"])[-1]
    if not given.isdecimal() or len(given) > len(str(MOST_EXPLAINED)):
        raise RefusalError(422, f"explain must be a whole number from 0 to {MOST_EXPLAINED}.", "query")
    return int(given)
