"""What a training looks like, recalibration by recalibration: figures that need no colour vision to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ssad.bundle import REGIONS, Thresholds
from ssad.bundle.intervals import Floats
from ssad.confidence_estimators import DECIDED
from ssad.distribution_analyzers import draw_regions
from ssad.drawing import BLUE, GREY, REGION_COLORS
from ssad.sampling import spread

SAMPLE = 2000
"""Rows that stand for all of them in a figure: more than it has pixels across."""

PANELS = 6
"""Recalibrations shown side by side, the first and the last among them."""


@dataclass(frozen=True)
class Recalibration:
    """One recalibration, as much of it as figures need: at most `SAMPLE` rows, evenly spread over their order.

    Attributes:
        epoch: after which it was.
        thresholds: that it found.
        shares: of all training rows in each region.
        scores: of the sampled rows.
        before: their confidence until then, in [-1, 1].
        after: their confidence from then on.
    """

    epoch: int
    thresholds: Thresholds
    shares: dict[str, float]
    scores: Floats
    before: Floats
    after: Floats

    @classmethod
    def of(cls, epoch: int, thresholds: Thresholds, scores: Floats, before: Floats, after: Floats) -> Recalibration:
        """From the scores of all training rows, shape (n,), and the confidence of the sampled ones."""
        return cls(epoch, thresholds, thresholds.shares(scores), sampled(scores), before, after)

    def to_plain(self) -> dict[str, Any]:
        """As numbers, lists and dicts alone, which a checkpoint may hold."""
        return asdict(self) | {name: getattr(self, name).tolist() for name in ("scores", "before", "after")}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Recalibration:
        """The inverse of `to_plain`."""
        arrays = {name: np.asarray(plain[name]) for name in ("scores", "before", "after")}
        return cls(plain["epoch"], Thresholds(**plain["thresholds"]), plain["shares"], **arrays)


def sampled(rows: Floats) -> Floats:
    """The rows that stand for all of them, a copy of shape (m,), m at most `SAMPLE`."""
    return rows[spread(len(rows), SAMPLE)]


def region_shares_figure(history: Sequence[Recalibration]) -> Figure:
    """Share of the training rows in each region over the epochs, stacked."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [step.epoch for step in history]
    shares = np.asarray([[step.shares[region] for region in REGIONS] for step in history])
    if len(history) == 1:  # an area needs two ends
        epochs, shares = [epochs[0], epochs[0] + 1], np.repeat(shares, 2, axis=0)
    labels = [f"{region} ({share:.1%} at the end)" for region, share in zip(REGIONS, shares[-1], strict=True)]
    axes.stackplot(epochs, shares.T, colors=list(REGION_COLORS.values()), labels=labels, edgecolor="white")
    axes.set(xlabel="epoch", ylabel="share of training rows", xlim=(epochs[0], epochs[-1]), ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Regions over the training")
    figure.legend(loc="outside lower center", ncols=len(REGIONS), frameon=False)
    return figure


def score_distribution_figure(history: Sequence[Recalibration]) -> Figure:
    """The score distribution at the first, the last and some recalibrations between, each on its own scale."""
    at = spread(len(history), PANELS)
    across = min(3, len(at))
    figure = Figure(figsize=(4 * across, 3 * math.ceil(len(at) / across)), layout="constrained")
    panels = figure.subplots(math.ceil(len(at) / across), across, squeeze=False).ravel()
    for axes, step in zip(panels, (history[index] for index in at), strict=False):
        draw_regions(axes, step.scores, step.thresholds)
        axes.set_title(f"epoch {step.epoch}: {step.shares['unknown']:.1%} unknown")
        axes.set_yticks([])
        axes.set_ylabel("")
    for axes in panels[len(at) :]:
        axes.set_visible(False)
    figure.supxlabel("score (higher is more abnormal)")
    # Of the colours, not of what is drawn: a region may be empty in the one panel and not in the next.
    colors = [Patch(color=color, label=region) for region, color in REGION_COLORS.items()]
    figure.legend(handles=colors, loc="outside upper center", ncols=len(colors), frameon=False)
    return figure


def confidence_change_figure(history: Sequence[Recalibration]) -> Figure:
    """Confidence before the first recalibration and after the last, and from where to where rows went."""
    before, after = history[0].before, history[-1].after
    figure = Figure(figsize=(9, 4), layout="constrained")
    distribution, moves = figure.subplots(1, 2, width_ratios=(3, 2))
    for values, color, hatch, label in ((before, GREY, "//", "before"), (after, BLUE, None, "after")):
        counts, edges = np.histogram(values, np.linspace(-1, 1, 41))
        distribution.stairs(counts / len(values), edges, fill=True, alpha=0.5, color=color, hatch=hatch, label=label)
    distribution.set(xlabel="confidence", ylabel="share of training rows", xlim=(-1, 1))
    distribution.set_title("Confidence before and after training")
    distribution.legend(loc="upper left")
    _draw_moves(moves, before, after)
    return figure


def _draw_moves(axes: Axes, before: Floats, after: Floats) -> None:
    """Share of the rows for each pair of what they were and what they became."""
    names = ("normal", "undecided", "abnormal")
    was, became = ((values < DECIDED).astype(int) + (values <= -DECIDED) for values in (before, after))
    table = np.zeros((3, 3))
    np.add.at(table, (was, became), 1 / len(was))
    axes.imshow(table, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(table):
        axes.text(column, row, f"{share:.1%}", ha="center", va="center", color="white" if share > 0.5 else "black")
    axes.set_xticks(range(3), names)
    axes.set_yticks(range(3), names)
    axes.set(xlabel="after", ylabel="before", title="Rows that changed sides")
