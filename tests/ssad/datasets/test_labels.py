"""Which rows are anomalies, when somebody knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ssad.datasets.labels import check_two_classes, split_labels
from ssad.errors import DatasetError


def anomalous(labels: Any, normal: str = "auto") -> list[bool]:
    table = pd.DataFrame({"x": range(len(labels)), "label": labels})
    features, found = split_labels(table, normal=normal)
    assert features.columns.tolist() == ["x"]
    assert found is not None
    result: list[bool] = found.tolist()
    return result


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 2],
        [0.0, 1.0, 2.0],
        ["0", "1", "2"],
        ["normal", "attack", "other"],
        ["normal.", "neptune.", "smurf."],
        [" Normal ", "BENIGN!", "x"],
        ["BENIGN", "dos", "x"],
        ["benign", "malignant", "malignant"],
        ["Inlier", "outlier", "outlier"],
        ["false", "true", "true"],
        np.asarray([0, 1, 1], dtype=np.float32),
        np.asarray([0, 1, 1], dtype=np.uint8),
        pd.Series(["normal", "attack", "other"], dtype="category"),
        pd.Series([0, 1, 1], dtype="Int64"),
    ],
    ids=str,
)
def test_auto_knows_the_usual_words_for_normal(labels: Any) -> None:
    assert anomalous(labels) == [False, True, True]


def test_truth_values_say_whether_a_row_is_an_anomaly() -> None:
    assert anomalous([False, True, False]) == [False, True, False]


@pytest.mark.parametrize("normal", ["ok,fine", "OK, Fine ", "fine,ok,unused"])
def test_named_values_are_normal_and_the_others_are_not(normal: str) -> None:
    assert anomalous(["ok", "fine", "0", "bad"], normal) == [False, False, True, True]


@pytest.mark.parametrize("normal", ["1", "1.0", "1,3"])
def test_a_named_number_is_normal_however_it_is_written(normal: str) -> None:
    assert anomalous([1, 2], normal) == [False, True]
    assert anomalous([1.0, 2.0], normal) == [False, True]


def test_a_table_without_the_default_column_is_unlabelled() -> None:
    table = pd.DataFrame({"x": [1, 2]})
    assert split_labels(table) == (table, None)
    assert split_labels(table, "")[1] is None


def test_a_named_column_that_is_not_there_is_an_error_with_the_columns() -> None:
    with pytest.raises(DatasetError, match="no label column 'class'; the columns are x, y"):
        split_labels(pd.DataFrame({"x": [1], "y": [2]}), "class")


@pytest.mark.parametrize(("label", "other"), [("class", "label"), ("class", " Label"), ("label", "Label")])
def test_labels_that_were_not_named_are_not_learned_from_beside_those_that_were(label: str, other: str) -> None:
    features, found = split_labels(pd.DataFrame({other: [5, 6], label: [0, 1], "x": [1, 2]}), label)
    assert features.columns.tolist() == ["x"]
    assert found is not None
    assert found.tolist() == [False, True]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_rows_without_a_label_are_counted_in_the_error(missing: Any) -> None:
    with pytest.raises(DatasetError, match="2 rows have no value in the label column 'label'"):
        anomalous(pd.Series([0, missing, missing], dtype=object))


@pytest.mark.parametrize("labels", [[1, 1], [True, True], ["Outlier", "anomaly"]], ids=str)
def test_anomalies_alone_are_known_by_the_usual_words(labels: Any) -> None:
    assert anomalous(labels) == [True, True]
    with pytest.raises(DatasetError, match="normal is 'okay'"):
        anomalous(labels, "okay")


def test_a_normal_value_that_no_label_has_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert anomalous(["ok", "fine", "dos"], "ok,fien") == [False, True, True]
    assert caplog.messages == ["no label is fien; the labels are ok, fine, dos"]
    caplog.clear()
    anomalous(["ok", "fine", "dos"], "ok, fine,")
    assert not caplog.messages


@pytest.mark.parametrize("name", ["Label", "LABEL", " label"])
def test_a_column_that_seems_to_hold_labels_is_not_learned_from(name: str) -> None:
    table = pd.DataFrame({"x": [1, 2], name: [0, 1]})
    with pytest.raises(DatasetError, match=f"the column '{name}' seems to hold labels"):
        split_labels(table)
    assert split_labels(table, name)[1] is not None


@pytest.mark.parametrize("name", ["label", "Label", " label"])
def test_what_seems_to_hold_labels_is_not_learned_from_where_no_label_is_named(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = pd.DataFrame({"x": [1, 2], name: [0, 1]})
    features, found = split_labels(table, "")
    assert found is None
    assert features.columns.tolist() == ["x"]
    assert f"the column {name} seems to hold labels, and is left out" in caplog.text


def test_labels_that_are_lists_are_refused() -> None:
    with pytest.raises(DatasetError, match="'label' holds lists or objects, expected one value a row"):
        anomalous([[0], [1]])


def test_labels_none_of_which_means_normal_are_shown() -> None:
    with pytest.raises(DatasetError, match=r"no value .* means normal \(it holds good, bad; normal is 'auto'\)"):
        anomalous(["good", "bad"])


@pytest.mark.parametrize("blank", ["", "  ", b" "])
@pytest.mark.parametrize("normal", ["auto", "normal,"])
def test_a_blank_label_is_none(blank: Any, normal: str) -> None:
    with pytest.raises(DatasetError, match="2 rows have no value in the label column 'label'"):
        anomalous(["normal", blank, "attack", None], normal)


def test_the_table_that_was_given_keeps_its_labels() -> None:
    table = pd.DataFrame({"x": [1], "label": [0]})
    split_labels(table)
    assert table.columns.tolist() == ["x", "label"]


@pytest.mark.parametrize(("labels", "word"), [([True, True], "anomalous"), ([False, False], "normal")])
def test_labels_of_one_class_are_refused(labels: list[bool], word: str) -> None:
    with pytest.raises(DatasetError, match=f"holds one class: all 2 rows are {word}"):
        check_two_classes(np.asarray(labels), "label")


def test_labels_of_two_classes_pass() -> None:
    check_two_classes(np.asarray([True, False]), "label")


def test_labels_are_compared_as_they_are_written() -> None:
    assert anomalous([2**53 + 1, 2**53], normal=str(2**53 + 1)) == [False, True]
    assert anomalous([b"normal", b"dos"]) == [False, True]


def test_a_label_that_holds_a_comma_is_named_in_quotes() -> None:
    labels = ["fine, checked", "fraud", "usual"]
    assert anomalous(labels, normal='"fine, checked", usual') == [False, True, False]
    assert anomalous(labels, normal="usual\n") == [True, True, False]


def test_a_column_of_numbers_that_was_named_for_labels_is_not_repeated() -> None:
    table = pd.DataFrame({"amount": np.linspace(0.1, 9, 90), "x": 1.0})
    with pytest.raises(DatasetError, match=r"\(it holds 90 different values; normal is 'auto'\)"):
        split_labels(table, "amount")
