"""Rows of several requests through the graph together: of those that came in one turn of the event loop."""

from __future__ import annotations

import asyncio

from ssad.bundle import Bundle, Scores
from ssad.bundle.schema import GraphInputs

Waiting = tuple[GraphInputs, "asyncio.Future[Scores]"]
"""Rows, and who waits for what is said of them."""


class Gathering:
    """Scores what has come meanwhile at once; nobody waits for company that has not come.

    A graph takes little longer for eight rows than for one, and what runs beside it finds its caches as it left them.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._waiting: list[Waiting] = []

    def score(self, inputs: GraphInputs) -> asyncio.Future[Scores]:
        """What the bundle says of rows, at the end of this turn."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._score)
        scores = loop.create_future()
        self._waiting.append((inputs, scores))
        return scores

    def _score(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._settle([(inputs, scores) for inputs, scores in waiting if not scores.done()])  # some clients have gone

    def _settle(self, waiting: list[Waiting]) -> None:
        """Score rows together; where that fails, alone, so that nobody fails with others."""
        if not waiting:
            return
        try:
            joined = GraphInputs.joined([inputs for inputs, _ in waiting])
            found = self._bundle.decide(self._bundle.score_inputs(joined))
        except Exception as error:
            if len(waiting) == 1:
                waiting[0][1].set_exception(error)
                return
            for one in waiting:
                self._settle([one])
            return
        start = 0
        for inputs, scores in waiting:
            rows = slice(start, start + len(inputs))
            scores.set_result(found[rows])
            start = rows.stop
