"""The detector in scikit-learn's hands."""

from __future__ import annotations

import json
import os
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from ssad import AnomalyDetector
from ssad.detectors import PRESETS
from ssad.errors import BundleError, DatasetError, SettingsError, TrainingError
from ssad.modules import EnsembleModule
from tests.conftest import default_store
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


def test_no_part_of_it_is_what_mlflow_logs_by_itself(points: Any, tmp_path: Path) -> None:
    with default_store(f"sqlite:///{tmp_path}/mlflow.db"):
        mlflow.sklearn.autolog(silent=True, log_models=False)
        try:
            with mlflow.start_run() as run:
                AnomalyDetector(random_state=0, max_epochs=1).fit(points)
        finally:
            mlflow.sklearn.autolog(disable=True, silent=True)
        assert mlflow.get_run(run.info.run_id).data.params == {}


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


@pytest.mark.parametrize("detector", sorted(PRESETS))
def test_a_random_state_fixes_every_bit(detector: str, points: Any) -> None:
    first, same, other = (
        AnomalyDetector(detector, random_state=state, max_epochs=2).fit(points)
        for state in (0, np.random.RandomState(0), 1)
    )
    assert first.score_samples(points).tobytes() == same.score_samples(points).tobytes()
    assert (other.score_samples(points) != first.score_samples(points)).any()
    for name in ("detector.onnx", "intervals.json", "columns.json"):
        assert (first.bundle_.path / name).read_bytes() == (same.bundle_.path / name).read_bytes()


def test_fitting_leaves_the_global_random_states_alone(points: Any) -> None:
    np.random.seed(5)
    torch.manual_seed(5)
    expected = np.random.random(), float(torch.rand(1))
    np.random.seed(5)
    torch.manual_seed(5)
    before = dict(os.environ), torch.are_deterministic_algorithms_enabled()
    AnomalyDetector(random_state=0, max_epochs=1).fit(points)
    assert (np.random.random(), float(torch.rand(1))) == expected
    assert (dict(os.environ), torch.are_deterministic_algorithms_enabled()) == before


def test_a_fit_that_fails_leaves_the_global_random_states_alone(points: Any) -> None:
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    with pytest.raises(TrainingError):
        AnomalyDetector(random_state=0, learning_rate=1e30).fit(points)
    assert np.random.random() == expected


def test_what_torch_is_set_to_does_not_change_a_fit(points: Any, detector: AnomalyDetector) -> None:
    torch.set_default_dtype(torch.float64)
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # which its types do not know
    before, products.fp32_precision = products.fp32_precision, "bf16"
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            again = AnomalyDetector(random_state=0, max_epochs=3).fit(points)
            assert torch.is_autocast_enabled("cpu")
        assert (torch.get_default_dtype(), products.fp32_precision) == (torch.float64, "bf16")
    finally:
        torch.set_default_dtype(torch.float32)
        products.fp32_precision = before
    assert (again.anomaly_score(points) == detector.anomaly_score(points)).all()


def test_a_default_device_and_a_cast_change_neither_a_fit_nor_scores_nor_a_bundle(
    points: Any, detector: AnomalyDetector
) -> None:
    expected = detector.anomaly_score(points)
    with torch.device("meta"), torch.autocast("cpu"):  # on the one device nothing can be computed
        again = AnomalyDetector(random_state=0, max_epochs=3).fit(points)
        scores = again.anomaly_score(points)
        served = again.bundle_.score(pd.DataFrame(points).add_prefix("x")).score
        assert torch.get_default_device().type == "meta"
    assert (scores == expected).all()
    np.testing.assert_allclose(served, expected, rtol=1e-5)


def test_without_a_random_state_the_seed_comes_from_numpys(points: Any) -> None:
    np.random.seed(5)
    first = AnomalyDetector("radon", max_epochs=1).fit(points).score_samples(points)
    second = AnomalyDetector("radon", max_epochs=1).fit(points).score_samples(points)
    assert (first != second).any()


def test_an_unfitted_detector_has_no_bundle(tmp_path: Any) -> None:
    with pytest.raises(NotFittedError):
        AnomalyDetector().save(tmp_path / "detector")


def test_a_clone_has_the_settings_and_nothing_fitted(detector: AnomalyDetector, points: Any) -> None:
    copy = clone(detector)
    assert copy.get_params() == detector.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(points)
    with pytest.raises(NotFittedError):
        copy.confidence(points)


def test_a_frame_keeps_its_columns_of_any_kind(blobs: pd.DataFrame) -> None:
    detector = AnomalyDetector(random_state=0, max_epochs=2).fit(blobs)
    assert detector.n_features_in_ == 3
    assert detector.feature_names_in_.tolist() == ["x", "y", "kind"]
    assert detector.predict(blobs).shape == (300,)


