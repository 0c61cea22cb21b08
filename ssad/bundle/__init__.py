"""A trained detector as files, and scoring with it. Imports neither torch nor Lightning."""

from ssad.bundle.bundle import Bundle, Scores
from ssad.bundle.drift import Drift, Reference, RowCounts
from ssad.bundle.intervals import REGIONS, ConfidenceCurve, Thresholds
from ssad.bundle.schema import Column, TableSchema
from ssad.bundle.writer import write_bundle

__all__ = [
    "REGIONS",
    "Bundle",
    "Column",
    "ConfidenceCurve",
    "Drift",
    "Reference",
    "RowCounts",
    "Scores",
    "TableSchema",
    "Thresholds",
    "write_bundle",
]
