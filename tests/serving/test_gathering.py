"""Rows of several requests scored together, beside each scored alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from serving.gathering import Gathering
from ssad.bundle import Bundle, Scores
from ssad.bundle.intervals import Floats
from ssad.bundle.schema import GraphInputs
from tests.serving.conftest import mixed_table

SIZES = (1, 3, 1, 15)


class Counted(Bundle):
    """A bundle that counts how often its graph runs, and fails where the first column is huge."""

    runs = 0

    def score_inputs(self, inputs: GraphInputs) -> Floats:
        self.runs += 1
        if inputs.numeric[:, 0].max() > 1e6:
            raise ValueError("a row of somebody's")
        return super().score_inputs(inputs)


@pytest.fixture
def bundle(bundle_folder: Path) -> Counted:
    return Counted(bundle_folder)


@pytest.fixture
def parts(bundle: Counted) -> list[GraphInputs]:
    inputs = bundle.schema.inputs(mixed_table().fillna({"amount": 50.0}))
    return [inputs[start : start + size] for start, size in enumerate(SIZES)]


def gathered(bundle: Bundle, parts: list[GraphInputs], leaving: int | None = None) -> list[Any]:
    """What each request gets, of those that come in one turn of the loop; one of them may leave before its end."""

    async def come() -> list[Any]:
        gathering = Gathering(bundle)
        waiting = [gathering.score(inputs) for inputs in parts]
        if leaving is not None:
            waiting[leaving].cancel()
        return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(come())


def assert_alike(found: Scores, alone: Scores) -> None:
    assert found.score == pytest.approx(alone.score, rel=1e-5)
    assert found.confidence == pytest.approx(alone.confidence, abs=1e-4)
    assert found.codes.tolist() == alone.codes.tolist()


def test_each_request_gets_its_own_scores_by_one_run_of_the_graph(bundle: Counted, parts: list[GraphInputs]) -> None:
    found = gathered(bundle, parts)
    assert bundle.runs == 1
    for inputs, scores in zip(parts, found, strict=True):
        assert_alike(scores, bundle.decide(bundle.score_inputs(inputs)))


def test_a_request_that_leaves_takes_nothing_from_the_others(bundle: Counted, parts: list[GraphInputs]) -> None:
    found = gathered(bundle, parts, leaving=1)
    assert isinstance(found.pop(1), asyncio.CancelledError)
    for inputs, scores in zip([parts[0], *parts[2:]], found, strict=True):
        assert_alike(scores, bundle.decide(bundle.score_inputs(inputs)))


def test_a_request_that_fails_fails_alone(bundle: Counted, parts: list[GraphInputs]) -> None:
    parts[2].numeric[:, 0] = 1e9
    found = gathered(bundle, [parts[0], parts[2]])
    assert_alike(found[0], bundle.decide(bundle.score_inputs(parts[0])))
    assert isinstance(found[1], ValueError)


def test_who_comes_later_is_scored_in_the_next_turn(bundle: Counted, parts: list[GraphInputs]) -> None:
    async def come() -> None:
        gathering = Gathering(bundle)
        for inputs in parts:
            await gathering.score(inputs)

    asyncio.run(come())
    assert bundle.runs == len(parts)