def test_a_table_of_arrow_is_what_pandas_makes_of_it(blobs: pd.DataFrame) -> None:
    table = blobs.assign(day=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(blobs)) % 70, unit="h"))
    by_pandas, by_arrow = (
        AnomalyDetector("radon", max_epochs=1, random_state=0).fit(rows)
        for rows in (table, pa.Table.from_pandas(table))
    )
    assert by_arrow.bundle_.schema == by_pandas.bundle_.schema
    assert (by_arrow.score_samples(pa.Table.from_pandas(table)) == by_pandas.score_samples(table)).all()


def test_an_array_of_moments_is_refused(detector: AnomalyDetector) -> None:
    with pytest.raises(DatasetError, match="holds moments, expected numbers; pass a DataFrame"):
        detector.score_samples(np.full((3, 2), np.datetime64("2024-01-01")))


def test_the_values_of_a_frame_score_as_the_frame(points: Any) -> None:
    frame = pd.DataFrame(points, columns=["a", "b", "c"])
    by_frame = AnomalyDetector(random_state=0, max_epochs=2).fit(frame).score_samples(frame)
    by_array = AnomalyDetector(random_state=0, max_epochs=2).fit(points).score_samples(points)
    assert by_frame == pytest.approx(by_array)


def test_columns_go_by_position_where_one_has_names_and_the_other_none(points: Any) -> None:
    frame = pd.DataFrame(points, columns=["a", "b", "c"])
    by_frame = AnomalyDetector(random_state=0, max_epochs=1).fit(frame)
    by_array = AnomalyDetector(random_state=0, max_epochs=1).fit(points)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        assert by_frame.score_samples(points).tolist() == by_frame.score_samples(frame).tolist()
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        assert by_array.score_samples(frame).tolist() == by_array.score_samples(points).tolist()
    numbered = pd.DataFrame(points)
    by_number = AnomalyDetector(random_state=0, max_epochs=1).fit(numbered)
    assert by_number.score_samples(points).tolist() == by_number.score_samples(numbered[[2, 0, 1]]).tolist()
    with pytest.raises(ValueError, match="lack 3"):
        by_number.predict(numbered.add(0).set_axis([7, 8, 9], axis=1))


def test_missing_values_in_an_array_are_scored(points: Any) -> None:
    gaps = points.copy()
    gaps[::7, 1] = np.nan
    detector = AnomalyDetector(random_state=0, max_epochs=2).fit(gaps)
    assert np.isfinite(detector.score_samples(gaps)).all()


def test_a_masked_cell_is_missing(detector: AnomalyDetector, points: Any) -> None:
    hidden = np.ma.masked_array(points, np.arange(points.size).reshape(points.shape) % 7 == 0)
    assert (detector.score_samples(hidden) == detector.score_samples(hidden.filled(np.nan))).all()


def test_it_works_at_the_end_of_a_pipeline(points: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), AnomalyDetector("radon", random_state=0, max_epochs=2))
    assert pipeline.fit(points).predict(points).shape == (200,)
    assert pipeline.score_samples(points).shape == (200,)


@pytest.mark.parametrize("detector", sorted(PRESETS))
def test_a_grid_search_picks_what_ranks_labelled_rows_best(detector: str, points: Any) -> None:
    outliers = np.where(np.arange(200) < 190, 1, -1)
    search = GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("detect", AnomalyDetector(detector, random_state=0))]),
        {"detect__max_epochs": [1, 2]},
        scoring={"auc": "roc_auc", "mine": make_scorer(roc_auc_score, response_method="decision_function")},
        refit="auc",
        cv=StratifiedKFold(2, shuffle=True, random_state=0),
        error_score="raise",
    ).fit(points, outliers)
    assert search.cv_results_["mean_test_auc"].tolist() == search.cv_results_["mean_test_mine"].tolist()
    assert search.best_score_ == search.cv_results_["mean_test_auc"].max()
    alone = AnomalyDetector(detector, random_state=0, **{"max_epochs": search.best_params_["detect__max_epochs"]})
    scaled = StandardScaler().fit_transform(points)
    # The labels chose; they did not train.
    assert search.best_estimator_.score_samples(points).tolist() == alone.fit(scaled).score_samples(scaled).tolist()


