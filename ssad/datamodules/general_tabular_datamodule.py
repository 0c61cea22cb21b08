"""A labelled CSV file as a data module, with controlled shares of anomalies."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_list_like, is_numeric_dtype
from sklearn.base import BaseEstimator
from torch.utils.data import DataLoader

from ssad.aside import written_aside
from ssad.bundle.bundle import file_digest
from ssad.datamodules.preprocessing import create_preprocessing_pipeline, mean_imputer, min_max_scaler
from ssad.datamodules.splits import Positions, controlled_split
from ssad.datasets.rows import DataFrameWithLabels, RowBatches, RowLoader
from ssad.datasets.tables import check_fields
from ssad.errors import DatasetError, listed

logger = logging.getLogger(__name__)

CSV_CHUNK_ROWS = 100_000
"""Rows read at once from a file that is too large to hold."""


class GeneralTabularDataModule(L.LightningDataModule):
    """Train, validation and test rows from one labelled CSV file.

    A subclass may write the file in `prepare_data`. The preprocessed parts are kept as CSV files in
    `preprocessed_dir` under a name made of the split's parameters and a digest of the file's content and all other
    options that shape them, and read from there the next time: a categorical column then as plain values. Nothing is
    kept where no text tells an option from others: a scaler or imputer that is not scikit-learn's own or holds a
    function, labels or columns that are no plain values.

    Attributes:
        train: training rows; likewise `val` and `test`; None before `setup`.
        pipeline: the preprocessing, fitted on the training rows by the `setup` that preprocesses them; one that
            reads what an earlier call kept leaves it unfitted.
    """

    def __init__(
        self,
        dataset_path: str | Path,
        large_dataset: bool = False,
        label_column: str = "label",
        batch_size: int = 64,
        p_train: float = 0.4,
        p_val: float = 0.1,
        pa_train: float = 0.05,
        pa_val: float = 0.05,
        pa_test: float = 0.05,
        n_rows: int | None = None,
        preprocessed_dir: str | Path | None = None,
        normal_labels: Sequence[Any] | Any = 0,
        anomaly_labels: Sequence[Any] | Any = 1,
        categorical_cols: Sequence[str] | None = None,
        drop_cols: Sequence[str] | None = None,
        count_encode_cols: Sequence[str] | None = None,
        scaler: Callable[[], Any] | Any | None = min_max_scaler,
        replace_inf: bool = True,
        fillna: Callable[[], Any] | Any | None = mean_imputer,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        random_state: int = 42,
        shuffling: bool = False,
    ) -> None:
        """Describe the file, the split and the preprocessing.

        Args:
            dataset_path: a CSV file with a header.
            large_dataset: read the file in pieces and keep only the rows of the split.
            label_column: the column that labels a row.
            batch_size: rows in a batch.
            p_train: share of rows for training; `p_val` likewise, the rest is for test.
            p_val: see `p_train`.
            pa_train: share of anomalies in the training part; `pa_val` and `pa_test` likewise.
            pa_val: see `pa_train`.
            pa_test: see `pa_train`.
            n_rows: rows to use in all; None for all.
            preprocessed_dir: where the parts are kept; by default beside the file's folder.
            normal_labels: one label or several that mean normal; rows of other labels than
                `normal_labels` and `anomaly_labels` are refused.
            anomaly_labels: one label or several that mean anomaly.
            categorical_cols: see `create_preprocessing_pipeline`, as the next five.
            drop_cols: columns to leave out.
            count_encode_cols: columns whose values become their counts.
            scaler: a scikit-learn transformer or what makes one.
            replace_inf: whether infinities become missing.
            fillna: a scikit-learn imputer or what makes one.
            transform: applied to a row's features; None converts them to a float32 tensor.
            target_transform: applied to a row's label, likewise.
            random_state: seed of the split.
            shuffling: whether rows are drawn in random order.
        """
        super().__init__()
        self.dataset_path = Path(dataset_path)
        self.large_dataset = large_dataset
        self.label_column = label_column
        self.batch_size = batch_size
        self.p_train, self.p_val = p_train, p_val
        self.pa_train, self.pa_val, self.pa_test = pa_train, pa_val, pa_test
        self.n_rows = n_rows
        self.preprocessed_dir = Path(preprocessed_dir or self.dataset_path.parent.parent / "Preprocessed" / "data")
        self.normal_labels, self.anomaly_labels = normal_labels, anomaly_labels
        self.categorical_cols, self.drop_cols, self.count_encode_cols = (
            categorical_cols,
            drop_cols,
            count_encode_cols,
        )
        self.scaler, self.replace_inf, self.fillna = scaler, replace_inf, fillna
        self.transform, self.target_transform = transform, target_transform
        self.random_state, self.shuffling = random_state, shuffling
        self.pipeline = create_preprocessing_pipeline(
            categorical_cols, drop_cols, count_encode_cols, scaler, replace_inf, fillna
        )
        self.train: DataFrameWithLabels | None = None
        self.val: DataFrameWithLabels | None = None
        self.test: DataFrameWithLabels | None = None

    def prepare_data(self) -> None:
        """Write the CSV file, where a subclass makes it; by default it is there already."""

    def setup(self, stage: str | None = None) -> None:
        """Split and preprocess the rows, or read what an earlier call left; once, whatever the stage.

        Raises:
            DatasetError: no such file or label column, a label of neither list, or too few rows.
        """
        if self.train is not None:
            return
        kept = self.preprocessed_files
        if kept and all(path.exists() for path in kept):
            parts = [pd.read_csv(path) for path in kept]
        else:
            parts = self._preprocess(self._raw_parts())
            self.save_preprocessed_data(*parts)
        self.train, self.val, self.test = (
            DataFrameWithLabels(part, self.label_column, self.transform, self.target_transform) for part in parts
        )
        for name, part in (("training", self.train), ("validation", self.val), ("test", self.test)):
            logger.info("%s rows: %d, normal %d, anomalies %d", name, *part.get_stats())

    def encode_labels_inplace(self, df: pd.DataFrame) -> None:
        """Write 0 for normal and 1 for anomaly into the label column.

        Raises:
            DatasetError: a label is of neither list.
        """
        if self.label_column not in df:
            raise DatasetError(f"{self.dataset_path} has no label column {self.label_column!r}; name the one it has.")
        labels = df[self.label_column]
        normal, anomalous = (
            labels.isin(meant if is_list_like(meant) else [meant])
            for meant in (self.normal_labels, self.anomaly_labels)
        )
        strange = labels[~(normal | anomalous)].unique()
        if len(strange):
            raise DatasetError(
                f"labels {listed(strange)} of column {self.label_column!r} are neither in "
                "normal_labels nor in anomaly_labels; name them in one of the two."
            )
        df[self.label_column] = anomalous.astype(int)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches (data, label), in dataset order; raises RuntimeError before `setup`."""
        return self._loader(self.train)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches (data, label); raises RuntimeError before `setup`."""
        return self._loader(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches (data, label); raises RuntimeError before `setup`."""
        return self._loader(self.test)

    def save_preprocessed_data(self, train: pd.DataFrame, val: pd.DataFrame, test: pd.DataFrame) -> None:
        """Keep the preprocessed parts as CSV files, if their options have a name."""
        kept = self.preprocessed_files
        if not kept:
            return
        self.preprocessed_dir.mkdir(parents=True, exist_ok=True)
        with written_aside(self.preprocessed_dir) as folder:
            for path, part in zip(kept, (train, val, test), strict=True):
                part.to_csv(folder / path.name, index=False)
            for path in kept:
                (folder / path.name).replace(path)

    @cached_property
    def preprocessed_files(self) -> list[Path]:
        """Where the three parts are kept, for the file as first asked; none where an option has no description.

        Raises:
            DatasetError: the file cannot be read.
        """
        rows = type(self).__qualname__, self.large_dataset, self.label_column, self.normal_labels, self.anomaly_labels
        columns = self.categorical_cols, self.drop_cols, self.count_encode_cols
        steps = [(name, step) for name, step in self.pipeline.steps if name in ("fillna", "scaler")]
        order = self.random_state if self.shuffling else None
        options = _described([rows, columns, steps, self.replace_inf, order])
        if options is None:
            return []
        try:
            content = file_digest(self.dataset_path)
        except OSError as error:
            raise DatasetError(f"{self.dataset_path} cannot be read ({error}); give a CSV file.") from error
        split = f"n={self.n_rows}_train={self.pa_train}-{self.p_train}_val={self.pa_val}-{self.p_val}"
        rest = hashlib.sha256((content + options).encode()).hexdigest()[:16]
        name = f"{self.dataset_path.stem}_{split}_test={self.pa_test}_{rest}"
        return [self.preprocessed_dir / f"{name}_{part}.csv" for part in ("train", "val", "test")]

    def _loader(self, rows: DataFrameWithLabels | None) -> DataLoader[Any]:
        if rows is None:
            raise RuntimeError("the data module has no rows yet; call setup first")
        return RowLoader(rows, sampler=RowBatches(len(rows), self.batch_size))

    def _raw_parts(self) -> list[pd.DataFrame]:
        """The rows of each part, labels encoded."""
        try:
            first = pd.read_csv(self.dataset_path, nrows=1)
            # Not in pieces, of which each would have types of its own: the same value could be 1 and "1".
            data = pd.read_csv(
                self.dataset_path, usecols=[self.label_column] if self.large_dataset else None, low_memory=False
            )
        except (OSError, ValueError) as error:
            raise DatasetError(f"{self.dataset_path} cannot be read ({error}); give a CSV file.") from error
        check_fields(self.dataset_path, first)
        self.encode_labels_inplace(data)
        split = controlled_split(
            data[self.label_column].to_numpy() == 1,
            self.p_train,
            self.p_val,
            self.pa_train,
            self.pa_val,
            self.pa_test,
            self.n_rows,
            self.random_state,
            self.shuffling,
        )
        if not self.large_dataset:
            return [data.iloc[positions] for positions in split]
        torn = self._torn_columns()
        return [self._read_rows(positions, torn) for positions in split]

    def _read_rows(self, positions: Positions, torn: pd.DataFrame) -> pd.DataFrame:
        """Rows of the file at these positions, in their order, without holding the others but for `torn` columns."""
        chunks = pd.read_csv(self.dataset_path, chunksize=CSV_CHUNK_ROWS)
        rows = pd.concat([chunk[chunk.index.isin(positions)] for chunk in chunks]).loc[positions]
        for name in torn:
            rows[name] = torn[name]  # those of the same positions
        self.encode_labels_inplace(rows)
        return rows

    def _torn_columns(self) -> pd.DataFrame:
        """Columns that hold words in one piece of the file and something else in another, read whole: "1" is 1."""
        kinds = pd.DataFrame([chunk.dtypes for chunk in pd.read_csv(self.dataset_path, chunksize=CSV_CHUNK_ROWS)])
        numbers = kinds.map(lambda kind: is_numeric_dtype(kind) and not is_bool_dtype(kind)).all()
        torn = kinds.columns[(kinds.nunique() > 1) & ~numbers]
        return pd.read_csv(self.dataset_path, usecols=torn, low_memory=False)

    def _preprocess(self, parts: list[pd.DataFrame]) -> list[pd.DataFrame]:
        """Fit the pipeline on the training features, apply it to each part, put the labels back."""
        features = [part.drop(columns=self.label_column) for part in parts]
        self.pipeline.fit(features[0])
        return [
            self.pipeline.transform(part).assign(**{self.label_column: labels[self.label_column]})
            for part, labels in zip(features, parts, strict=True)
        ]


def _described(option: Any) -> str | None:
    """A text that two options share only if they do the same; None where there is none, as for a function."""
    if isinstance(option, BaseEstimator) and type(option).__module__.startswith("sklearn."):
        return _described([type(option).__qualname__, sorted(option.get_params(deep=False).items())])
    if isinstance(option, np.ndarray | np.generic):
        return _described(option.tolist())
    if isinstance(option, Sequence) and not isinstance(option, str):
        parts = [_described(part) for part in option]
        return None if None in parts else f"[{', '.join(map(str, parts))}]"
    return repr(option) if option is None or isinstance(option, bool | int | float | str) else None
