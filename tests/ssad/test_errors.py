"""What sentences have in common, and what they are made from."""

from __future__ import annotations

import errno
import signal

import pytest

from ssad.errors import disk_is_full, how_it_ended, listed, without_secrets


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


def test_a_full_disk_is_known_by_its_number_and_by_its_words() -> None:
    by_number, by_words, other = OSError(errno.ENOSPC, ""), RuntimeError("x: No space left on device"), OSError("gone")
    for error in (by_number, by_words):
        outer = RuntimeError("failed")
        outer.__cause__ = error
        assert disk_is_full(outer)
    other.__cause__ = other
    assert not disk_is_full(other)
    assert not disk_is_full(None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("at http://user:s3cret@host:1/x (failed)", "at http://host:1/x (failed)"),
        ("http://user:p@s3cret@host/v@1/x", "http://host/v@1/x"),
        ("postgresql://mlflow:PA/S?3#cret@127.0.0.1:1/mlflow, gone", "postgresql://127.0.0.1:1/mlflow, gone"),
        ("no s3://b/x.csv?X-Signature=s3cret&a=1 there?", "no s3://b/x.csv there?"),
        ("(https://h:80/x?mail=a@b&token=s3cret); bring one", "(https://h:80/x); bring one"),
        ("https://h?token=s3)cret.", "https://h."),
        ("https://h/x#access_token=s3cret fails", "https://h/x fails"),
        ("https://h/x;jwt=s3cret/y, ftp://h/z; make room", "https://h/x, ftp://h/z; make room"),
        (
            "models:/ssad@champion of sqlite:////data/a@b/m.db",
            "models:/ssad@champion of sqlite:////data/a@b/m.db",
        ),
    ],
)
def test_words_for_the_log_hold_no_secret_of_a_uri(words: str, told: str) -> None:
    assert without_secrets(words) == told
