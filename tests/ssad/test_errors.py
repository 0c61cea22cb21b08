"""What sentences have in common."""

from __future__ import annotations

import signal

import pytest

from ssad.errors import how_it_ended, listed


@pytest.mark.parametrize(
    ("count", "said"), [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (14, "0, 1, 2 and 11 more")]
)
def test_names_that_a_sentence_has_no_room_for_are_counted(count: int, said: str) -> None:
    assert listed(range(count), most=3) == said


@pytest.mark.parametrize(
    ("status", "said"),
    [(3, "ended with status 3"), (-9, "was ended by SIGKILL"), (-signal.SIGRTMIN - 1, "was ended by signal 35")],
)
def test_the_end_of_a_process_is_told_of_signals_without_a_name_too(status: int, said: str) -> None:
    assert how_it_ended(status) == said
