"""Contract tests for parts of your own: run them in your test suite, they raise AssertionError with a sentence.

from ssad.testing import check_analyzer, check_detector, check_estimator

def test_my_parts_keep_the_contracts():
    check_analyzer(MyAnalyzer())
    check_estimator(MyEstimator())
    check_detector("my_package.detectors:MY_PRESET")
"""

from __future__ import annotations

import copy
import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ssad.bundle import Bundle
from ssad.bundle.intervals import same_scores
from ssad.confidence_estimators import (
    ConfidenceIntervalsConfiguration,
    SupportsConfidenceEstimation,
    fit_estimator,
)
from ssad.detectors import FitSettings, FittedDetector, fit_detector
from ssad.distribution_analyzers import SupportsDistributionAnalysis

THRESHOLDS = ((0.0, 2.0), (1.0, 1.0), (0.0, math.inf), (-math.inf, 2.0), (-math.inf, math.inf))
"""Intervals to estimate under: all three, none unknown, none abnormal, none normal, all unknown."""


def distributions() -> dict[str, torch.Tensor]:
    """Scores by what is difficult about them, float64."""
    generator = np.random.default_rng(0)
    scores = {
        "a bulk with a tail": np.concatenate([generator.normal(0, 1, 270), generator.normal(8, 3, 30)]),
        "one score": np.asarray([3.0]),
        "two scores": np.asarray([3.0, 4.0]),
        "equal scores": np.full(50, 1e6),
        "zeros": np.zeros(50),
        "ties": generator.integers(0, 4, 200).astype(float),
        "one score apart from equal ones": np.append(np.zeros(200), 5.0),
        "a heavy tail": generator.standard_cauchy(300) ** 2,
        "one score far apart": np.append(generator.normal(size=200), 1e15),
        "tiny scores": 1e-12 * generator.normal(size=200),
    }
    return {name: torch.from_numpy(values) for name, values in scores.items()}


def check_analyzer(analyzer: SupportsDistributionAnalysis) -> None:
    """Run a distribution analyzer over difficult score distributions.

    It must give the same intervals whatever the order of the rows and whatever it was asked before, with
    and without intervals in force, for one row and for equal scores; leave the scores as they are; and
    draw a figure.

    Args:
        analyzer: before its first analysis; it is copied, not used.

    Raises:
        AssertionError: it does not; the message says on which scores.
    """
    _require(isinstance(analyzer, SupportsDistributionAnalysis), "it lacks a method of SupportsDistributionAnalysis")
    in_force = ConfidenceIntervalsConfiguration.from_thresholds(0.0, 2.0)
    for (name, scores), current in itertools.product(distributions().items(), (None, in_force)):
        _check_analysis(analyzer, name, scores, current)


def _check_analysis(
    analyzer: SupportsDistributionAnalysis,
    name: str,
    scores: torch.Tensor,
    current: ConfidenceIntervalsConfiguration | None,
) -> None:
    used, given = copy.deepcopy(analyzer), scores.clone()
    found = used.analyze_distribution(given, current)
    kind = type(found).__name__
    _require(isinstance(found, ConfidenceIntervalsConfiguration), f"it gave a {kind} for {name}, not a configuration")
    _require(torch.equal(given, scores), f"it changed the scores it was given ({name})")
    for order, other in (("in the same", scores), ("in another", scores.flip(0))):
        again = copy.deepcopy(analyzer).analyze_distribution(other.clone(), current)
        _require(again == found, f"{name} {order} order gave {again.as_dict()}, at first {found.as_dict()}")
    used.analyze_distribution(scores + 1, found)
    again = used.analyze_distribution(scores.clone(), current)
    _require(again == found, f"{name} asked again after others gave {again.as_dict()}, at first {found.as_dict()}")
    _require(isinstance(used.plot_analysis(plot_size=(3, 3)), Figure), f"it drew no figure of {name}")


