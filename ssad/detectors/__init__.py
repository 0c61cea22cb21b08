"""Presets: which parts make RADON, GRAnD and the default, and how one is fitted."""

from ssad.detectors.anomaly_detector import AnomalyDetector
from ssad.detectors.fit import FittedDetector, fit_detector
from ssad.detectors.plan import FitSettings, Hardware, Plan
from ssad.detectors.presets import PRESETS, Preset, preset

__all__ = [
    "PRESETS",
    "AnomalyDetector",
    "FitSettings",
    "FittedDetector",
    "Hardware",
    "Plan",
    "Preset",
    "fit_detector",
    "preset",
]
