"""Data sets small enough to fit in a moment, and measurements made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssad.workflows.benchmark.measurements import Measurement


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two data sets of 100 rows, a tenth of them anomalies that are far away."""
    generator = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    for name in ("one", "two"):
        rows = np.vstack([generator.normal(0, 1, (90, 3)), generator.normal(6, 1, (10, 3))])
        np.savez(data / f"{name}.npz", X=rows, y=np.repeat([0, 1], [90, 10]))
    return data


def measurement(test: Any, labels: Any, **more: Any) -> Measurement:
    """A measurement with these scores; `more` replaces what is of no matter."""
    scores = np.asarray(test, dtype=np.float64)
    rest: dict[str, Any] = {
        "train": scores,
        "confidence": np.empty(0),
        "thresholds": np.empty(0),
        "fit_seconds": 1.0,
        "score_seconds": 0.5,
        "size": 100,
        "features": 3,
        "contamination": 0.1,
        "failure": "",
    }
    return Measurement(test=scores, labels=np.asarray(labels), **rest | more)
