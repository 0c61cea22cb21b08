"""The detector in scikit-learn's hands."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from ssad import AnomalyDetector
from ssad.errors import SettingsError
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = QUIET_LIBRARIES


@pytest.fixture(scope="module")
def points() -> Any:
    generator = np.random.default_rng(0)
    return np.vstack([generator.normal(0, 1, (190, 3)), generator.normal(0, 9, (10, 3))])


@pytest.fixture(scope="module")
def detector(points: Any) -> AnomalyDetector:
    return AnomalyDetector(random_state=0, max_epochs=3).fit(points)


def test_it_is_an_outlier_detector() -> None:
    assert is_outlier_detector(AnomalyDetector())


def test_signs_are_those_of_scikit_learn(detector: AnomalyDetector, points: Any) -> None:
    assert detector.score_samples(points) == pytest.approx(-detector.anomaly_score(points))
    decision = detector.decision_function(points)
    assert decision == pytest.approx(detector.score_samples(points) - detector.offset_)
    predicted = detector.predict(points)
    assert set(predicted.tolist()) <= {1, -1}
    assert (predicted[decision < 0] == -1).all()
    assert (predicted[decision > 0] == 1).all()
    assert (predicted[detector.region(points) == "abnormal"] == -1).all()
    assert (predicted[detector.region(points) == "normal"] == 1).all()
    assert ((predicted == -1) == (detector.confidence(points) < 0)).all()


def test_far_points_score_higher(detector: AnomalyDetector) -> None:
    scores = detector.anomaly_score(np.array([[0.0, 0.0, 0.0], [30.0, -30.0, 30.0]]))
    assert scores[1] > scores[0]
    assert detector.predict(np.array([[1e6, -1e6, 1e6]])).tolist() == [-1]


def test_confidence_lies_between_minus_one_and_one(detector: AnomalyDetector, points: Any) -> None:
    confidence = detector.confidence(points)
    assert confidence.shape == (200,)
    assert np.abs(confidence).max() <= 1


def test_fit_predict_is_fit_and_predict(points: Any, detector: AnomalyDetector) -> None:
    assert (AnomalyDetector(random_state=0, max_epochs=3).fit_predict(points) == detector.predict(points)).all()


def test_a_random_state_makes_it_reproducible(points: Any, detector: AnomalyDetector) -> None:
    same = AnomalyDetector(random_state=0, max_epochs=3).fit(points)
    other = AnomalyDetector(random_state=1, max_epochs=3).fit(points)
    assert (same.score_samples(points) == detector.score_samples(points)).all()
    assert (other.score_samples(points) != detector.score_samples(points)).any()


def test_a_clone_has_the_settings_and_nothing_fitted(detector: AnomalyDetector, points: Any) -> None:
    copy = clone(detector)
    assert copy.get_params() == detector.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(points)


def test_a_frame_keeps_its_columns_of_any_kind(blobs: pd.DataFrame) -> None:
    detector = AnomalyDetector(random_state=0, max_epochs=2).fit(blobs)
    assert detector.n_features_in_ == 3
    assert detector.feature_names_in_.tolist() == ["x", "y", "kind"]
    assert detector.predict(blobs).shape == (300,)


def test_the_values_of_a_frame_score_as_the_frame(points: Any) -> None:
    frame = pd.DataFrame(points, columns=["a", "b", "c"])
    by_frame = AnomalyDetector(random_state=0, max_epochs=2).fit(frame).score_samples(frame)
    by_array = AnomalyDetector(random_state=0, max_epochs=2).fit(points).score_samples(points)
    assert by_frame == pytest.approx(by_array)


def test_missing_values_in_an_array_are_scored(points: Any) -> None:
    gaps = points.copy()
    gaps[::7, 1] = np.nan
    detector = AnomalyDetector(random_state=0, max_epochs=2).fit(gaps)
    assert np.isfinite(detector.score_samples(gaps)).all()


def test_it_works_at_the_end_of_a_pipeline(points: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), AnomalyDetector("radon", random_state=0, max_epochs=2))
    assert pipeline.fit(points).predict(points).shape == (200,)
    assert pipeline.score_samples(points).shape == (200,)


def test_an_unknown_detector_is_refused_when_it_is_fitted(points: Any) -> None:
    with pytest.raises(SettingsError, match="did you mean 'grand'"):
        AnomalyDetector("grnd").fit(points)


def test_another_number_of_columns_is_refused(detector: AnomalyDetector, points: Any) -> None:
    with pytest.raises(ValueError, match="features"):
        detector.predict(points[:, :2])


def test_it_saves_and_loads(detector: AnomalyDetector, points: Any, tmp_path: Any) -> None:
    detector.save(tmp_path / "detector")
    loaded = AnomalyDetector.load(tmp_path / "detector")
    assert loaded.score_samples(points) == pytest.approx(detector.score_samples(points))
    assert loaded.predict(points).tolist() == detector.predict(points).tolist()


def test_it_survives_pickling(detector: AnomalyDetector, points: Any) -> None:
    copy = pickle.loads(pickle.dumps(detector))
    assert copy.score_samples(points) == pytest.approx(detector.score_samples(points))


@pytest.mark.slow
def test_scikit_learns_own_checks_pass() -> None:
    results = check_estimator(AnomalyDetector(random_state=0, max_epochs=1), on_fail=None, on_skip=None)
    failed = {r["check_name"]: f"{type(r['exception']).__name__}: {r['exception']}" for r in results if r["exception"]}
    assert {name: text for name, text in failed.items() if "SkipTest" not in text} == {}
