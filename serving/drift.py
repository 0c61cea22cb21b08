"""The most recent rows, to be compared with the training rows when somebody asks."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from serving.words import longest_word, shortened
from ssad.bundle import Bundle, Drift
from ssad.bundle.drift import RowCounts
from ssad.bundle.intervals import Floats
from ssad.bundle.schema import GraphInputs
from ssad.sampling import spread

Part = tuple[Floats, GraphInputs]
"""Rows with their scores."""

FRESH = 64
"""Rows that are joined to one part: they take less room than one by one, and are dropped together."""


class DriftWindow:
    """The last rows one bundle has scored; remembering costs an append, counting is left to who asks."""

    def __init__(self, bundle: Bundle, rows: int) -> None:
        self._bundle = bundle
        self._most = rows
        self._longest = longest_word(bundle.schema)
        self._held = 0
        self._recent: deque[Part] = deque()
        self._fresh: list[Part] = []
        self._fresh_rows = 0
        self._lock = threading.Lock()

    def add(self, scores: Floats, inputs: GraphInputs) -> None:
        """Remember rows, evenly spread ones of more than the window holds; the oldest make room."""
        if len(scores) > self._most:
            chosen = spread(len(scores), self._most)
            scores, inputs = scores[chosen], inputs[chosen]
        inputs = self._shortened(inputs)
        with self._lock:
            self._fresh.append((scores, inputs))
            self._fresh_rows += len(scores)
            if self._fresh_rows >= FRESH:
                self._settle()

    def _shortened(self, inputs: GraphInputs) -> GraphInputs:
        """The rows without clients' long words: they are counted as unknown, and would stay for as long as the rows."""
        words = inputs.categorical
        if max(map(len, words.ravel().tolist()), default=0) <= self._longest:
            return inputs
        return GraphInputs(inputs.numeric, np.frompyfunc(shortened, 2, 1)(words, self._longest))

    def _settle(self) -> None:
        """Join what is fresh to one part; drop the oldest ones while there are rows enough without them."""
        if self._fresh:
            self._recent.append(self._joined(self._fresh))
            self._held += self._fresh_rows
            self._fresh, self._fresh_rows = [], 0
        while self._recent and self._held - len(self._recent[0][0]) >= self._most:
            self._held -= len(self._recent.popleft()[0])

    def _joined(self, parts: list[Part]) -> Part:
        schema = self._bundle.schema
        none = GraphInputs(np.empty((0, len(schema.numeric))), np.empty((0, len(schema.categorical)), dtype=object))
        scores = np.concatenate([np.empty(0), *(scores for scores, _ in parts)])
        return scores, GraphInputs.joined([none, *(inputs for _, inputs in parts)])

    def drift(self) -> Drift:
        """Compare what is remembered with the training rows."""
        return self._bundle.reference.drift(self.counts())

    def counts(self) -> RowCounts:
        """What is remembered, counted in the cells of the training rows."""
        return self._bundle.reference.count(*self.recent())

    def recent(self) -> Part:
        """What is remembered."""
        with self._lock:
            self._settle()
            scores, inputs = self._joined(list(self._recent))
        last = slice(-self._most, None)
        return scores[last], inputs[last]
