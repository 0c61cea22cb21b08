"""Telling a table's labels from its features. Labels are for experiments and evaluation alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ssad.datasets.tables import LABEL
from ssad.errors import DatasetError

NORMAL_WORDS = frozenset({"0", "false", "normal", "benign", "inlier"})
"""Label values that mean normal unless the user says otherwise, in lower case."""

AUTO = "auto"


def split_labels(
    table: pd.DataFrame, label: str = LABEL, normal: str = AUTO
) -> tuple[pd.DataFrame, npt.NDArray[np.bool_] | None]:
    """Take the label column out of a table.

    Args:
        table: rows.
        label: name of the label column; where the default one is missing, the table is unlabelled.
        normal: label values that mean normal, separated by commas; `auto` knows `NORMAL_WORDS`.

    Returns:
        The features, and which rows are anomalies, shape (n,), or None without labels.

    Raises:
        DatasetError: a column asked for by name is missing, a label is, or no label means normal.
    """
    if label not in table:
        if label in (LABEL, ""):
            return table, None
        raise DatasetError(
            f"there is no label column {label!r}; the columns are {', '.join(table.columns[:20])}; "
            "leave label out if the table is unlabelled."
        )
    labels = table[label]
    if labels.isna().any():
        raise DatasetError(
            f"{int(labels.isna().sum())} rows have no value in the label column {label!r}; "
            "fill it for every row, or leave the column out of the table."
        )
    words = labels.map(_word)
    wanted = NORMAL_WORDS if normal == AUTO else frozenset(_word(word) for word in normal.split(","))
    anomalous = ~words.isin(wanted).to_numpy()
    if anomalous.all():
        values = ", ".join(map(str, labels.unique()[:10]))
        raise DatasetError(
            f"no value of the label column {label!r} means normal (it holds {values}; normal is {normal!r}); "
            "name the normal ones, as in normal=ok,fine."
        )
    return table.drop(columns=label), anomalous


def check_two_classes(anomalous: npt.NDArray[np.bool_], label: str) -> None:
    """Refuse labels that tell nothing apart.

    Raises:
        DatasetError: all rows are of one class.
    """
    if anomalous.all() or not anomalous.any():
        found = "anomalous" if anomalous.all() else "normal"
        raise DatasetError(
            f"the label column {label!r} holds one class: all {len(anomalous)} rows are {found}; check which values "
            "are normal, or drop the column to train without labels."
        )


def _word(value: Any) -> str:
    """A label as a word to compare: 0.0 is 0, and KDD's `normal.` is normal."""
    text = str(value).strip().lower().rstrip(".")
    try:
        return str(int(float(text))) if float(text).is_integer() else text
    except ValueError:
        return text
