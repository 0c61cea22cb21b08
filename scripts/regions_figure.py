"""Draw `docs/images/regions.svg`, the README's picture, from NSL-KDD's training table as argument.

Its rows are thinned to a tenth of attacks; the same network is trained on all rows alike, and by
self-supervision. Labels thin the rows and draw the outline, and are hidden from both.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.figure import Figure

from ssad.datamodules.splits import thin_anomalies
from ssad.datasets.labels import split_labels
from ssad.datasets.tables import read_table
from ssad.detectors import FitSettings, FittedDetector, fit_detector
from ssad.distribution_analyzers import draw_regions

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "regions.svg"
CONTAMINATION = 0.1


def main(source: str) -> None:
    """Fit twice, draw both."""
    rows, anomalous = split_labels(read_table(source))
    assert anomalous is not None, "the picture outlines labelled anomalies"
    kept = thin_anomalies(anomalous, CONTAMINATION, 0)
    rows, anomalous = rows.iloc[kept].reset_index(drop=True), anomalous[kept]
    with tempfile.TemporaryDirectory() as folder:
        all_normal = Path(folder) / "confidence.csv"
        pd.DataFrame({"confidence": np.ones(len(rows))}).to_csv(all_normal, index=False)
        alike = fit_detector(rows, FitSettings(every_n_epochs=10_000), all_normal)
    supervised = fit_detector(rows, FitSettings())
    rcParams["svg.hashsalt"] = "ssad"  # the same picture is the same file
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = zip(
        figure.subplots(1, 2), ("every row learned alike", "by self-supervision"), (alike, supervised), strict=True
    )
    for axes, title, detector in panels:
        draw(axes, title, detector, anomalous)
    figure.savefig(IMAGE, metadata={"Date": None})


def draw(axes, title: str, detector: FittedDetector, anomalous: np.ndarray) -> None:
    """One score distribution with its regions, the anomalies among it outlined."""
    scores = detector.training_scores
    draw_regions(axes, scores, detector.curve.thresholds)
    edges = axes.patches[0].get_data().edges
    counts, _ = np.histogram(np.clip(scores[anomalous], edges[0], edges[-1]), edges)
    axes.stairs(counts, edges, color="black", linewidth=1.2, label="of these, attacks")
    axes.set(title=title, xlabel="score (higher is more abnormal)")
    axes.legend(fontsize="small", loc="upper right")


if __name__ == "__main__":
    main(sys.argv[1])
