"""Scores to intervals. Imports the confidence intervals and the bundle's plain types, no other room."""

from ssad.distribution_analyzers.analyzer import (
    HistogramPlotAnalyzer,
    SupportsDistributionAnalysis,
    draw_regions,
)
from ssad.distribution_analyzers.conformal import ConformalThresholding
from ssad.distribution_analyzers.consensus import ConsensusThresholding
from ssad.distribution_analyzers.evt import EVTThresholding
from ssad.distribution_analyzers.triangular import TriangularThresholding

__all__ = [
    "ConformalThresholding",
    "ConsensusThresholding",
    "EVTThresholding",
    "HistogramPlotAnalyzer",
    "SupportsDistributionAnalysis",
    "TriangularThresholding",
    "draw_regions",
]
