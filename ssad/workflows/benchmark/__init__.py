"""The presets beside other libraries' detectors and thresholds, in one run; peers come from the extra `benchmark`."""

from ssad.workflows.benchmark.run import Report, benchmark
from ssad.workflows.benchmark.settings import BenchmarkSettings

__all__ = ["BenchmarkSettings", "Report", "benchmark"]
