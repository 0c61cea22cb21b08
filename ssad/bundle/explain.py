"""Why rows score as they do: the columns that add most, what they hold and what would be less abnormal."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssad.bundle.bundle import Bundle
from ssad.bundle.intervals import Floats
from ssad.bundle.schema import GraphInputs

Ints = npt.NDArray[np.intp]

CONTRIBUTORS, CONTRIBUTOR_SHARES = "contributors", "contributor_shares"
"""Columns of a table of answers: the names of the columns that contribute most to a row, and their shares."""


def contributions(bundle: Bundle, inputs: GraphInputs, most: int) -> tuple[Ints, Floats]:
    """The columns that contribute most to each row's deviation, the largest first.

    Returns:
        Their places in the graph's order and their shares of the row's deviation in [0, 1], shape (n, most).
    """
    errors = bundle.errors_of_inputs(inputs)
    top = np.argsort(-errors, axis=1, kind="stable")[:, :most]
    total = np.maximum(errors.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return top, np.take_along_axis(errors / total, top, axis=1)


def contributors(bundle: Bundle, inputs: GraphInputs, most: int) -> dict[str, list[Any]]:
    """What `contributions` says as columns of a table of answers, lists of n entries: the names and the shares."""
    top, shares = contributions(bundle, inputs, most)
    names = np.asarray(bundle.schema.graph_order)[top]
    return {CONTRIBUTORS: names.tolist(), CONTRIBUTOR_SHARES: shares.tolist()}


def explain(bundle: Bundle, inputs: GraphInputs, most: int) -> list[list[dict[str, Any]]]:
    """The columns that contribute most to each row's deviation, the largest first.

    The expected value of a column is the one, among the training rows' bin edges or most frequent
    categories, that makes the row score lowest when the row's other columns stay as they are; the given
    one, if none of them makes it score lower.

    Args:
        bundle: the detector.
        inputs: the rows, n of them.
        most: how many columns of each, at least 1.

    Returns:
        For each row dicts with `column`, `share` of the row's deviation in [0, 1], `given` and `expected`,
        both plain JSON values.
    """
    top, shares = contributions(bundle, inputs, most)
    names, given = bundle.schema.graph_order, bundle.schema.plain_values(inputs)
    expected = {at: _expected(bundle, inputs, at, np.flatnonzero((top == at).any(axis=1))) for at in np.unique(top)}
    return [
        [
            {"column": names[at], "share": share, "given": given[names[at]][row], "expected": expected[at][row]}
            for at, share in zip(columns, row_shares, strict=True)
        ]
        for row, (columns, row_shares) in enumerate(zip(top.tolist(), shares.tolist(), strict=True))
    ]


def _expected(bundle: Bundle, inputs: GraphInputs, at: int, rows: Ints) -> dict[int, Any]:
    """Row -> the expected value of the column at this place of the graph's order."""
    name = bundle.schema.graph_order[at]
    typical = bundle.reference.typical_values(name)
    choices = 1 + len(typical)
    changed = inputs[np.repeat(rows, choices)]
    numeric, words = changed.numeric.copy(), changed.categorical.copy()
    block, place = (numeric, at) if at < numeric.shape[1] else (words, at - numeric.shape[1])
    for choice, value in enumerate(typical, start=1):  # the first of a row's choices is the given value
        block[choice::choices, place] = value
    scores = bundle.score_inputs(GraphInputs(numeric, words)).reshape(len(rows), choices)
    best = scores.argmin(axis=1) + np.arange(len(rows)) * choices
    values = bundle.schema.plain_values(GraphInputs(numeric[best], words[best]))[name]
    return dict(zip(rows.tolist(), values, strict=True))
