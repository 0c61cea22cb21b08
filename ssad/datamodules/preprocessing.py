"""Table helpers and the scikit-learn pipeline of `GeneralTabularDataModule`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler


class CountEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Replace each value of some columns by how often training saw it; an unseen value counts 0."""

    def __init__(self, cols: Sequence[str]) -> None:
        self.cols = cols

    def fit(self, X: pd.DataFrame, y: Any = None) -> CountEncoder:  # noqa: N803 - scikit-learn's name
        """Count the values.

        Raises:
            ValueError: the table lacks one of the columns.
        """
        lost = [column for column in self.cols if column not in X]
        if lost:
            raise ValueError(f"there is no column {', '.join(lost)} to count; the columns are {', '.join(X.columns)}")
        self.counts_ = {column: X[column].value_counts(dropna=False) for column in self.cols}
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:  # noqa: N803 - scikit-learn's name
        """The table with counts in place of values."""
        return X.assign(**{c: X[c].map(counts).fillna(0).astype(float) for c, counts in self.counts_.items()})

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """The columns' names, which stay; scikit-learn asks before it hands on DataFrames."""
        return self.feature_names_in_


def to_categorical(df: pd.DataFrame, cols: Sequence[str]) -> pd.DataFrame:
    """The table with these columns of pandas' type `category`."""
    return df.astype(dict.fromkeys(cols, "category"))


def drop_cols(df: pd.DataFrame, cols: Sequence[str]) -> pd.DataFrame:
    """The table without these columns; one that is not there is no error."""
    return df.drop(columns=list(cols), errors="ignore")


def fuse_cols(df: pd.DataFrame, cols: Sequence[str], new_col_name: str) -> pd.DataFrame:
    """The table with a new column: the values of `cols` as strings, one after another."""
    return df.assign(**{new_col_name: df[list(cols)].astype(str).agg("".join, axis=1)})


def replace_values_with_nan(df: pd.DataFrame, values: Sequence[float]) -> pd.DataFrame:
    """The table with NaN in place of each of these values."""
    # Not `replace`, which in pandas 2 changes the type of a column of objects too, and warns of it; truth values are no
    # numbers to either.
    return df.mask(df.isin(list(values)) & df.dtypes.ne("bool").to_numpy())


SHARE_ROUNDING = 1e-9
"""By which 0.7 + 0.3 may exceed 1."""


def time_split_train_val_test(
    data: pd.DataFrame, train_percent: float, val_percent: float
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Cut rows in order of time: the first for training, the next for validation, the rest for test.

    Args:
        data: rows in order of time.
        train_percent: share for training, in [0, 1] (a share, as its callers pass it).
        val_percent: share for validation, of which as much is left.

    Raises:
        ValueError: the shares are not in [0, 1], or are more than the whole.
    """
    if not (train_percent >= 0 <= val_percent and train_percent + val_percent <= 1 + SHARE_ROUNDING):
        raise ValueError(
            f"the shares for training and validation must be in [0, 1] and at most 1 together, got {train_percent} and "
            f"{val_percent}; 70 % is 0.7"
        )
    first = round(len(data) * train_percent)
    second = round(len(data) * (train_percent + val_percent))  # each share rounded would leave rows where none are left
    return data.iloc[:first], data.iloc[first:second], data.iloc[second:]


def min_max_scaler() -> MinMaxScaler:
    """Features of the training rows to [0, 1], where a sigmoid can reach them."""
    return MinMaxScaler(feature_range=(0, 1))


def mean_imputer() -> SimpleImputer:
    """The mean of the training rows for a missing value; a column with none becomes 0."""
    return SimpleImputer(strategy="mean", keep_empty_features=True)


def create_preprocessing_pipeline(
    categorical_cols: Sequence[str] | None = None,
    cols_to_drop: Sequence[str] | None = None,
    count_encode_cols: Sequence[str] | None = None,
    scaler: Callable[[], Any] | Any | None = min_max_scaler,
    replace_inf: bool = True,
    fillna: Callable[[], Any] | Any | None = mean_imputer,
) -> Pipeline:
    """A pipeline of the steps asked for; columns keep their names through it.

    Args:
        categorical_cols: columns to make categorical.
        cols_to_drop: columns to leave out.
        count_encode_cols: columns whose values become their counts.
        scaler: a scikit-learn transformer or what makes one; None for none.
        replace_inf: whether infinities become missing.
        fillna: a scikit-learn imputer or what makes one; None for none.
    """
    steps: list[tuple[str, Any]] = []
    if categorical_cols:
        steps.append(("categorical", FunctionTransformer(to_categorical, kw_args={"cols": categorical_cols})))
    if cols_to_drop:
        steps.append(("drop", FunctionTransformer(drop_cols, kw_args={"cols": cols_to_drop})))
    if count_encode_cols:
        steps.append(("count", CountEncoder(count_encode_cols)))
    if replace_inf:
        infinities = {"values": [np.inf, -np.inf]}
        steps.append(("infinities", FunctionTransformer(replace_values_with_nan, kw_args=infinities)))
    steps += [
        (name, step() if callable(step) else step) for name, step in (("fillna", fillna), ("scaler", scaler)) if step
    ]
    if not steps:
        steps.append(("nothing", FunctionTransformer()))
    return Pipeline(steps).set_output(transform="pandas")
