"""Clients' words, cut where they are longer than any that training saw: one is held for each row that has it."""

from __future__ import annotations

from typing import Any

from ssad.bundle import TableSchema
from ssad.bundle.schema import MISSING_CATEGORY

SHOWN_BYTES, CUT = 200, "…"
"""An unknown category that is longer is cut, which is told by the sign at its end."""


def longest_word(schema: TableSchema) -> int:
    """Bytes of the longest known category, or `SHOWN_BYTES`: a longer word is none, whatever it says."""
    known = (len(word.encode()) for column in schema.categorical for word in column.categories)
    return max([SHOWN_BYTES, *known])


def shortened(word: Any, longest: int) -> Any:
    """A category, cut where it is longer than any that is known: it is as unknown as before, or as missing."""
    if not isinstance(word, str | bytes) or len(word) <= longest:
        return word
    if isinstance(word, bytes):
        return word[:longest].decode(errors="ignore") + CUT
    return word[:longest] + CUT if word.strip() else MISSING_CATEGORY