def test_an_unknown_detector_is_refused_when_it_is_fitted(points: Any) -> None:
    with pytest.raises(SettingsError, match="did you mean 'grand'"):
        AnomalyDetector("grnd").fit(points)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_epochs": "3"}, "max_epochs must be a whole number, got '3'"),
        ({"max_epochs": 2.5, "batch_size": 2.5}, "max_epochs must be .* got 2.5; batch_size must be .* got 2.5"),
        ({"every_n_epochs": 1.5}, "every_n_epochs must be a whole number, got 1.5"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"alpha": "5%"}, "alpha must be a number, got '5%'"),
        ({"detector": None}, "there is no detector None"),
        ({"detector": 5}, "there is no detector 5"),
    ],
)
def test_a_setting_of_another_kind_is_named(points: Any, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        AnomalyDetector(**settings).fit(points)


def test_numbers_of_numpy_are_settings(points: Any, tmp_path: Any) -> None:
    counts = {"random_state": np.int64(0), "max_epochs": np.int64(1), "batch_size": np.int64(64)}
    numbers: dict[str, Any] = counts | {"learning_rate": np.float32(0.01), "alpha": np.float64(0.1)}
    detector = AnomalyDetector(**numbers).fit(points)
    detector.save(tmp_path / "detector")
    assert AnomalyDetector.load(tmp_path / "detector").get_params()["batch_size"] == 64


def test_threads_fit_and_score_as_one_thread_does(detector: AnomalyDetector, points: Any) -> None:
    expected = detector.score_samples(points).tolist()
    with ThreadPoolExecutor(4) as pool:
        scored = list(pool.map(lambda _: detector.score_samples(points).tolist(), range(16)))
        fitted = list(pool.map(lambda _: clone(detector).fit(points).score_samples(points).tolist(), range(4)))
    assert scored == [expected] * 16
    assert fitted == [expected] * 4


def test_a_detector_is_saved_and_pickled_while_others_score_by_it(
    detector: AnomalyDetector, points: Any, tmp_path: Path
) -> None:
    expected = detector.score_samples(points).tolist()
    many = np.tile(points, (50, 1))

    def saved(at: int) -> list[float]:
        fresh = pickle.loads(pickle.dumps(detector))
        with ThreadPoolExecutor(2) as scoring:
            scored = scoring.map(fresh.score_samples, [many] * 8)
            copies = [pickle.loads(pickle.dumps(fresh)) for _ in range(3)]
            fresh.save(tmp_path / str(at))
            list(scored)
        assert all(copy.score_samples(points).tolist() == expected for copy in copies)
        loaded: list[float] = AnomalyDetector.load(tmp_path / str(at)).score_samples(points).tolist()
        return loaded

    assert saved(0) == saved(1) == pytest.approx(expected, rel=1e-5)


def test_another_number_of_columns_is_refused(detector: AnomalyDetector, points: Any) -> None:
    with pytest.raises(ValueError, match="features"):
        detector.predict(points[:, :2])


def test_it_saves_and_loads(detector: AnomalyDetector, points: Any, tmp_path: Any) -> None:
    detector.save(tmp_path / "detector")
    loaded = AnomalyDetector.load(tmp_path / "detector")
    assert loaded.score_samples(points) == pytest.approx(detector.score_samples(points), rel=1e-5)
    assert loaded.predict(points).tolist() == detector.predict(points).tolist()
    assert loaded.region(points).tolist() == detector.region(points).tolist()
    assert loaded.get_params()["detector"] == "ssad"
    loaded.save(tmp_path / "again")
    assert (
        AnomalyDetector.load(tmp_path / "again").score_samples(points).tolist() == loaded.score_samples(points).tolist()
    )


def test_a_loaded_detector_knows_its_number_of_columns_and_saves_over_itself(points: Any, tmp_path: Any) -> None:
    flat = np.c_[points, np.ones(len(points))]
    AnomalyDetector(random_state=0, max_epochs=1).fit(flat).save(tmp_path / "detector")
    loaded = AnomalyDetector.load(tmp_path / "detector")
    assert loaded.n_features_in_ == 4
    with pytest.raises(ValueError, match="5 features"):
        loaded.predict(np.c_[flat, flat[:, 0]])
    before = loaded.score_samples(flat)
    loaded.save(tmp_path / "detector")
    assert (AnomalyDetector.load(tmp_path / "detector").score_samples(flat) == before).all()


def test_an_array_for_named_columns_of_which_some_were_left_out_is_refused(points: Any, tmp_path: Any) -> None:
    frame = pd.DataFrame(points, columns=["x1", "x2", "x3"]).assign(x3=1.0)
    fitted = AnomalyDetector(random_state=0, max_epochs=1).fit(frame)
    fitted.save(tmp_path / "m")
    loaded = AnomalyDetector.load(tmp_path / "m")
    with pytest.raises(DatasetError, match="an array does not tell which is which; pass a DataFrame"):
        loaded.predict(frame.to_numpy())
    assert loaded.anomaly_score(frame) == pytest.approx(fitted.anomaly_score(frame), rel=1e-5)


@pytest.mark.parametrize("plan", [None, {}, {"seed": 0, "colour": "red"}], ids=["none", "empty", "of another kind"])
def test_a_manifest_that_does_not_tell_the_settings_is_refused(
    detector: AnomalyDetector, tmp_path: Any, plan: Any
) -> None:
    detector.save(tmp_path / "m")
    manifest = tmp_path / "m" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"plan": plan}))
    with pytest.raises(BundleError, match=r"manifest\.json of the bundle .* does not tell how it was trained"):
        AnomalyDetector.load(tmp_path / "m")


