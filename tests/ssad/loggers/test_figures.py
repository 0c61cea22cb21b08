"""Figures show the numbers they are given; what they compute is worked by hand."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch

from ssad.bundle import REGIONS, Thresholds
from ssad.bundle.intervals import beyond
from ssad.loggers import comparison, curves, training_figures
from ssad.loggers.training_figures import PANELS, SAMPLE, Recalibration, sampled

LABELS = np.asarray([0, 0, 1, 1])
CONFIDENCE = np.asarray([0.9, -0.5, -0.8, 0.1])


def history(length: int) -> list[Recalibration]:
    generator = np.random.default_rng(0)
    before = np.ones(50)
    steps = []
    for epoch in range(length):
        scores, after = generator.lognormal(0, 2, 300), generator.uniform(-1, 1, 50)
        steps.append(Recalibration.of(epoch, Thresholds(1.0, 2.0 + epoch), scores, before, after))
        before = after
    return steps


def written(figure: Figure) -> str:
    """The figure as an SVG whose text is text."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    return file.getvalue()


@pytest.mark.parametrize("rows", [1, 3, SAMPLE, 10 * SAMPLE])
def test_a_sample_has_both_ends_and_no_more_rows_than_asked(rows: int) -> None:
    sample = sampled(np.arange(float(rows)))
    assert len(sample) == min(rows, SAMPLE)
    assert (sample[0], sample[-1]) == (0, rows - 1)


def test_a_recalibration_keeps_shares_of_all_rows_and_a_sample_of_their_scores() -> None:
    scores = np.arange(0.0, 20.0 * SAMPLE, 10.0)
    step = Recalibration.of(3, Thresholds(10.0 * SAMPLE - 1, np.inf), scores, np.ones(1), np.ones(1))
    assert step.shares == {"normal": 0.5, "unknown": 0.5, "abnormal": 0}
    assert len(step.scores) == SAMPLE
    assert (np.diff(step.scores) > 0).all()


def test_a_recalibration_comes_back_from_a_checkpoint_as_it_was(tmp_path: Path) -> None:
    import torch

    step = Recalibration.of(3, Thresholds(0.5, np.inf), np.arange(4.0), np.ones(4), -np.ones(4))
    torch.save(step.to_plain(), tmp_path / "step.ckpt")
    again = Recalibration.from_plain(torch.load(tmp_path / "step.ckpt", weights_only=True))
    assert again.to_plain() == step.to_plain()
    assert (again.epoch, again.thresholds, again.shares) == (step.epoch, step.thresholds, step.shares)


@pytest.mark.parametrize("length", [1, 2, PANELS, 20])
def test_the_figures_of_a_training_draw_at_any_length(length: int) -> None:
    steps = history(length)
    shares = written(training_figures.region_shares_figure(steps))
    for region, share in steps[-1].shares.items():
        assert f"{region} ({share:.1%} at the end)" in shares
    panels = training_figures.score_distribution_figure(steps)
    titles = [axes.get_title() for axes in panels.axes if axes.get_visible()]
    assert len(titles) == min(length, PANELS)
    assert titles[0].startswith("epoch 0:")
    assert titles[-1].startswith(f"epoch {length - 1}:")
    assert [text.get_text() for text in panels.legends[0].get_texts()] == list(REGIONS)


def test_moves_sum_to_all_rows_and_name_where_they_went() -> None:
    step = Recalibration.of(
        0,
        Thresholds(1, 2),
        np.arange(4.0),
        before=np.asarray([1.0, 0.5, 0.0, -0.5]),
        after=np.asarray([1.0, -1.0, 0.49, -0.5]),
    )
    _, moves = training_figures.confidence_change_figure([step]).axes
    shares = [text.get_text() for text in moves.texts]
    # From normal: one stays, one turns abnormal; the undecided and the abnormal row stay.
    assert shares == ["25.0%", "0.0%", "25.0%", "0.0%", "25.0%", "0.0%", "0.0%", "0.0%", "25.0%"]


