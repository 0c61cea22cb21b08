"""Tables of ranking, on cases worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssad.workflows.benchmark import ranking
from tests.ssad.workflows.benchmark.conftest import measurement


def table(*rows: tuple[str, str, float], **more: Any) -> pd.DataFrame:
    """Measurements of (set, detector, auc) with seed 1."""
    seconds = {"fit_seconds": 1, "score_seconds": 0.5}
    names = [{"set": one, "seed": 1, "detector": other, "auc": auc, "ap": auc} for one, other, auc in rows]
    return pd.DataFrame(names).assign(**seconds, **more)


TWO_SETS = table(("a", "x", 0.9), ("a", "y", 0.8), ("b", "x", 0.7), ("b", "y", 0.2))


def test_the_summary_ranks_detectors_set_by_set() -> None:
    summary = ranking.summarize(TWO_SETS)
    assert summary["auc"].to_dict() == pytest.approx({"x": 0.8, "y": 0.5})
    assert summary["auc_rank"].to_dict() == {"x": 1.0, "y": 2.0}
    assert summary["fit_seconds"].to_dict() == {"x": 2.0, "y": 2.0}


def test_detectors_are_compared_set_by_set() -> None:
    row = ranking.paired(TWO_SETS, "x").to_dict("index")["x", "y", "auc"]
    assert (row["won"], row["tied"], row["lost"]) == (2, 0, 0)
    assert row["difference"] == pytest.approx(0.3)
    assert (row["low"], row["high"], row["least"]) == pytest.approx((0.1, 0.5, 0.1))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_an_interval_holds_the_mean_and_stays_within_the_values(values: list[float]) -> None:
    low, high = ranking.bootstrap_interval(np.asarray(values))
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12


def test_thirds_go_by_rank_of_the_sets() -> None:
    sets = pd.concat(
        [
            table((name, "x", auc), size=size, features=3, contamination=size / 1000)
            for name, auc, size in (("a", 0.9, 30), ("b", 0.5, 10), ("c", 0.7, 20))
        ]
    )
    thirds = ranking.thirds(sets).droplevel("detector")["auc"]
    assert [thirds["size", third] for third in ranking.THIRDS] == [0.5, 0.7, 0.9]
    assert [thirds["contamination", third] for third in ranking.THIRDS] == [0.5, 0.7, 0.9]


def test_a_pair_of_peers_errs_less_than_either_where_they_err_differently() -> None:
    labels = [0, 0, 0, 0, 1, 1]
    measured = {
        ("a", 1, "x"): measurement([1, 2, 3, 6, 4, 5], labels),
        ("a", 1, "y"): measurement([60, 20, 30, 10, 40, 50], labels),
        ("a", 1, "ours"): measurement([0] * 6, labels),
    }
    pairs = ranking.best_pairs(ranking.pair_table(measured, ["x", "y"]))
    assert pairs.index.tolist() == ["x + y"]
    assert pairs.loc["x + y", "auc"] == 1
    assert ranking.rank_table(measured)["auc"].tolist() == pytest.approx([0.75, 0.75, 0.5])


def test_no_peers_make_no_pairs() -> None:
    assert ranking.best_pairs(ranking.pair_table({("a", 1, "x"): measurement([1, 2], [0, 1])}, [])).empty
