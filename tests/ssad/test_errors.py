"""What sentences have in common."""

from __future__ import annotations

import pytest

from ssad.errors import listed


@pytest.mark.parametrize(
    ("count", "said"), [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (14, "0, 1, 2 and 11 more")]
)
def test_names_that_a_sentence_has_no_room_for_are_counted(count: int, said: str) -> None:
    assert listed(range(count), most=3) == said
