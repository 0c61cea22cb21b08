"""Drift is nothing for the training rows themselves, and what its formulas say for others."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssad.bundle import Column, ConfidenceCurve, Reference, TableSchema, Thresholds
from ssad.bundle.drift import (
    COLUMN_BINS,
    MAX_COUNTED_CATEGORIES,
    bin_counts,
    bin_edges,
    kolmogorov_smirnov,
    population_stability_index,
    reference_document,
)
from ssad.bundle.intervals import REGIONS, Floats
from ssad.bundle.schema import GraphInputs

SCHEMA = TableSchema((Column("kind", "categorical", categories=("a", "", "b")), Column("x", "numeric", 0, 1)))
THRESHOLDS = Thresholds(0.7, 0.9)
CURVE = ConfidenceCurve(THRESHOLDS, {region: (np.empty(0), np.empty(0)) for region in REGIONS})
counts = st.lists(st.integers(0, 1000), min_size=2, max_size=12)
pairs = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=2, max_size=12).map(
    lambda cells: tuple(map(list, zip(*cells, strict=True)))
)
values = st.lists(st.floats(-1e6, 1e6) | st.integers(0, 3).map(float), min_size=1, max_size=60).map(np.asarray)


def test_a_long_word_takes_its_own_room_and_not_that_of_every_row() -> None:
    words = np.asarray([["a"]] * 2000 + [["x" * 1_000_000]], dtype=object)
    tracemalloc.start()
    inputs = GraphInputs(np.zeros((len(words), 1)), words)
    document = reference_document(np.zeros(len(words)), inputs, SCHEMA, CURVE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert document["columns"]["kind"]["other"] == 1
    assert peak < 10_000_000


def rows(count: int, seed: int = 0, shift: float = 0) -> tuple[Floats, GraphInputs]:
    generator = np.random.default_rng(seed)
    x = generator.random((count, 1)) + shift
    x[generator.random(count) < 0.1] = np.nan
    words = generator.choice(["a", "b", "", "rare"], (count, 1), p=[0.5, 0.3, 0.1, 0.1]).astype(object)
    return generator.random(count), GraphInputs(x, words)


def reference(scores: Floats, inputs: GraphInputs) -> Reference:
    document = json.loads(json.dumps(reference_document(scores, inputs, SCHEMA, CURVE), allow_nan=False))
    return Reference(document, SCHEMA, THRESHOLDS)


def test_the_stability_index_is_its_formula() -> None:
    expected = (0.5 - 0.25) * math.log(0.5 / 0.25) + (0.5 - 0.75) * math.log(0.5 / 0.75)
    assert population_stability_index([25, 75], [50, 50]) == pytest.approx(expected)


def test_an_empty_cell_counts_as_half_a_row() -> None:
    expected = (0.5 / 10 - 0.5) * math.log(0.05 / 0.5) + (1 - 0.5) * math.log(1 / 0.5)
    assert population_stability_index([5, 5], [0, 10]) == pytest.approx(expected)


def test_rare_words_that_do_not_come_up_among_few_rows_are_no_drift_and_a_new_word_is() -> None:
    words = [131_053, *[1] * 19]
    assert population_stability_index(words, [200, *[0] * 19]) < 0.001
    assert population_stability_index([*words, 0], [180, *[0] * 19, 20]) > 0.25


@given(pairs)
def test_the_stability_index_is_symmetric_and_not_negative(pair: tuple[list[int], list[int]]) -> None:
    forth, back = population_stability_index(*pair), population_stability_index(*pair[::-1])
    assert forth == pytest.approx(back)
    assert forth >= 0


@given(counts, st.integers(1, 50))
def test_more_of_the_same_rows_is_no_drift(cells: list[int], times: int) -> None:
    filled = np.asarray(cells) + 1
    assert population_stability_index(filled, filled * times) == pytest.approx(0)
    assert kolmogorov_smirnov(filled, filled * times) == pytest.approx(0)


def test_the_kolmogorov_smirnov_statistic_is_the_largest_gap_of_cumulative_shares() -> None:
    assert kolmogorov_smirnov([1, 1, 2], [2, 2, 0]) == pytest.approx(0.5)
    assert kolmogorov_smirnov([1, 0], [0, 1]) == 1


@given(values, values)
def test_it_is_the_statistic_of_the_rows_where_each_value_has_a_bin(first: Floats, second: Floats) -> None:
    every = np.unique(np.concatenate([first, second]))
    edges = np.concatenate([[-np.inf], every])
    found = kolmogorov_smirnov(bin_counts(edges, first), bin_counts(edges, second))
    assert found == pytest.approx(max(abs((first <= at).mean() - (second <= at).mean()) for at in every))


@given(pairs)
def test_it_lies_between_0_and_1_and_is_symmetric(pair: tuple[list[int], list[int]]) -> None:
    assert 0 <= kolmogorov_smirnov(*pair) <= 1 + 1e-12
    assert kolmogorov_smirnov(*pair) == pytest.approx(kolmogorov_smirnov(*pair[::-1]))


@pytest.mark.parametrize("measure", [population_stability_index, kolmogorov_smirnov])
def test_without_rows_there_is_no_drift(measure: object) -> None:
    assert callable(measure)
    assert measure([0, 0], [1, 2]) == measure([1, 2], [0, 0]) == 0


@given(values, st.integers(1, 20))
def test_bins_hold_every_value_and_none_is_empty(data: Floats, bins: int) -> None:
    edges = bin_edges(data, bins)
    found = bin_counts(edges, data)
    assert found.sum() == len(data)
    assert (found > 0).all()
    assert len(found) <= bins
    assert (np.diff(edges)[1:] > 0).all()
    assert (edges[0], edges[-1]) == (data.min(), data.max())


def test_bins_of_distinct_values_are_of_equal_mass() -> None:
    cells = bin_counts(bin_edges(np.arange(1000.0), 10), np.arange(1000.0))
    assert cells == pytest.approx(100, abs=1)


@pytest.mark.parametrize("ones", [2, 50, 98])
def test_two_values_have_two_bins_however_rare_one_is(ones: int) -> None:
    data = (np.arange(100) < ones).astype(float)
    assert bin_counts(bin_edges(data, 10), data).tolist() == [100 - ones, ones]


def test_values_beyond_the_training_range_are_in_the_outer_bins() -> None:
    assert bin_counts(np.asarray([0.0, 1.0, 2.0]), np.asarray([-9.0, 9.0, 1.0])).tolist() == [2, 1]


def test_a_column_without_values_has_one_bin() -> None:
    assert bin_counts(bin_edges(np.empty(0), 10), np.asarray([3.0])).tolist() == [1]


def test_the_training_rows_themselves_have_not_drifted() -> None:
    scores, inputs = rows(500)
    trained = reference(scores, inputs)
    drift = trained.drift(trained.count(scores, inputs))
    assert (drift.rows, drift.score_psi, drift.score_ks) == (500, 0, 0)
    assert drift.column_psi == {"x": 0, "kind": 0}
    assert drift.region_shares == pytest.approx(drift.training_region_shares)
    assert drift.region_shares == THRESHOLDS.shares(scores)


def test_scores_that_many_rows_share_have_not_drifted_where_another_runtime_rounds_them_up() -> None:
    scores, inputs = rows(500)
    scores = np.round(scores, 1)
    trained = reference(scores, inputs)
    drift = trained.drift(trained.count(scores * (1 + 1e-7), inputs))
    assert (drift.score_psi, drift.score_ks) == (0, 0)


def test_other_rows_of_the_same_kind_have_hardly_drifted() -> None:
    trained = reference(*rows(5000))
    drift = trained.drift(trained.count(*rows(5000, seed=1)))
    assert max(drift.score_psi, *drift.column_psi.values()) < 0.02


def test_only_the_column_that_moved_has_drifted() -> None:
    trained = reference(*rows(2000))
    drift = trained.drift(trained.count(*rows(2000, seed=1, shift=0.5)))
    assert drift.column_psi["x"] > 0.25
    assert drift.column_psi["kind"] < 0.02
    assert drift.score_psi < 0.05


@pytest.mark.parametrize("word", ["", "never seen", "b"])
def test_words_that_become_more_frequent_are_drift(word: str) -> None:
    scores, inputs = rows(1000)
    trained = reference(scores, inputs)
    words = inputs.categorical.copy()
    words[:500] = word
    assert trained.drift(trained.count(scores, GraphInputs(inputs.numeric, words))).column_psi["kind"] > 0.25


def test_missing_numbers_are_drift() -> None:
    scores, inputs = rows(1000)
    trained = reference(scores, inputs)
    assert (
        trained.drift(trained.count(scores, GraphInputs(inputs.numeric * np.nan, inputs.categorical))).column_psi["x"]
        > 1
    )


def test_later_dates_are_no_drift_and_missing_ones_are() -> None:
    schema = TableSchema((Column("at", "date", 0, 1e6),))
    scores, at = np.zeros(1000), np.random.default_rng(0).uniform(0, 1e6, (1000, 1))
    words = np.empty((1000, 0), dtype=object)
    trained = Reference(reference_document(scores, GraphInputs(at, words), schema, CURVE), schema, THRESHOLDS)
    later, gone = GraphInputs(at + 1e7, words), GraphInputs(np.where(at < 5e5, np.nan, at), words)
    assert trained.drift(trained.count(scores, later)).column_psi["at"] == 0
    assert trained.drift(trained.count(scores, gone)).column_psi["at"] > 1


def test_no_rows_are_no_drift() -> None:
    trained = reference(*rows(500))
    drift = trained.drift(trained.count(*rows(0)))
    assert (drift.rows, drift.score_psi, drift.score_ks, drift.region_shares) == (0, 0, 0, {})


def test_only_the_most_frequent_categories_are_counted_each() -> None:
    words = tuple(f"w{at}" for at in range(50))
    schema = TableSchema((Column("kind", "categorical", categories=words),))
    inputs = GraphInputs(np.empty((50, 0)), np.asarray([[word] for word in words], dtype=object))
    cells = reference_document(np.arange(50.0), inputs, schema, CURVE)["columns"]["kind"]
    assert cells["categories"] == list(words[:MAX_COUNTED_CATEGORIES])
    assert cells["other"] == 50 - MAX_COUNTED_CATEGORIES


def test_a_number_has_ten_bins_at_most() -> None:
    cells = reference_document(*rows(5000), SCHEMA, CURVE)["columns"]["x"]
    assert len(cells["counts"]) == COLUMN_BINS
    assert sum(cells["counts"]) + cells["missing"] == 5000


@pytest.mark.parametrize(("missing", "expected"), [(0, False), (40, False), (60, True), (100, True)])
def test_missing_is_typical_where_most_values_are(missing: int, expected: bool) -> None:
    numbers, words = np.arange(100.0)[:, None], np.full((100, 1), "a", dtype=object)
    numbers[:missing], words[:missing] = np.nan, ""
    document = reference_document(np.arange(100.0), GraphInputs(numbers, words), SCHEMA, CURVE)
    reference = Reference(document, SCHEMA, THRESHOLDS)
    assert bool(np.isnan(reference.typical_values("x")).any()) == expected
    assert ("" in reference.typical_values("kind")) == expected


def test_the_middle_value_is_the_median_or_the_most_frequent_word_of_the_training_rows() -> None:
    words = np.asarray([["b"] if at % 10 == 0 else ["a"] for at in range(100)], dtype=object)
    inputs = GraphInputs(np.arange(100.0)[:, None], words)
    trained = Reference(reference_document(np.arange(100.0), inputs, SCHEMA, CURVE), SCHEMA, THRESHOLDS)
    assert (trained.middle_value("x"), trained.middle_value("kind")) == (49.0, "a")
    assert trained.quantiles(np.asarray([0.0, 49.0, 99.0, 1e9])).tolist() == [0.01, 0.5, 1.0, 1.0]
