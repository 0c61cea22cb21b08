"""How far recent rows have moved from the training rows; NumPy alone.

A bundle keeps each column, and the score, as counts in cells. Recent rows are counted in the same cells.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssad.bundle.intervals import REGIONS, ConfidenceCurve, Floats, Thresholds, beyond
from ssad.bundle.schema import MISSING_CATEGORY, GraphInputs, TableSchema

Counts = npt.NDArray[np.int64]

SCORE_BINS = 100
"""Bins of the training scores: equal mass, so that the tail is seen as sharply as the bulk."""

COLUMN_BINS = 10
"""Bins of a column, and those that a score's stability index is taken over: deciles, the index's custom
[Siddiqi 2006, Credit Risk Scorecards]. More bins would find drift in noise: over k bins the index of n rows
that did not drift from N training rows is about k (1 / n + 1 / N)."""

MAX_COUNTED_CATEGORIES = 20
"""Most frequent categories of a column that are counted each; the others are counted together."""

EMPTY_CELL = 0.5
"""Rows that a cell without rows counts as at most in the stability index, which knows no share of nothing."""


def population_stability_index(expected_counts: npt.ArrayLike, observed_counts: npt.ArrayLike) -> float:
    """Population stability index of counts in the same cells: sum (o - e) ln(o / e) over their shares e, o.

    By custom below 0.1 nothing has changed, from 0.25 on the population is another one [Siddiqi 2006,
    Credit Risk Scorecards].

    Args:
        expected_counts: shape (k,), at least 0; an empty cell counts as `EMPTY_CELL` rows, or as the share that the
            other has there if that is less, as where a rare word does not come up among few rows.
        observed_counts: shape (k,), likewise.

    Returns:
        At least 0, symmetric in its arguments; 0 where either holds no rows.
    """
    expected, observed = np.asarray(expected_counts, np.float64), np.asarray(observed_counts, np.float64)
    if not expected.sum() or not observed.sum():
        return 0.0
    used = (expected > 0) | (observed > 0)
    e, o = expected[used] / expected.sum(), observed[used] / observed.sum()
    e, o = (
        np.where(e > 0, e, np.minimum(EMPTY_CELL / expected.sum(), o)),
        np.where(o > 0, o, np.minimum(EMPTY_CELL / observed.sum(), e)),
    )
    return float(((o - e) * np.log(o / e)).sum())


def kolmogorov_smirnov(expected_counts: npt.ArrayLike, observed_counts: npt.ArrayLike) -> float:
    """Largest difference of two cumulative shares, at the borders of ordered bins.

    That is the two-sample Kolmogorov-Smirnov statistic of the rows, but for what happens within a bin.

    Args:
        expected_counts: shape (k,), at least 0, bins in ascending order.
        observed_counts: shape (k,), likewise.

    Returns:
        In [0, 1]; 0 where either holds no rows.
    """
    expected, observed = np.asarray(expected_counts, np.float64), np.asarray(observed_counts, np.float64)
    if not expected.sum() or not observed.sum():
        return 0.0
    return float(np.abs(np.cumsum(expected) / expected.sum() - np.cumsum(observed) / observed.sum()).max())


def bin_edges(values: Floats, bins: int) -> Floats:
    """Edges of bins of about equal mass, each above the first open on the left: (edge, next edge].

    Edges are values of the data and no bin is empty; the highest value has a bin of its own where many rows
    share it, as the lowest one has. Shape (k + 1,) with k at most `bins`; empty without values.
    """
    if not len(values):
        return np.empty(0)
    low, high = values.min(), values.max()
    below = values[values < high]
    if not len(below):
        return np.asarray([low, high])
    inner = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf")
    return np.concatenate([[low], np.unique(np.minimum(inner, below.max())), [high]])


def bin_counts(edges: Floats, values: Floats) -> Counts:
    """Finite values in each bin, shape (k,); what lies beyond an outer edge is in the outer bin."""
    cuts = edges[1:-1]
    return np.bincount(np.searchsorted(cuts, values, side="left"), minlength=len(cuts) + 1)


@dataclass(frozen=True)
class RowCounts:
    """Rows counted in the cells of a `Reference`.

    Attributes:
        score: rows in each score bin.
        regions: rows in each of `REGIONS`.
        columns: name of a column -> rows in each of its cells.
    """

    score: Counts
    regions: Counts
    columns: dict[str, Counts]

    def __len__(self) -> int:
        return int(self.score.sum())


@dataclass(frozen=True)
class Drift:
    """What has moved since training.

    Attributes:
        rows: recent rows.
        score_psi: stability index of the scores, over at most `COLUMN_BINS` bins.
        score_ks: Kolmogorov-Smirnov statistic of the scores, in [0, 1].
        column_psi: name of a column -> its stability index; of a date that of missing ones, as time itself only grows.
        region_shares: region -> share of the recent rows; empty without rows.
        training_region_shares: region -> share of the training rows.
    """

    rows: int
    score_psi: float
    score_ks: float
    column_psi: dict[str, float]
    region_shares: dict[str, float]
    training_region_shares: dict[str, float]

    @property
    def moved(self) -> list[tuple[str, float]]:
        """Columns and their stability index, the one that moved most first."""
        return sorted(self.column_psi.items(), key=lambda column: -column[1])


class Reference:
    """The training rows as counts in cells, read from a bundle's `histogram.json`.

    A numeric column's cells are its bins and, last, missing; a categorical one's are its categories, other,
    and missing.
    """

    def __init__(self, document: dict[str, Any], schema: TableSchema, thresholds: Thresholds) -> None:
        self._schema, self._thresholds = schema, thresholds
        self._edges = np.asarray(document["edges"], np.float64)
        self._shares: dict[str, float] = document["region_shares"]
        self._cells: dict[str, Any] = document["columns"]
        self._score = np.asarray(document["counts"], np.int64)
        self._places = np.cumsum(self._score) / self._score.sum()
        self._dates = {column.name for column in schema.of_kind("date")}
        self._columns = {name: self._compared_counts(name, cells) for name, cells in self._cells.items()}

    def count(self, scores: Floats, inputs: GraphInputs) -> RowCounts:
        """Count rows, given as graph inputs with their scores, in the cells of the training rows."""
        columns = dict(zip(self._schema.graph_order, (*inputs.numeric.T, *inputs.categorical.T), strict=True))
        return RowCounts(
            bin_counts(self._edges, scores),
            np.bincount(self._thresholds.codes(scores), minlength=len(REGIONS)),
            {name: self._compared_counts(name, _count(self._cells[name], values)) for name, values in columns.items()},
        )

    def _compared_counts(self, name: str, cells: dict[str, Any]) -> Counts:
        """The counts of a column's cells; of a date whether there is one, as every later row is in the last bin."""
        flat = _flat_counts(cells)
        return np.asarray([flat[:-1].sum(), flat[-1]]) if name in self._dates else flat

    def quantiles(self, scores: Floats) -> Floats:
        """Place of each score among the training scores, by their bins: shape (n,), in (0, 1]."""
        places: Floats = self._places[np.searchsorted(self._edges[1:-1], scores)]
        return places.round(9)  # the sum of shares is to end at round numbers, not a rounding above

    def typical_values(self, column: str) -> npt.NDArray[Any]:
        """Values of a column spread over the training rows, as graph inputs: bin edges or frequent categories.

        The last is a missing one, where most were.
        """
        cells = self._cells[column]
        mostly_missing = 2 * cells["missing"] >= _flat_counts(cells).sum()
        known = cells["categories"] if "categories" in cells else np.unique(cells["edges"]).tolist()
        gap: list[Any] = [MISSING_CATEGORY if "categories" in cells else np.nan]
        typical = [*known, *(gap if mostly_missing or not known else [])]
        return np.asarray(typical, dtype=object if "categories" in cells else np.float64)

    def middle_value(self, column: str) -> Any:
        """The median of a column, as nearly as its bins tell, or its most frequent category; a graph input."""
        cells = self._cells[column]
        if "categories" in cells or not cells["edges"]:
            return self.typical_values(column)[0]
        counts = np.cumsum(cells["counts"])
        return cells["edges"][1 + int(np.searchsorted(counts, counts[-1] / 2))]

    def drift(self, recent: RowCounts) -> Drift:
        """Compare recent rows with the training rows."""
        rows = len(recent)
        shares = (recent.regions / rows).tolist() if rows else []
        return Drift(
            rows,
            population_stability_index(_deciles(self._score), _deciles(recent.score)),
            kolmogorov_smirnov(self._score, recent.score),
            {name: population_stability_index(c, recent.columns[name]) for name, c in self._columns.items()},
            dict(zip(REGIONS, shares, strict=False)),
            self._shares,
        )