def test_columns_that_are_left_out_are_said_with_the_reason(points: Any, caplog: pytest.LogCaptureFixture) -> None:
    AnomalyDetector(random_state=0, max_epochs=1).fit(np.c_[points, np.ones(len(points))])
    assert "columns were left out: x3 (has one value in every row)" in caplog.text


def test_a_loaded_detector_takes_an_array_by_position(points: Any, tmp_path: Any) -> None:
    frame = pd.DataFrame(points, columns=["z", "a", "m"])
    AnomalyDetector(random_state=0, max_epochs=1).fit(frame).save(tmp_path / "m")
    (tmp_path / "m" / "notes").mkdir()  # no part of the bundle
    loaded = AnomalyDetector.load(tmp_path / "m")
    for one in (loaded, pickle.loads(pickle.dumps(loaded))):
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            assert np.array_equal(one.anomaly_score(points), one.anomaly_score(frame))


def test_a_loaded_detector_of_an_array_takes_a_frame_by_position(points: Any, tmp_path: Any) -> None:
    AnomalyDetector(random_state=0, max_epochs=1).fit(points).save(tmp_path / "m")
    loaded = AnomalyDetector.load(tmp_path / "m")
    frame = pd.DataFrame(points, columns=["z", "a", "m"])
    assert np.array_equal(loaded.anomaly_score(frame), loaded.anomaly_score(points))
    with pytest.raises(DatasetError, match="lack 3 of the detector's 3 columns"):
        loaded.anomaly_score(frame.assign(more=1.0))


def test_a_fit_that_fails_leaves_nothing_fitted(points: Any) -> None:
    detector = AnomalyDetector(random_state=0, max_epochs=1).fit(points)
    with pytest.raises(DatasetError):
        detector.fit(np.ones((50, 2)))
    with pytest.raises(NotFittedError):
        detector.predict(points)


def test_ctrl_c_interrupts_a_fit_and_is_not_ignored_after_it(points: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(EnsembleModule, "prepare_scoring", interrupt)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        AnomalyDetector().fit(points)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_loaded_detector_is_its_own_whatever_becomes_of_the_folder(points: Any, tmp_path: Any) -> None:
    one, other = (AnomalyDetector(max_epochs=1, random_state=seed).fit(points) for seed in (1, 2))
    one.save(tmp_path / "m")
    loaded = AnomalyDetector.load(tmp_path / "m")
    scores = loaded.anomaly_score(points)
    other.save(tmp_path / "m")
    loaded.save(tmp_path / "again")
    for kept in (loaded, pickle.loads(pickle.dumps(loaded)), AnomalyDetector.load(tmp_path / "again")):
        assert np.array_equal(kept.anomaly_score(points), scores)


def test_saving_does_not_change_its_scores(points: Any, tmp_path: Any) -> None:
    detector = AnomalyDetector("radon", random_state=0, max_epochs=1).fit(points)
    before = detector.score_samples(points)
    detector.save(tmp_path / "detector")
    assert (detector.score_samples(points) == before).all()
    refitted = detector.fit(points[:100])
    assert refitted.bundle_.manifest["training_rows"] == 100


def test_it_is_not_saved_over_a_file(detector: AnomalyDetector, tmp_path: Any) -> None:
    (tmp_path / "notes").write_text("precious")
    with pytest.raises(SettingsError, match="notes is a file; name a folder"):
        detector.save(tmp_path / "notes")
    with pytest.raises(SettingsError, match=r"cannot be saved in .*Not a directory"):
        detector.save(tmp_path / "notes" / "detector")
    assert (tmp_path / "notes").read_text() == "precious"


def test_it_survives_pickling(detector: AnomalyDetector, points: Any) -> None:
    copy = pickle.loads(pickle.dumps(detector))
    assert copy.score_samples(points) == pytest.approx(detector.score_samples(points))


@pytest.mark.slow
@pytest.mark.parametrize("detector", sorted(PRESETS))
def test_scikit_learns_own_checks_pass(detector: str) -> None:
    results = check_estimator(AnomalyDetector(detector, random_state=0, max_epochs=1), on_fail=None, on_skip=None)
    failed = {r["check_name"]: f"{type(r['exception']).__name__}: {r['exception']}" for r in results if r["exception"]}
    assert {name: text for name, text in failed.items() if "SkipTest" not in text} == {}
