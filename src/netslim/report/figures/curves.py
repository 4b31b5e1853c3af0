"""Curves over the epochs of a training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from netslim.report import formats
from netslim.report.figures import canvas, palette
from netslim.report.results import MeanStd

Curve = tuple[list[int], list[MeanStd]]  # epochs, and the value at each


@dataclass(frozen=True)
class Panel:
    """Curves by λ under one title. ``scale``: 100 shows shares in percent."""

    title: str
    ylabel: str
    curves: Mapping[float, Curve]
    scale: float = 1.0


@canvas.drawn
def curves(panels: Sequence[Panel], *, columns: int, width: float) -> Figure:
    """A line per λ, in every panel with the same look; one epoch is a dot."""
    strengths = sorted({strength for panel in panels for strength in panel.curves})
    figure, axes = canvas.panels(len(panels), columns, width=width, height=2.9)
    for ax, panel in zip(axes, panels, strict=True):
        for strength, (epochs, values) in panel.curves.items():
            _line(ax, epochs, values, panel.scale, strength, strengths)
        ax.set(title=panel.title, xlabel="epoch", ylabel=panel.ylabel)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    canvas.legend(figure, axes)
    return figure


def _line(
    ax: Axes, epochs: Sequence[int], values: Sequence[MeanStd], scale: float, strength: float, every: list[float]
) -> None:
    """One curve, its markers at other epochs than those of the other curves."""
    index, gap = every.index(strength), max(len(epochs) // 8, 1)
    look = palette.series(index, len(every)) | {"label": formats.label(strength)}
    canvas.line(ax, epochs, values, scale, markevery=(index * gap // len(every), gap), **look)


def last_quarter(panel: Panel) -> Panel | None:
    """The end of the curves by itself, where they are too close to tell apart: None under 12 epochs, or where the
    values are so few (the accuracy on a small split) that one image is a visible step."""
    longest = max((epochs[-1] for epochs, _ in panel.curves.values() if epochs), default=0)
    since = longest - longest // 4
    shown = {strength: _since(curve, since) for strength, curve in panel.curves.items()}
    means = {value.mean for _, values in shown.values() for value in values}
    if longest < 12 or 20 * _step(means) > max(means) - min(means):
        return None
    return Panel(f"from epoch {since}", panel.ylabel, shown, panel.scale)


def _since(curve: Curve, epoch: int) -> Curve:
    kept = [(e, value) for e, value in zip(*curve, strict=True) if e >= epoch]
    return [e for e, _ in kept], [value for _, value in kept]


def _step(values: Iterable[float]) -> float:
    """The smallest difference between two of the values."""
    ordered = sorted(values)
    return min((b - a for a, b in itertools.pairwise(ordered)), default=float("inf"))
