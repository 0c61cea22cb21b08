"""Tables that break detectors: each gets a clear error or a right and finite score, never a silent NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ssad import AnomalyDetector
from ssad.detectors import PRESETS
from ssad.errors import DatasetError
from ssad.modules.ensemble_module import LARGEST_LOG
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = QUIET_LIBRARIES

Generator = np.random.Generator

every_detector = pytest.mark.parametrize("name", sorted(PRESETS))


def detector(name: str) -> AnomalyDetector:
    return AnomalyDetector(name, random_state=0, max_epochs=4)


def correlated(generator: Generator, rows: int, columns: int) -> Any:
    """Rows near a plane, with noise."""
    code = generator.normal(0, 1, (rows, 2))
    return code @ generator.normal(0, 1, (2, columns)) + generator.normal(0, 0.1, (rows, columns))


def with_gaps(generator: Generator) -> Any:
    rows = correlated(generator, 200, 4)
    rows[::9, 1], rows[::11, 2], rows[::13, 3] = np.nan, np.inf, -np.inf
    return rows


def with_a_constant_column(generator: Generator) -> Any:
    rows = correlated(generator, 200, 4)
    rows[:, 2] = 7
    return rows


def duplicated(generator: Generator) -> Any:
    return np.repeat(correlated(generator, 5, 4), 1000, axis=0)


def with_a_text_column(generator: Generator) -> Any:
    numbers = pd.DataFrame(correlated(generator, 200, 4)).add_prefix("f")
    return numbers.assign(kind=generator.choice(["a", "b", "c"], 200), name=[f"user {i}" for i in range(200)])


FINITE: dict[str, Callable[[Generator], Any]] = {
    "missing and infinite cells": with_gaps,
    "a constant column": with_a_constant_column,
    "more columns than rows": lambda generator: correlated(generator, 20, 60),
    "1,500 columns": lambda generator: correlated(generator, 60, 1500),
    "duplicated rows": duplicated,
    "text columns": with_a_text_column,
    "two rows": lambda generator: correlated(generator, 2, 4),
    "values near the end of the range": lambda generator: correlated(generator, 200, 4) * 1e307,
}


def far_away(rows: Any) -> Any:
    """A row like the first, its numbers far off in turn to either side."""
    far = rows[:1].copy()
    if isinstance(far, pd.DataFrame):
        numbers = [str(name) for name in far.columns if str(name).startswith("f")]
        return far.assign(**{name: (-1.0) ** i * 1e9 for i, name in enumerate(numbers)})
    far[0] = np.where(np.arange(far.shape[1]) % 2, -1.7e308, 1.7e308)
    return far


@every_detector
@pytest.mark.parametrize("table", FINITE)
def test_scores_are_finite_and_a_far_row_stands_out(name: str, table: str) -> None:
    rows = FINITE[table](np.random.default_rng(0))
    fitted = detector(name).fit(rows)
    scores = fitted.anomaly_score(rows)
    assert np.isfinite(scores).all()
    assert np.isfinite(fitted.confidence(rows)).all()
    assert set(fitted.predict(rows).tolist()) <= {1, -1}
    assert fitted.anomaly_score(far_away(rows)) > np.median(scores)


@every_detector
def test_equal_rows_score_equal(name: str) -> None:
    rows = duplicated(np.random.default_rng(0))
    scores = detector(name).fit(rows).anomaly_score(rows).reshape(5, 1000)
    assert scores == pytest.approx(np.repeat(scores[:, :1], 1000, axis=1), rel=1e-9)


@every_detector
def test_cells_missing_from_rows_to_score_are_scored(name: str) -> None:
    rows = correlated(np.random.default_rng(0), 200, 4)
    fitted = detector(name).fit(rows)
    for value in (np.nan, np.inf, -np.inf, 1.7e308):
        assert np.isfinite(fitted.anomaly_score(np.full((3, 4), value))).all()


@pytest.mark.parametrize("name", ["grand", "ssad"])
def test_one_column_is_enough(name: str) -> None:
    rows = np.random.default_rng(0).normal(0, 1, (200, 1))
    scores = detector(name).fit(rows).anomaly_score(np.vstack([rows, [[1e6]]]))
    assert np.isfinite(scores).all()
    assert scores[-1] >= scores[:-1].max()


def test_one_column_has_no_direction_for_radon() -> None:
    with pytest.raises(DatasetError, match=r"at least 2 features, got 1 feature\(s\).*use detector ssad or grand"):
        detector("radon").fit(np.random.default_rng(0).normal(0, 1, (200, 1)))


REFUSED: dict[str, tuple[Any, str]] = {
    "one row": (np.zeros((1, 3)), "minimum of 2 is required"),
    "one row of a frame": (pd.DataFrame({"a": [1.0], "b": [2.0]}), r"1 row\(s\) .* bring more data"),
    "no rows": (np.zeros((0, 3)), "minimum of 2 is required"),
    "no columns": (pd.DataFrame(index=range(5)), r"0 column\(s\)"),
    "all rows equal": (np.ones((50, 3)), "one value in every row.*bring columns whose values differ"),
    "no values": (np.full((50, 3), np.nan), "has no values"),
    "text in an array": (np.array([["tcp", "1"], ["udp", "2"]] * 20), "holds text.*pass a DataFrame"),
    "text among objects": (np.array([["tcp", 1.0], ["udp", 2.0]] * 20, dtype=object), "pass a DataFrame"),
    "text that identifies rows": (pd.DataFrame({"name": [f"user {i}" for i in range(200)]}), "identifies rows"),
    "columns of one name": (pd.DataFrame(np.ones((9, 3)), columns=["a", "a", "b"]), r"not unique \(a\); rename"),
    "one dimension": (np.arange(9.0), "Expected 2D array"),
}


@every_detector
@pytest.mark.parametrize("table", REFUSED)
def test_a_table_without_anything_to_learn_is_refused(name: str, table: str) -> None:
    rows, message = REFUSED[table]
    with pytest.raises(ValueError, match=message):
        detector(name).fit(rows)


def test_a_frame_without_a_column_it_was_fitted_on_is_refused() -> None:
    frame = with_a_text_column(np.random.default_rng(0))
    fitted = detector("radon").fit(frame)
    with pytest.raises(ValueError, match="kind"):
        fitted.predict(frame.drop(columns="kind"))
    with pytest.raises(DatasetError, match=r"0 row\(s\)"):
        fitted.predict(frame[:0])


@pytest.mark.parametrize("far", [[1e7], [1e10], [-1e8], [-1e10], [-1e9, 1e9]], ids=str)
def test_far_cells_do_not_hide_what_else_their_column_tells(far: list[float]) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(1500, 6))
    values[:60, 0] += 8
    expected = np.arange(1500) < 60
    values[-len(far) :, 0] = far
    scores = AnomalyDetector(random_state=0).fit(values).anomaly_score(values)
    assert roc_auc_score(expected[:-2], scores[:-2]) > 0.95


def test_an_outlier_of_a_small_table_does_not_mean_missing() -> None:
    values = np.random.default_rng(0).normal(size=(150, 6))
    values[7, 0] = 60
    detector = AnomalyDetector(random_state=0).fit(values)
    asked = np.repeat(values[:1], 4, axis=0)
    asked[:, 0] = [np.nan, 59, 60, 61]
    assert detector.region(asked).tolist() == ["normal", "abnormal", "abnormal", "abnormal"]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("mark", [-999.0, 1e9])
def test_a_number_that_means_missing_does_not_hide_its_column(mark: float, share: float) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(1500, 6))
    values[:60, 0] += 8
    marked = np.arange(1500) >= 1500 * (1 - share)
    values[marked, 0] = mark
    scores = AnomalyDetector(random_state=0).fit(values).anomaly_score(values)
    assert roc_auc_score(np.arange(1500)[~marked] < 60, scores[~marked]) > 0.95


@pytest.mark.parametrize("share", [0.88, 0.92, 0.95])
def test_rows_that_differ_are_ranked_where_most_are_alike(share: float) -> None:
    generator = np.random.default_rng(0)
    values = np.zeros((2000, 5))
    others = np.arange(round(2000 * share), 2000)
    values[others] = generator.normal(1, 0.3, size=(len(others), 5))
    values[others[-20:]] *= 4
    scores = AnomalyDetector(random_state=0).fit(values).anomaly_score(values)
    assert scores.max() < math.exp(LARGEST_LOG)
    assert roc_auc_score(others >= 1980, scores[others]) > 0.8


@pytest.mark.parametrize(("rate", "warns"), [(0.15, True), (2.0, False)])
def test_radon_says_which_share_of_the_rows_has_no_direction(
    rate: float, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    counts = np.random.default_rng(0).poisson(rate, (600, 6)).astype(float)
    radon = AnomalyDetector("radon", random_state=0, max_epochs=1).fit(counts)
    share = (counts == 0).all(axis=1).mean()
    said = f"{share:.0%} of the training rows have none" in caplog.text and "use detector ssad or grand" in caplog.text
    assert said == warns
    assert radon.anomaly_score(np.zeros((1, 6)))[0] == 1
