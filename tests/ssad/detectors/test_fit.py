"""What every preset keeps: a bundle scores as the network does, the same seed gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn

from ssad.bundle import REGIONS, Bundle
from ssad.bundle.bundle import ERRORS_GRAPH, ERRORS_OUTPUT, FILES, FORMAT_VERSION, GRAPH, MANIFEST, copy_bundle
from ssad.confidence_estimators import BinaryConfidence
from ssad.datamodules import features
from ssad.datasets import table_rows as table_rows_module
from ssad.datasets.table_rows import open_rows, table_rows
from ssad.detectors import PRESETS, FitSettings, FittedDetector, Plan, Preset, fit_detector
from ssad.detectors.fit import hold_back
from ssad.distribution_analyzers import TriangularThresholding
from ssad.errors import BundleError, DatasetError, RowsError, SettingsError, TrainingError
from ssad.modules import CosineReconstructionModule
from tests.conftest import PROJECT, SHARED_DATA
from tests.ssad.workflows.support import QUIET_LIBRARIES, sign

pytestmark = QUIET_LIBRARIES

every_preset = pytest.mark.parametrize("name", sorted(PRESETS))
ROWS = 120


def fitted(rows: pd.DataFrame, name: str = "ssad", seed: int = 0, **more: Any) -> FittedDetector:
    return fit_detector(rows, FitSettings(name, max_epochs=more.pop("max_epochs", 2), seed=seed, **more))


def bundle_of(detector: FittedDetector, folder: Path) -> Bundle:
    detector.write_bundle(folder)
    return Bundle(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module", params=sorted(PRESETS))
def written(
    request: pytest.FixtureRequest, blobs: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FittedDetector, Bundle]:
    """Each preset fitted to `blobs`, and its bundle: an export takes seconds."""
    detector = fitted(blobs, request.param)
    return detector, bundle_of(detector, tmp_path_factory.mktemp("written"))


def numeric(generator: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(generator.normal(size=(ROWS, 3)), columns=["a", "b", "c"])


def one_column(generator: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame({"a": generator.normal(size=ROWS)})


def rare_flags(generator: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(generator.random((2000, 3)) < 0.02, columns=["a", "b", "c"])


def mostly_equal(generator: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(generator.normal(size=(2000, 6)) * (generator.random((2000, 1)) < 0.1)).add_prefix("x")


def one_categorical_column(generator: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame({"kind": generator.choice(["a", "b", "c"], ROWS)})


def only_categorical(generator: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame({name: generator.choice(["north", "süd", "", "x y"], ROWS) for name in ("p", "q")})


def with_dates(generator: np.random.Generator) -> pd.DataFrame:
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(generator.integers(0, 900, ROWS), unit="D")
    hours = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    words = days.strftime("%Y-%m-%dT%H:%M:%S")
    return pd.DataFrame({"day": days, "hour": hours, "written": words, "a": generator.normal(size=ROWS)})


def with_booleans(generator: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame({"on": generator.random(ROWS) < 0.3, "a": generator.normal(size=ROWS)})


def with_missing_values(generator: np.random.Generator) -> pd.DataFrame:
    table = numeric(generator).assign(kind=generator.choice(["a", "b"], ROWS))
    table["a"] = table["a"].mask(generator.random(ROWS) < 0.3)
    table["b"] = table["b"].where(generator.random(ROWS) > 0.1, np.inf)
    table["c"] = table["c"].mask(generator.random(ROWS) < 0.2, -999.0)
    table["kind"] = table["kind"].mask(generator.random(ROWS) < 0.2)
    return table


def mostly_missing(generator: np.random.Generator) -> pd.DataFrame:
    table = numeric(generator)
    table["a"] = table["a"].where(np.arange(ROWS) < 2)
    return table


def wider_than_long(generator: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(generator.normal(size=(30, 50))).add_prefix("x")


def with_constants(generator: np.random.Generator) -> pd.DataFrame:
    return numeric(generator).assign(one=1, nothing=np.nan, word="w", almost=np.r_[np.zeros(ROWS - 1), 5.0])


def with_large_numbers(generator: np.random.Generator) -> pd.DataFrame:
    return numeric(generator) * [1e12, 1e-12, 1] + [1e15, 0, -7]


Make = Callable[[np.random.Generator], pd.DataFrame]
TABLES: list[Make] = [
    numeric,
    one_column,
    rare_flags,
    mostly_equal,
    one_categorical_column,
    only_categorical,
    with_dates,
    with_booleans,
    with_missing_values,
    mostly_missing,
    wider_than_long,
    with_constants,
    with_large_numbers,
]


# The exported network differs by preset, what goes before it only by table: not every pair is worth a second, and
# one column has no direction for RADON to compare.
FEW_TABLES = (one_column, only_categorical, with_missing_values, wider_than_long)


@pytest.mark.parametrize(
    ("name", "make"),
    [("ssad", make) for make in TABLES]
    + [(name, make) for name in ("radon", "grand") for make in FEW_TABLES if (name, make) != ("radon", one_column)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_bundle_scores_as_the_network_does(name: str, make: Make, tmp_path: Path) -> None:
    rows, fresh = make(np.random.default_rng(0)), make(np.random.default_rng(1))
    detector = fitted(rows, name)
    bundle = bundle_of(detector, tmp_path)
    bundle.check_golden()
    for table in (rows, fresh):
        scores = bundle.score(table)
        assert scores.score == pytest.approx(detector.score(table), rel=1e-5, abs=1e-10)
        assert np.isfinite(scores.score).all()
        assert ((scores.confidence >= -1) & (scores.confidence <= 1)).all()
        assert set(scores.region.tolist()) <= set(REGIONS)
        assert bundle.errors(table).shape == (len(table), len(bundle.schema.columns))


@every_preset
def test_the_column_that_was_spoiled_is_the_one_that_deviates_most(name: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = pd.DataFrame(generator.normal(size=(500, 2)) @ generator.normal(size=(2, 6))).add_prefix("x")
    rows["amount"], rows["word"] = generator.normal(50, 10, 500), generator.choice(list("abcdef"), 500)
    bundle = bundle_of(fitted(rows, name), tmp_path)
    errors = bundle.errors(rows.head(50).assign(amount=9999.0))
    named = np.asarray(bundle.schema.graph_order)[errors.argmax(axis=1)]
    assert (named == "amount").mean() > 0.9
    assert bundle.errors(rows).mean(axis=0) == pytest.approx(np.ones(8), rel=1e-3)


def test_scores_of_the_training_rows_are_those_that_were_kept(
    written: tuple[FittedDetector, Bundle], blobs: pd.DataFrame
) -> None:
    detector, bundle = written
    assert bundle.score(blobs).score == pytest.approx(detector.training_scores, rel=1e-5)
    shares = bundle.histogram["region_shares"]
    found = bundle.score(blobs).region
    assert shares == pytest.approx({region: float(np.mean(found == region)) for region in REGIONS})
    assert sum(bundle.histogram["counts"]) == len(blobs)


@every_preset
def test_intervals_are_those_of_weights_that_were_averaged_at_the_end(name: str, blobs: pd.DataFrame) -> None:
    settings = FitSettings(name, max_epochs=4)
    detector = fit_detector(blobs, settings, callbacks=[StochasticWeightAveraging(1e-2, swa_epoch_start=1)])
    assert detector.score(blobs) == pytest.approx(detector.training_scores, rel=1e-5)


@every_preset
def test_the_bundled_thresholds_are_those_of_the_final_weights(name: str, blobs: pd.DataFrame) -> None:
    detector = fitted(blobs, name, max_epochs=3)
    configuration = detector.module.confidence_estimator.configuration
    assert configuration is not None
    assert detector.score(blobs) == pytest.approx(detector.training_scores, rel=1e-5)
    assert detector.curve.thresholds == configuration.thresholds


def test_the_served_confidence_falls_as_the_score_rises_and_agrees_with_the_region(
    written: tuple[FittedDetector, Bundle],
) -> None:
    curve = written[0].curve
    at = np.linspace(-1, 300, 5001)
    confidence, regions = curve(at), curve.thresholds.regions(at)
    assert (np.diff(confidence) <= 1e-12).all()
    assert (confidence[regions == "normal"] >= 0).all()
    assert (confidence[regions == "abnormal"] <= 0).all()


class Tied(nn.Module):
    """An autoencoder whose two layers are one."""

    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.activation = nn.Linear(width, width), nn.Linear(width, width), activation
        self.second.weight = self.first.weight

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.second(self.activation(self.first(rows)))
        return found


class SingleModule(CosineReconstructionModule):
    scoring_dtype = torch.float32


def tied(activation: nn.Module, module: type[CosineReconstructionModule]) -> Preset:
    def build(features: torch.Tensor, every_n_epochs: int, learning_rate: float) -> CosineReconstructionModule:
        network = Tied(features.shape[1], activation)
        return module(network, every_n_epochs, BinaryConfidence(), TriangularThresholding())

    return Preset(lambda batches: 1, 1, 1e-3, build)


TIED, LEAKY, LEAKY_IN_SINGLE = (
    tied(nn.Tanh(), CosineReconstructionModule),
    tied(nn.LeakyReLU(), CosineReconstructionModule),
    tied(nn.LeakyReLU(), SingleModule),
)


@pytest.mark.parametrize("name", ["TIED", "LEAKY_IN_SINGLE"])
def test_layers_may_share_their_weights(name: str, blobs: pd.DataFrame, tmp_path: Path) -> None:
    detector = fitted(blobs, f"{__name__}:{name}")
    assert bundle_of(detector, tmp_path).score(blobs).score == pytest.approx(detector.training_scores, rel=1e-4)


def test_a_layer_that_the_runtime_lacks_is_told_with_its_remedy(blobs: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"LeakyRelu.*; set scoring_dtype = torch\.float32"):
        fitted(blobs, f"{__name__}:LEAKY").write_bundle(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_graphs_hold_nothing_that_onnxruntime_has_in_double_precision_only_lately(tmp_path: Path) -> None:
    fitted(with_dates(np.random.default_rng(0))).write_bundle(tmp_path)
    nodes = onnx.load(tmp_path / ERRORS_GRAPH).graph.node
    made_by = {output: node.op_type for node in nodes for output in node.output}
    assert "Cos" not in made_by.values()
    assert made_by[ERRORS_OUTPUT] == "Gemm"


def test_a_graph_with_an_operator_that_the_runtime_lacks_asks_for_another_runtime(
    written: tuple[FittedDetector, Bundle], tmp_path: Path
) -> None:
    copy_bundle(written[1].path, tmp_path)
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, 4 * [1]) for name in ("x", "y")]
    lacking = onnx.helper.make_graph([onnx.helper.make_node("LRN", ["x"], ["y"], size=1)], "g", values[:1], values[1:])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(lacking, opset_imports=opset, ir_version=10), tmp_path / GRAPH)
    sign(tmp_path, GRAPH)
    with pytest.raises(BundleError, match=r"NOT_IMPLEMENTED.*; upgrade onnxruntime\."):
        Bundle(tmp_path)


def test_another_seed_gives_other_scores(  # that the same one gives the same bytes, every detector's contract says
    written: tuple[FittedDetector, Bundle], blobs: pd.DataFrame
) -> None:
    detector, _ = written
    other = fitted(blobs, detector.plan.detector, detector.plan.seed + 1)
    assert (other.training_scores != detector.training_scores).any()


def test_a_bundle_holds_its_files_and_no_path_of_this_machine(written: tuple[FittedDetector, Bundle]) -> None:
    folder = written[1].path
    found = contents(folder)
    assert set(found) == {*FILES, MANIFEST}
    for content in found.values():
        for path in (str(PROJECT), str(folder), "site-packages", str(Path.home())):
            assert path.encode() not in content
        assert b".py" not in content


def test_the_manifest_says_what_was_trained(blobs: pd.DataFrame, tmp_path: Path) -> None:
    manifest = bundle_of(fitted(blobs, "radon", seed=3), tmp_path).manifest
    assert manifest["format_version"] == FORMAT_VERSION
    assert manifest["detector"] == "radon"
    assert manifest["training_rows"] == len(blobs)
    assert manifest["plan"]["seed"] == 3
    assert {"torch", "onnx", "onnxruntime", "ssad", "python"} <= set(manifest["versions"])


@pytest.fixture(scope="session")
def bundle_bytes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bundle")
    fitted(with_missing_values(np.random.default_rng(0))).write_bundle(folder)
    return contents(folder)


@pytest.fixture
def bundle_folder(bundle_bytes: dict[str, bytes], tmp_path: Path) -> Path:
    for name, content in bundle_bytes.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_truncated_graph_is_refused(bundle_folder: Path) -> None:
    graph = bundle_folder / "detector.onnx"
    graph.write_bytes(graph.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"detector\.onnx .* does not match its digest"):
        Bundle(bundle_folder)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused_by_name(bundle_folder: Path, name: str) -> None:
    content = bytearray((bundle_folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_folder / name).write_bytes(bytes(content))
    with pytest.raises(BundleError, match=name):
        Bundle(bundle_folder)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_refused_by_name(bundle_folder: Path, name: str) -> None:
    (bundle_folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        Bundle(bundle_folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"format_version": 2}', "\udcff"])
def test_a_manifest_that_is_not_one_is_refused(bundle_folder: Path, content: str) -> None:
    (bundle_folder / MANIFEST).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(BundleError):
        Bundle(bundle_folder)


@pytest.mark.parametrize(
    "files", [None, [], "x", {"detector.onnx": None}, 3], ids=["null", "list", "text", "no digest", "number"]
)
def test_a_manifest_with_strange_digests_is_refused(bundle_folder: Path, files: Any) -> None:
    manifest = json.loads((bundle_folder / MANIFEST).read_text())
    (bundle_folder / MANIFEST).write_text(json.dumps(manifest | {"files": files}))
    with pytest.raises(BundleError):
        Bundle(bundle_folder)


@pytest.mark.parametrize(
    ("version", "remedy"), [(0, "train again"), (1, "train again"), ("2", ""), (None, ""), (999, "upgrade ssad")]
)
def test_another_format_version_is_refused_and_named(bundle_folder: Path, version: Any, remedy: str) -> None:
    manifest = json.loads((bundle_folder / MANIFEST).read_text())
    (bundle_folder / MANIFEST).write_text(json.dumps(manifest | {"format_version": version}))
    with pytest.raises(BundleError, match=rf"format version {version!r}.*{remedy}"):
        Bundle(bundle_folder)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle(tmp_path / "nothing")


def test_golden_rows_score_as_when_they_were_trained(bundle_folder: Path) -> None:
    bundle = Bundle(bundle_folder)
    bundle.check_golden()
    assert len(bundle.golden["scores"]) == 16
    assert bundle.golden["scores"] == sorted(bundle.golden["scores"])
    assert set(bundle.golden["rows"]) == {"a", "b", "c", "kind"}


def test_golden_rows_that_score_differently_are_noticed(bundle_folder: Path) -> None:
    bundle = Bundle(bundle_folder)
    bundle.golden["scores"][3] *= 1.001
    with pytest.raises(BundleError, match="golden rows"):
        bundle.check_golden()


def test_rows_are_scored_alone_as_they_are_together(bundle_folder: Path) -> None:
    bundle, table = Bundle(bundle_folder), with_missing_values(np.random.default_rng(2))
    together = bundle.score(table).score
    alone = [bundle.score(table.iloc[[row]]).score[0] for row in range(0, ROWS, 10)]
    assert together[::10] == pytest.approx(alone, rel=1e-5)
    assert bundle.score(table.iloc[::-1]).score[::-1] == pytest.approx(together, rel=1e-5)


def test_no_rows_have_no_scores(bundle_folder: Path) -> None:
    scores = Bundle(bundle_folder).score(with_missing_values(np.random.default_rng(2)).iloc[:0])
    assert scores.score.shape == scores.confidence.shape == scores.region.shape == (0,)
    assert scores.records() == []


def test_a_category_never_seen_is_scored(bundle_folder: Path) -> None:
    table = with_missing_values(np.random.default_rng(2)).assign(kind="never seen")
    assert np.isfinite(Bundle(bundle_folder).score(table).score).all()


def test_columns_that_are_called_by_numbers_are_called_by_their_digits() -> None:
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)))
    detector = fit_detector(rows, FitSettings(max_epochs=1))
    assert [column.name for column in detector.schema.columns] == ["0", "1"]
    assert np.isfinite(detector.score(rows)).all()


def test_one_constant_row_repeated_has_nothing_to_learn_from() -> None:
    with pytest.raises(DatasetError, match="no numeric or categorical column is left"):
        fitted(pd.DataFrame({"a": [1.0] * 40, "b": ["x"] * 40}))


@every_preset
def test_an_initial_confidence_is_where_training_starts(name: str, blobs: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "confidence.csv"
    pd.DataFrame({"confidence": np.where(np.arange(300) < 270, 1.0, -1.0)}).to_csv(path, index=False)
    settings = FitSettings(name, max_epochs=2)
    given, own = fit_detector(blobs, settings, path), fit_detector(blobs, settings)
    assert not np.allclose(given.training_scores, own.training_scores)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("confidence\n1\n1\n", "2 rows and 1 columns, expected one column with a row for each of the 300"),
        ("confidence\n" + "2\n" * 300, "not numbers in"),
        ("confidence\n" + "x\n" * 300, "not numbers in"),
        ("", "cannot be read"),
    ],
)
def test_a_confidence_that_does_not_fit_is_refused(
    blobs: pd.DataFrame, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "confidence.csv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        fit_detector(blobs, FitSettings(max_epochs=1), path)


@pytest.mark.parametrize("name", ["ssad", "grand"])  # radon's angle stays finite whatever the weights
def test_a_learning_rate_that_explodes_is_an_error_that_names_the_epoch(name: str, blobs: pd.DataFrame) -> None:
    with pytest.raises(TrainingError, match="at epoch"):
        fitted(blobs, name, learning_rate=1e30)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"detector": "radonn"}, "did you mean 'radon'"),
        ({"max_epochs": 0}, r"max_epochs must be in \[1, 2147483647\], got 0"),
        ({"batch_size": 10**20}, r"batch_size must be in \[1, 2147483647\], got 1000"),
        ({"every_n_epochs": -1, "batch_size": 0}, "every_n_epochs .* got -1; batch_size .* got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        FitSettings(**settings)


@every_preset
@pytest.mark.parametrize("rows", [10, 300, 10**7])
def test_a_plan_decides_every_value(name: str, rows: int) -> None:
    plan = Plan.of(FitSettings(name), rows)
    assert plan.max_epochs >= 1
    assert 1 <= plan.every_n_epochs <= plan.max_epochs
    assert 32 <= plan.batch_size <= 1024
    assert Plan.of(FitSettings(name, 7, 2, 5, 0.1, 9), rows) == Plan(name, 7, 2, 5, 0.1, 9)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "nsl-kdd").is_dir(), reason="NSL-KDD is not beside the project")
def test_nsl_kdd_at_a_tenth_of_anomalies_is_ranked_well() -> None:
    from sklearn.metrics import roc_auc_score

    from ssad.workflows.train import TrainSettings, prepare

    source = SHARED_DATA / "nsl-kdd"
    settings = TrainSettings(str(source / "train.parquet"), str(source / "test.parquet"), contamination=0.1)
    tables = prepare(settings)
    detector = fit_detector(tables.train, settings.fit)
    assert tables.test is not None
    assert tables.test_anomalous is not None
    assert roc_auc_score(tables.test_anomalous, detector.score(tables.test)) >= 0.955


def test_a_promise_holds_on_average_over_seeds_whatever_the_detector() -> None:
    alpha, shares = 0.1, []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        rows, new = (pd.DataFrame(generator.normal(size=(size, 3)), columns=["a", "b", "c"]) for size in (200, 1000))
        detector = fitted(rows, "radon", seed=seed, max_epochs=1, alpha=alpha)
        shares.append((detector.curve.thresholds.regions(detector.score(new)) == "abnormal").mean())
    # 6 of 61 ranks are called; a share is distributed as Beta(6, 55).
    assert np.mean(shares) == pytest.approx(6 / 61, abs=4 * np.sqrt(6 * 55 / (61**2 * 62) / len(shares)))


@every_preset
def test_a_folder_trains_to_what_the_table_in_memory_trains_to(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = with_missing_values(np.random.default_rng(0))
    (tmp_path / "table").mkdir()
    for start in range(0, ROWS, 50):
        table.iloc[start : start + 50].to_parquet(tmp_path / "table" / f"{start:03}.parquet")
    monkeypatch.setattr(features, "IN_MEMORY_BYTES", 0)
    monkeypatch.setenv("SSAD_DATA", str(tmp_path / "cache"))
    settings = FitSettings(name, max_epochs=2, alpha=0.1)
    whole, streamed = (fit_detector(rows, settings) for rows in (table, open_rows(str(tmp_path / "table"))))
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 1
    assert streamed.schema == whole.schema
    for ours, theirs in zip(streamed.encoder.buffers(), whole.encoder.buffers(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(streamed.training_scores, whole.training_scores, rtol=1e-9)
    ends = (asdict(detector.curve.thresholds) for detector in (streamed, whole))
    # In single precision a held-back row's last digit varies with how many rows are scored beside it.
    digits = 1e-9 if whole.module.scoring_dtype == torch.float64 else 1e-6
    assert next(ends) == pytest.approx(next(ends), rel=digits)


def test_rows_that_are_held_back_teach_nothing(blobs: pd.DataFrame, tmp_path: Path) -> None:
    detector = fitted(blobs, "radon", alpha=0.05)
    train, held_back = hold_back(table_rows(blobs), 0.05, seed=0)
    assert (len(train), len(held_back)) == (210, 90)
    np.testing.assert_array_equal(detector.training_scores, fitted(train.frame(), "radon").training_scores)
    manifest = bundle_of(detector, tmp_path).manifest
    assert (manifest["training_rows"], manifest["plan"]["alpha"]) == (210, 0.05)


def test_a_promise_that_too_few_rows_can_keep_is_refused(blobs: pd.DataFrame) -> None:
    with pytest.raises(DatasetError, match=r"alpha=0.01 needs at least 99 held-back rows, 30% of 300 .* are 90"):
        fitted(blobs, alpha=0.01)
    with pytest.raises(SettingsError, match=r"alpha must be in \(0, 1\)"):
        FitSettings(alpha=1.0)


def test_a_value_that_cannot_be_read_is_named_by_its_row_in_the_whole_table(
    blobs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = fitted(blobs, "radon", max_epochs=1)
    monkeypatch.setattr(table_rows_module, "BATCH_ROWS", 100)
    with pytest.raises(RowsError, match="row 250, column 'x'"):
        detector.score(blobs.assign(x=["1"] * 250 + ["many"] + ["1"] * 49))