def check_estimator(estimator: SupportsConfidenceEstimation) -> None:
    """Run a confidence estimator under every kind of intervals.

    Confidence must be one number in [-1, 1] a score, never rise with the score, never contradict the
    region by its sign, and be the same whatever rows come along; the scores stay as they are.

    Args:
        estimator: without intervals; it is copied, not used.

    Raises:
        AssertionError: it does not; the message says under which intervals.
    """
    _require(isinstance(estimator, SupportsConfidenceEstimation), "it lacks a name of SupportsConfidenceEstimation")
    for normal, abnormal in THRESHOLDS:
        used = copy.deepcopy(estimator)
        used.configuration = ConfidenceIntervalsConfiguration.from_thresholds(normal, abnormal)
        fit_estimator(used, distributions()["a bulk with a tail"])
        _check_confidence(used, used.configuration, f"under {used.configuration.as_dict()}")


def _check_confidence(
    estimator: SupportsConfidenceEstimation, intervals: ConfidenceIntervalsConfiguration, under: str
) -> None:
    scores = torch.linspace(-6, 12, 721, dtype=torch.float64)  # the finite thresholds are among them
    given = scores.clone()
    confidence = estimator.estimate_confidence(given)
    _require(torch.equal(given, scores), f"it changed the scores it was given, {under}")
    _require(
        confidence.shape == scores.shape, f"{len(scores)} scores got confidence of shape {confidence.shape}, {under}"
    )
    _require(bool((confidence.abs() <= 1).all()), f"confidence leaves [-1, 1], {under}")
    _require(bool((confidence.diff() <= 0).all()), f"confidence rises with the score, {under}")
    for region, sign in (("normal", 1), ("abnormal", -1)):
        members = getattr(intervals, region).contains_tensor_mask(scores)
        _require(bool((sign * confidence[members] >= 0).all()), f"{region} scores got the other sign, {under}")
    alone = torch.cat([estimator.estimate_confidence(score) for score in scores[:, None]])
    _require(torch.equal(alone, confidence), f"confidence of a score depends on the scores beside it, {under}")


def check_detector(detector: str) -> None:
    """Train a detector on a small table of numbers and words, a tenth of whose rows are far from the others.

    Scores must be finite, rank those rows above the others, and be the same alone as among others; the
    bundle must score as the network does; and the same seed must give the same bundle, byte by byte.

    Args:
        detector: name of a preset, or `module:attribute` of your own.

    Raises:
        AssertionError: it does not.
        SsadError: it cannot be found, or training it fails.
    """
    rows = _rows()
    fitted = fit_detector(rows, FitSettings(detector))
    far = np.arange(len(rows)) >= 0.9 * len(rows)
    scores = fitted.training_scores
    _require(bool(np.isfinite(scores).all()), "some training rows have no finite score")
    _require(np.median(scores[far]) > np.median(scores[~far]), "far rows score no higher than near ones")
    with tempfile.TemporaryDirectory() as folder:
        bundle = _written(fitted, Path(folder) / "first")
        _check_bundle(bundle, rows, fitted)
        again = _written(fit_detector(rows, FitSettings(detector)), Path(folder) / "second")
        _require(
            bundle.manifest["files"] == again.manifest["files"],
            "the same seed gave another bundle; draw random numbers from torch, NumPy or random alone",
        )


def _check_bundle(bundle: Bundle, rows: pd.DataFrame, fitted: FittedDetector) -> None:
    scores = bundle.score(rows).score
    _require(
        same_scores(scores, fitted.training_scores),
        f"the bundle's scores differ from the network's by up to {np.abs(scores - fitted.training_scores).max():.3g}",
    )
    alone = np.concatenate([bundle.score(rows.iloc[[at]]).score for at in range(10)])
    _require(same_scores(alone, scores[:10]), "the score of a row depends on the rows beside it")
    errors = bundle.errors(rows)
    _require(errors.shape == (len(rows), len(bundle.schema.columns)), f"the columns' errors have shape {errors.shape}")
    _require(bool(np.isfinite(errors).all() and (errors >= 0).all()), "a column's error is negative or not finite")


def _written(fitted: FittedDetector, path: Path) -> Bundle:
    fitted.write_bundle(path)
    return Bundle(path)


def _rows() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    near, far = generator.normal(0, 1, (270, 3)), generator.normal(0, 8, (30, 3))
    table = pd.DataFrame(np.vstack([near, far]), columns=["x", "y", "z"])
    return table.assign(kind=generator.choice(["a", "b"], 300))


def _require(condition: bool | np.bool_, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)
