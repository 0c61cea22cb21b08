"""The labelled CSV file as a data module, and its preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.utils.validation import check_is_fitted

from ssad import (
    GeneralTabularDataModule,
    create_preprocessing_pipeline,
    drop_cols,
    fuse_cols,
    replace_values_with_nan,
    time_split_train_val_test,
    to_categorical,
)
from ssad.errors import DatasetError

ROWS = 200


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    table = pd.DataFrame(
        {
            "number": np.linspace(0, 10, ROWS),
            "word": ["a", "b", "b", "c"] * (ROWS // 4),
            "gap": [np.inf, None, 3.0, 4.0] * (ROWS // 4),
            "junk": "x",
            "label": ["ok"] * 160 + ["bad"] * 40,
        }
    )
    path = tmp_path / "raw" / "data" / "table.csv"
    path.parent.mkdir(parents=True)
    table.to_csv(path, index=False)
    return path


def module(path: Path, **settings: Any) -> GeneralTabularDataModule:
    defaults: dict[str, Any] = {
        "normal_labels": "ok",
        "anomaly_labels": ["bad"],
        "drop_cols": ["junk"],
        "count_encode_cols": ["word"],
        "batch_size": 16,
        "n_rows": 160,
    }
    made = GeneralTabularDataModule(path, **{**defaults, **settings})
    made.setup("fit")
    return made


def rows(made: GeneralTabularDataModule) -> torch.Tensor:
    assert made.train is not None
    return torch.stack([made.train[at][0] for at in range(len(made.train))])


def test_parts_have_their_sizes_and_anomalies(csv: Path) -> None:
    made = module(csv)
    stats = [part.get_stats() for part in (made.train, made.val, made.test) if part is not None]
    assert stats == [(64, 61, 3), (16, 15, 1), (80, 76, 4)]


def test_features_are_finite_and_in_the_unit_interval(csv: Path) -> None:
    found = rows(module(csv))
    assert found.shape == (64, 3)
    assert ((found >= 0) & (found <= 1)).all()


def test_the_file_read_in_pieces_gives_the_same_rows(csv: Path, tmp_path: Path) -> None:
    whole = module(csv, preprocessed_dir=tmp_path / "whole")
    pieces = module(csv, preprocessed_dir=tmp_path / "pieces", large_dataset=True)
    torch.testing.assert_close(rows(whole), rows(pieces))


def test_the_second_time_the_kept_parts_are_read(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = module(csv)
    monkeypatch.setattr(GeneralTabularDataModule, "_preprocess", None)
    torch.testing.assert_close(rows(module(csv)), rows(first))


@pytest.mark.parametrize(
    "options",
    [
        {"scaler": StandardScaler},
        {"scaler": None},
        {"scaler": lambda: MinMaxScaler(feature_range=(0, 2))},
        {"fillna": SimpleImputer(strategy="constant", fill_value=9)},
        {"fillna": lambda: KNNImputer(metric=lambda *_, **__: 0.0)},
        {"count_encode_cols": None, "drop_cols": ["junk", "word"]},
    ],
)
def test_parts_kept_for_other_options_are_not_read(csv: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    before = rows(module(csv))
    fresh = rows(module(csv, preprocessed_dir=tmp_path / "fresh", **options))
    assert before.shape != fresh.shape or not torch.equal(before, fresh)
    torch.testing.assert_close(rows(module(csv, **options)), fresh)


def test_options_without_a_description_keep_nothing(csv: Path) -> None:
    for power in (1, 2):
        made = module(csv, scaler=FunctionTransformer(lambda table, power=power: table**power))
        assert made.preprocessed_files == []
        assert rows(made)[:, 2].max() == 4**power
    assert not made.preprocessed_dir.exists()


def test_parts_kept_for_another_file_of_the_name_or_another_content_are_not_read(csv: Path) -> None:
    before = rows(module(csv, scaler=None))
    table = pd.read_csv(csv)
    sibling = csv.parent.with_name("sibling") / csv.name
    sibling.parent.mkdir()
    for path in (sibling, csv):
        table.assign(number=table["number"] + 1000).to_csv(path, index=False)
        torch.testing.assert_close(rows(module(path, scaler=None))[:, 0], before[:, 0] + 1000)


def test_parts_are_kept_whole_or_not_at_all(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = pd.DataFrame.to_csv
    written: list[Path] = []

    def cut_off(table: pd.DataFrame, path: Path, **options: Any) -> None:
        written.append(path)
        write(table.head(3), path, **options)
        if len(written) == 3:
            raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_csv", cut_off)
        with pytest.raises(OSError, match="full"):
            module(csv)
    made = module(csv)
    assert len(rows(made)) == 64
    assert sorted(made.preprocessed_dir.iterdir()) == sorted(made.preprocessed_files)


def test_what_reads_the_kept_parts_leaves_the_pipeline_unfitted(csv: Path) -> None:
    check_is_fitted(module(csv).pipeline)
    with pytest.raises(NotFittedError):
        check_is_fitted(module(csv).pipeline)


@pytest.mark.parametrize("large_dataset", [True, False])
def test_a_word_far_down_does_not_make_two_values_of_one(csv: Path, large_dataset: bool) -> None:
    rows = 300_000  # pandas would read them in several pieces, with types of their own
    words = ["1"] * (rows - 1) + ["x"]
    pd.DataFrame({"word": words, "number": 0.5, "label": ["ok", "bad"] * (rows // 2)}).to_csv(csv, index=False)
    found = module(
        csv,
        large_dataset=large_dataset,
        drop_cols=None,
        scaler=None,
        n_rows=None,
        pa_train=0.5,
        pa_val=0.5,
        pa_test=0.5,
    ).test
    assert found is not None
    assert (found.data[:, 0] == 0).sum() == 1  # the one that no training row has


def test_pieces_of_a_file_may_disagree_on_what_a_column_holds(csv: Path, tmp_path: Path) -> None:
    count = 300_000  # three pieces
    gaps = pd.Series([True, False] * (count // 2), dtype=object).where(np.arange(count) != 7)
    table = {"word": "a", "gaps": gaps, "late": [1] * (count - 1) + [0.5], "label": ["ok", "bad"] * (count // 2)}
    pd.DataFrame(table).to_csv(csv, index=False)
    parts: dict[str, Any] = {"drop_cols": None, "n_rows": 1000, "pa_train": 0.5, "pa_val": 0.5, "pa_test": 0.5}
    whole = module(csv, preprocessed_dir=tmp_path / "whole", **parts)
    pieces = module(csv, preprocessed_dir=tmp_path / "pieces", large_dataset=True, **parts)
    torch.testing.assert_close(rows(whole), rows(pieces))


def test_labels_of_several_kinds_are_told_apart(csv: Path) -> None:
    datamodule = GeneralTabularDataModule(csv, normal_labels=["normal", 0], anomaly_labels=1)
    table = pd.DataFrame({"label": pd.Series(["normal", 0, 1, 0], dtype=object)})
    datamodule.encode_labels_inplace(table)
    assert table["label"].tolist() == [0, 0, 1, 0]


def test_a_label_of_neither_list_is_refused(csv: Path) -> None:
    with pytest.raises(DatasetError, match="labels bad"):
        module(csv, anomaly_labels=["worse"])


@pytest.mark.parametrize("large_dataset", [True, False])
def test_a_file_whose_rows_have_more_fields_than_its_header_is_refused(csv: Path, large_dataset: bool) -> None:
    header, *lines = csv.read_text().splitlines()
    csv.write_text("\n".join([header, *(f"{line}," for line in lines)]))
    with pytest.raises(DatasetError, match=r"csv names \d columns, but its rows have \d fields; name"):
        module(csv, large_dataset=large_dataset)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.csv"):
        module(tmp_path / "none.csv")


def test_loaders_before_setup_are_refused(csv: Path) -> None:
    with pytest.raises(RuntimeError, match="setup"):
        GeneralTabularDataModule(csv).train_dataloader()


def test_counts_are_those_of_the_training_rows_and_unseen_values_count_none() -> None:
    pipeline = create_preprocessing_pipeline(count_encode_cols=["word"], scaler=None)
    pipeline.fit(pd.DataFrame({"word": ["a", "b", "b"]}))
    assert pipeline.transform(pd.DataFrame({"word": ["b", "a", "new"]}))["word"].tolist() == [2, 1, 0]


def test_table_helpers_leave_their_table_as_it_was() -> None:
    table = pd.DataFrame({"a": [-1, 2], "b": [-1, 3]})
    before = table.copy()
    assert fuse_cols(table, ["a", "b"], "c")["c"].tolist() == ["-1-1", "23"]
    assert list(drop_cols(table, ["a", "missing"])) == ["b"]
    assert replace_values_with_nan(table, [-1]).isna().sum().tolist() == [1, 1]
    mixed = pd.DataFrame({"gaps": pd.Series([True, None, -1], dtype=object), "truth": [True, False, True]})
    found = replace_values_with_nan(mixed, [1, -1])
    assert found["truth"].tolist() == [True, False, True]
    assert found["gaps"].dtype == object
    assert str(to_categorical(table, ["a"])["a"].dtype) == "category"
    pd.testing.assert_frame_equal(table, before)


def test_a_split_in_time_keeps_the_order() -> None:
    parts = time_split_train_val_test(pd.DataFrame({"t": range(10)}), 0.5, 0.2)
    assert [part["t"].tolist() for part in parts] == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]


@pytest.mark.parametrize("rows", [3, 5, 10, 15])
def test_a_split_in_time_leaves_no_row_where_the_shares_are_all(rows: int) -> None:
    parts = time_split_train_val_test(pd.DataFrame({"t": range(rows)}), 0.5, 0.5)
    assert [len(parts[0]) + len(parts[1]), len(parts[2])] == [rows, 0]


def test_a_column_to_count_that_is_not_there_is_named() -> None:
    pipeline = create_preprocessing_pipeline(count_encode_cols=["wird"], scaler=None)
    with pytest.raises(ValueError, match="no column wird to count; the columns are word"):
        pipeline.fit(pd.DataFrame({"word": ["a", "b"]}))


@pytest.mark.parametrize("shares", [(70, 20), (0.7, 0.5), (-0.1, 0.2), (float("nan"), 0.2)])
def test_shares_that_are_none_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be in \\[0, 1\\] and at most 1 together"):
        time_split_train_val_test(pd.DataFrame({"t": range(10)}), *shares)


def test_a_pipeline_without_steps_changes_nothing() -> None:
    table = pd.DataFrame({"a": [1.0, 2.0]})
    pipeline = create_preprocessing_pipeline(scaler=None, replace_inf=False, fillna=None)
    pd.testing.assert_frame_equal(pipeline.fit_transform(table), table)
