"""How rows reach the trainer: splits, contamination, and wrapping any data module with confidence."""

from ssad.datamodules.general_tabular_datamodule import GeneralTabularDataModule
from ssad.datamodules.preprocessing import (
    create_preprocessing_pipeline,
    drop_cols,
    fuse_cols,
    replace_values_with_nan,
    time_split_train_val_test,
    to_categorical,
)
from ssad.datamodules.self_supervision_datamodule import SelfSupervisionDataModule

__all__ = [
    "GeneralTabularDataModule",
    "SelfSupervisionDataModule",
    "create_preprocessing_pipeline",
    "drop_cols",
    "fuse_cols",
    "replace_values_with_nan",
    "time_split_train_val_test",
    "to_categorical",
]
