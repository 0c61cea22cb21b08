"""Score and intervals to confidence. Imports the bundle's plain types, no other room."""

from ssad.confidence_estimators.curve import confidence_curve, served_curve
from ssad.confidence_estimators.estimators import (
    DECIDED,
    BaseConfidenceEstimator,
    BinaryConfidence,
    GradedConfidence,
    HybridEstimator,
    SupportsConfidenceEstimation,
    fit_estimator,
)
from ssad.confidence_estimators.intervals import ConfidenceIntervalsConfiguration, Interval

__all__ = [
    "DECIDED",
    "BaseConfidenceEstimator",
    "BinaryConfidence",
    "ConfidenceIntervalsConfiguration",
    "GradedConfidence",
    "HybridEstimator",
    "Interval",
    "SupportsConfidenceEstimation",
    "confidence_curve",
    "fit_estimator",
    "served_curve",
]
