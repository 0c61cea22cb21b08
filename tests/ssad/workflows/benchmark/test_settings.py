"""What a benchmark takes, and how it says no."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssad.errors import SettingsError
from ssad.workflows.benchmark import BenchmarkSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"suite": "adbenc"}, "did you mean 'adbench'"),
        ({"peers": "IForrest"}, "did you mean 'IForest'"),
        ({"suite": "thresholds", "peers": "IForest"}, "no peer 'IForest'"),
        ({"detectors": "sad"}, "did you mean 'ssad'"),
        ({"seeds": "1,x"}, "whole numbers"),
        ({"seeds": ""}, "whole numbers"),
        ({"seeds": "²"}, "whole numbers"),
        ({"seeds": f"{2**32}"}, r"below 2\*\*32"),
        ({"detectors": ""}, "at least one preset"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        BenchmarkSettings(**{"suite": "adbench", "peers": "none", **settings}, data=Path())


def test_settings_that_cannot_be_used_are_named_together() -> None:
    with pytest.raises(SettingsError, match=r"'IForrest'.*'sad'.*whole numbers"):
        BenchmarkSettings("adbench", Path(), "IForrest", "sad", "x")


def test_what_is_named_twice_is_compared_once() -> None:
    settings = BenchmarkSettings("adbench", Path(), "MCD,MCD", "ssad,radon,ssad", "1,01,2")
    assert (settings.peer_names(), settings.detector_names(), settings.seed_numbers()) == (
        ["MCD"],
        ["ssad", "radon"],
        [1, 2],
    )


def test_all_are_the_suites_own_peers() -> None:
    assert "MCD" in BenchmarkSettings("adbench", Path()).peer_names()
    assert "META" in BenchmarkSettings("thresholds", Path()).peer_names()
    assert BenchmarkSettings("adbench", Path(), "none").peer_names() == []
