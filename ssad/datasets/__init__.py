"""What a row is: reading tables, labels, confidence per sample."""

from ssad.datasets.interfaces import DatasetWithInputDim, DatasetWithLabels
from ssad.datasets.rows import (
    DataFrameToTensor,
    DataFrameWithLabels,
    DatasetWithConfidence,
    init_confidence_from_csv,
    save_confidence_to_csv,
)

__all__ = [
    "DataFrameToTensor",
    "DataFrameWithLabels",
    "DatasetWithConfidence",
    "DatasetWithInputDim",
    "DatasetWithLabels",
    "init_confidence_from_csv",
    "save_confidence_to_csv",
]
