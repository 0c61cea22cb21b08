"""Telling a table's labels from its features. Labels are for experiments and evaluation alone."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ssad.bundle.schema import is_blank
from ssad.datasets.table_rows import TableRows
from ssad.datasets.tables import LABEL, names_in
from ssad.errors import DatasetError, listed

logger = logging.getLogger(__name__)

NORMAL_WORDS = frozenset({"0", "false", "normal", "benign", "inlier"})
"""Label values that mean normal unless the user says otherwise, in lower case."""

ANOMALY_WORDS = frozenset({"1", "true", "abnormal", "anomaly", "malicious", "outlier"})
"""Their opposites: a table of anomalies alone is known by them, and no typing mistake in what is normal."""

AUTO = "auto"

SHOWN_LABELS = 20


def split_labels(
    table: pd.DataFrame, label: str = LABEL, normal: str = AUTO
) -> tuple[pd.DataFrame, npt.NDArray[np.bool_] | None]:
    """Take the label column out of a table.

    Args:
        table: rows.
        label: name of the label column; where the default one is missing, the table is unlabelled.
        normal: label values that mean normal, separated by commas, in double quotes where they hold one; `auto`
            knows `NORMAL_WORDS`.

    Returns:
        The features, and which rows are anomalies, shape (n,), or None without labels.

    Raises:
        DatasetError: a column asked for by name is missing, a label is, or no label means normal.
    """
    if not _is_labelled(list(table.columns), label):
        features = _features(table.columns, label)
        return (table if len(features) == table.shape[1] else table[features]), None
    return table[_features(table.columns, label)], _anomalous([table[label]], label, normal)


def split_row_labels(
    rows: TableRows, label: str = LABEL, normal: str = AUTO
) -> tuple[TableRows, npt.NDArray[np.bool_] | None]:
    """Likewise of rows that are read batch by batch; of the labels no more is kept than what each means."""
    labelled = _is_labelled(rows.columns, label)
    features = rows.only(_features(rows.columns, label))
    if not labelled:
        return features, None
    return features, _anomalous((batch[label] for batch in rows.only([label]).batches()), label, normal)


def _features(columns: Iterable[str], label: str) -> list[str]:
    """The columns that may be learned from: labels are not, whichever of them were named."""
    columns = list(columns)
    others = _like_labels(columns, label)
    if others:
        logger.warning("the column %s seems to hold labels, and is left out", ", ".join(others))
    return [name for name in columns if name not in (label, *others)]


def _like_labels(columns: Iterable[str], label: str) -> list[str]:
    """The columns but `label` that are called as labels are, however it is written."""
    return [name for name in columns if name != label and name.strip().lower() == LABEL]


def _is_labelled(columns: Sequence[str], label: str) -> bool:
    if label in columns:
        return True
    similar = _like_labels(columns, label)
    if similar and label == LABEL:
        raise DatasetError(
            f"the column {similar[0]!r} seems to hold labels, which are not to be learned from; name it by label, or "
            "call it something else if it holds none."
        )
    if label in (LABEL, ""):
        return False
    raise DatasetError(
        f"there is no label column {label!r}; the columns are {listed(columns)}; "
        "leave label out if the table is unlabelled."
    )


def _anomalous(batches: Iterable[pd.Series], label: str, normal: str) -> npt.NDArray[np.bool_]:
    """Which rows are anomalies, shape (n,), from their labels."""
    wanted = NORMAL_WORDS if normal == AUTO else frozenset(map(_word, names_in(normal)))
    parts, seen, unlabelled = [], dict[Any, bool](), 0
    for labels in batches:
        known = labels.dropna()
        values = _distinct(known, label)
        blank = [value for value in values if is_blank(value)]
        known = known[~known.isin(blank)] if blank else known
        seen |= {value: _word(value) not in wanted for value in values if value not in seen and value not in blank}
        parts.append(known.map(seen).to_numpy(dtype=bool))
        unlabelled += len(labels) - len(known)
    if unlabelled:
        raise DatasetError(
            f"{unlabelled} rows have no value in the label column {label!r}; "
            "leave those rows out, or the column where few rows have one."
        )
    unseen = wanted - set(map(_word, seen))
    if unseen and normal != AUTO:
        logger.warning("no label is %s; the labels are %s", ", ".join(sorted(unseen)), _listed(seen))
    anomalous = np.concatenate(parts)
    if anomalous.all() and not (normal == AUTO and {_word(value) for value in seen} <= ANOMALY_WORDS):
        raise DatasetError(
            f"no value of the label column {label!r} means normal (it holds {_listed(seen)}; normal is {normal!r}); "
            "name the normal ones, as in normal=ok,fine."
        )
    return anomalous


def _distinct(labels: pd.Series, label: str) -> list[Any]:
    try:
        return list(labels.unique())
    except TypeError as error:  # lists and the like have no hash
        raise DatasetError(
            f"the label column {label!r} holds lists or objects, expected one value a row; write each as one word."
        ) from error


def _listed(values: Collection[Any]) -> str:
    """The labels; of more than a few they are not labels, and nobody's business."""
    return ", ".join(map(str, values)) if len(values) <= SHOWN_LABELS else f"{len(values)} different values"


def check_normal(normal: str, label: str, *anomalous: npt.NDArray[np.bool_] | None) -> None:
    """Refuse to be told which labels mean normal where none of the tables has any.

    Raises:
        DatasetError: label values were named, and there are no labels.
    """
    if normal != AUTO and all(found is None for found in anomalous):
        raise DatasetError(
            f"normal is {normal!r}, but there is no label column {label or LABEL!r}; name the column by label, or "
            "leave normal at auto."
        )


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
    text = (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip().lower().rstrip(".")
    if text.isdecimal():  # of any length: a double has no room for more than 15 digits
        return str(int(text))
    try:
        return str(int(float(text))) if float(text).is_integer() else text
    except ValueError:
        return text