def test_the_reliability_of_a_calibrated_confidence_is_perfect() -> None:
    share = np.arange(1, 10) / 10
    normal = np.concatenate([np.arange(1600) < 1600 * p for p in share])
    figure = curves.reliability_figure(2 * np.repeat(share, 1600) - 1, (~normal).astype(np.int64))
    assert "expected calibration error 0.000" in written(figure)


def test_rows_that_are_all_equally_sure_are_one_point_that_is_seen() -> None:
    figure = curves.risk_coverage_figure(np.ones(4), LABELS)
    assert figure.axes[0].lines[0].get_marker() == "o"


def test_a_few_rows_are_drawn_too() -> None:
    assert "every row decided: 50.0%" in written(curves.risk_coverage_figure(CONFIDENCE, LABELS))
    assert "expected calibration error" in written(curves.reliability_figure(CONFIDENCE, LABELS))


def test_the_figures_say_the_areas_of_the_metrics() -> None:
    scores, labels = np.asarray([0.1, 0.2, 0.3, 0.4, 0.5]), np.asarray([0, 0, 1, 0, 1])
    roc, curve = curves.roc_figure(scores, labels), curves.precision_recall_figure(scores, labels)
    assert roc.axes[0].get_legend_handles_labels()[1][0] == "area 0.833"
    assert curve.axes[0].get_legend_handles_labels()[1][0] == "average precision 0.833"


def test_the_distributions_of_scores_have_the_rows_of_each_bin_and_width_for_both() -> None:
    generator = np.random.default_rng(0)
    before, now = generator.gamma(2, size=2000), 1e6 * generator.gamma(2, size=500)
    edges = np.quantile(before, np.linspace(0, 1, 101))
    histogram = {"edges": edges.tolist(), "counts": np.histogram(before, edges)[0].tolist()}
    figure = comparison.score_distributions_figure(histogram, now, [("intervals", Thresholds(2.0, 5.0))])
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"  # far scores leave width to those of training
    training, recent = (patch for patch in axes.patches if isinstance(patch, StepPatch))
    shares, bins, _ = recent.get_data()
    assert shares == pytest.approx(np.histogram(now, bins)[0] / 500)
    shares, bins, _ = training.get_data()
    assert shares.sum() == pytest.approx(1)
    assert shares == pytest.approx(np.histogram(before, bins)[0] / 2000, abs=0.01)  # a bin of the histogram
    assert (shares > 0.002).sum() > 15


def test_rows_of_one_score_are_drawn_at_it() -> None:
    histogram = {"edges": [beyond(1.0)] * 2, "counts": [300]}  # as a bundle has them
    figure = comparison.score_distributions_figure(histogram, np.ones(5), [("intervals", Thresholds(1.0, np.inf))])
    (axes,) = figure.axes
    training, recent = (patch.get_data() for patch in axes.patches if isinstance(patch, StepPatch))
    assert training[0].max() == recent[0].max() == 1
    assert abs(int(training[0].argmax()) - int(recent[0].argmax())) <= 1
    assert 0.99 < recent[1][recent[0].argmax()] <= 1


@pytest.mark.parametrize("draw", [curves.roc_figure, curves.precision_recall_figure])
def test_no_legend_covers_a_curve(draw: Callable[[np.ndarray, np.ndarray], Figure]) -> None:
    figure = draw(np.asarray([0.1, 0.2, 0.3, 0.4, 0.5]), np.asarray([1, 0, 0, 0, 0]))  # as bad as can be
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    assert legend.get_window_extent().y1 <= axes.get_window_extent().y0


def test_columns_are_named_as_they_are_called_and_leave_room_for_their_bars() -> None:
    long = "how often " * 30
    index = {"min_$_max_$": 0.1, r"$\frac{": 0.2, "1": 0.3, long: 0.4}
    figure = comparison.column_drift_figure(index, 0.25)
    drawn = written(figure)  # a pair of dollar signs is no formula
    for text in ("min_$_max_$", r"$\frac{", long[:39] + "…"):
        assert text in drawn
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)] == [0.1, 0.2, 0.3, 0.4]
    assert axes.get_position().width > 0.5