def reference_document(
    scores: Floats, inputs: GraphInputs, schema: TableSchema, curve: ConfidenceCurve
) -> dict[str, Any]:
    """The training rows as counts: what `histogram.json` holds and `Reference` reads.

    Returns:
        `edges` (k + 1) and `counts` (k) of the scores, `region_shares`, and for each of the `columns` either
        `edges`, `counts` and `missing`, or `categories`, `counts`, `other` and `missing`.
    """
    # Clear of the scores, which many rows may share: another runtime rounds them to either side of an edge.
    edges = np.asarray([beyond(edge) for edge in bin_edges(scores, SCORE_BINS)])
    columns: dict[str, Any] = {}
    for column, values in zip(schema.numeric, inputs.numeric.T, strict=True):
        known = values[~np.isnan(values)]
        columns[column.name] = _count({"edges": bin_edges(known, COLUMN_BINS).tolist()}, values)
    for column, words in zip(schema.categorical, inputs.categorical.T, strict=True):
        known_words = [word for word in column.categories if word != MISSING_CATEGORY]
        columns[column.name] = _count({"categories": known_words[:MAX_COUNTED_CATEGORIES]}, words)
    return {
        "edges": edges.tolist(),
        "counts": bin_counts(edges, scores).tolist(),
        "region_shares": curve.thresholds.shares(scores),
        "columns": columns,
    }


def _count(cells: dict[str, Any], values: npt.NDArray[Any]) -> dict[str, Any]:
    """The cells of a column with the counts of these values."""
    if "categories" in cells:
        found = Counter(values.tolist())  # NumPy's own would give each word the room of the longest
        missing = found.pop(MISSING_CATEGORY, 0)
        listed = [found.pop(word, 0) for word in cells["categories"]]
        return {"categories": cells["categories"], "counts": listed, "other": sum(found.values()), "missing": missing}
    known = values[~np.isnan(values)]
    counts = bin_counts(np.asarray(cells["edges"], np.float64), known)
    return {"edges": cells["edges"], "counts": counts.tolist(), "missing": len(values) - len(known)}


def _flat_counts(cells: dict[str, Any]) -> Counts:
    others = [cells["other"]] if "other" in cells else []
    return np.asarray([*cells["counts"], *others, cells["missing"]], np.int64)


def _deciles(counts: Counts) -> Counts:
    """Counts of neighbouring bins put together, `COLUMN_BINS` groups at most."""
    starts = np.unique(np.linspace(0, len(counts), COLUMN_BINS, endpoint=False).astype(int))
    return np.add.reduceat(counts, starts)
