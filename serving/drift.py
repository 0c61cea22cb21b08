"""The most recent rows, to be compared with the training rows when somebody asks."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from ssad.bundle import Bundle, Drift
from ssad.bundle.drift import RowCounts
from ssad.bundle.intervals import Floats
from ssad.bundle.schema import GraphInputs


class DriftWindow:
    """The last rows one bundle has scored; remembering costs an append, counting is left to who asks."""

    def __init__(self, bundle: Bundle, rows: int) -> None:
        self._bundle = bundle
        self._most = rows
        self._held = 0
        self._recent: deque[tuple[Floats, GraphInputs]] = deque()
        self._lock = threading.Lock()

    def add(self, scores: Floats, inputs: GraphInputs) -> None:
        """Remember rows, evenly spread ones of more than the window holds; the oldest make room."""
        if len(scores) > self._most:
            chosen = np.linspace(0, len(scores) - 1, self._most).astype(int)
            scores, inputs = scores[chosen], inputs[chosen]
        with self._lock:
            self._recent.append((scores, inputs))
            self._held += len(scores)
            while self._held - len(self._recent[0][0]) >= self._most:
                self._held -= len(self._recent.popleft()[0])

    def drift(self) -> Drift:
        """Compare what is remembered with the training rows."""
        return self._bundle.reference.drift(self.counts())

    def counts(self) -> RowCounts:
        """What is remembered, counted in the cells of the training rows."""
        with self._lock:
            recent = list(self._recent)
        reference, schema = self._bundle.reference, self._bundle.schema
        numeric = [np.empty((0, len(schema.numeric)))] + [inputs.numeric for _, inputs in recent]
        words = [np.empty((0, len(schema.categorical)), dtype=object)] + [inputs.categorical for _, inputs in recent]
        inputs = GraphInputs(np.concatenate(numeric), np.concatenate(words))
        scores = np.concatenate([np.empty(0)] + [scores for scores, _ in recent])
        return reference.count(scores, inputs)
