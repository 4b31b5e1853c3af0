"""The distribution of |γ| of every λ: one figure of stacked rows on shared axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from netslim.report import formats
from netslim.report.figures import canvas, palette

FEW = 12  # λ up to which each has a histogram of its own
SMALLEST = 1e-4  # where the logarithmic axis begins: smaller |γ|, and 0, are in its first bin


@dataclass(frozen=True)
class Row:
    """One λ. ``table``: channels per bin, linear and logarithmic, shape (networks, bins); ``thresholds``: the largest
    |γ| that each ratio removes."""

    strength: float
    linear: np.ndarray
    log: np.ndarray
    thresholds: Mapping[float, float]


def bins(all_scales: Sequence[Sequence[float]], *, number: int = 50) -> np.ndarray:
    """Edges of shape (number + 1,) from 0 to the largest |γ| of all networks, for histograms on a common axis."""
    return np.linspace(0.0, _largest(all_scales), number + 1)


def log_bins(all_scales: Sequence[Sequence[float]], *, number: int = 50) -> np.ndarray:
    """Edges of shape (number + 1,) from SMALLEST to the largest |γ|, in equal steps of its logarithm."""
    return np.geomspace(SMALLEST, max(_largest(all_scales), 10 * SMALLEST), number + 1)


def _largest(all_scales: Sequence[Sequence[float]]) -> float:
    values = np.concatenate([np.asarray(scales, dtype=float) for scales in all_scales])
    return float(values[np.isfinite(values)].max(initial=0.0)) or 1.0


def counts(all_scales: Sequence[Sequence[float]], edges: np.ndarray) -> np.ndarray:
    """Channels per bin, one row per network: shape (networks, bins). Values under the first edge fall in the first
    bin, those that are not finite in none."""
    finite = [np.asarray(scales, dtype=float)[np.isfinite(scales)] for scales in all_scales]
    return np.stack([np.histogram(np.maximum(values, edges[0]), edges)[0] for values in finite])


@canvas.drawn
def distributions(rows: Sequence[Row], linear: np.ndarray, log: np.ndarray, *, width: float) -> Figure:
    """A row per λ: on the left |γ| itself, on the right its logarithm. Up to FEW λ mean counts on a logarithmic axis,
    of more λ the count as a shade."""
    figure = (_histograms if len(rows) <= FEW else _shades)(rows, linear, log, width)
    right = figure.axes[-1]
    right.set_xscale("log")
    right.xaxis.set_major_formatter(lambda value, _: formats.strength(value))
    figure.axes[-2].set_xlabel("|γ|")
    right.set_xlabel("|γ|, logarithmic")
    right.minorticks_off()
    return figure


def _histograms(rows: Sequence[Row], linear: np.ndarray, log: np.ndarray, width: float) -> Figure:
    figure = Figure(figsize=(width, 1.25 * len(rows) + 0.8), layout=canvas.Layout(h_pad=0.3))
    axes = figure.subplots(len(rows), 2, squeeze=False, sharex="col", sharey=True)
    top = max(2.0 * max(float(row.linear.mean(0).max()) for row in rows), 10.0)
    for index, (row, (left, right)) in enumerate(zip(rows, axes, strict=True)):
        look = palette.series(index, len(rows))
        for ax, table, edges in ((left, row.linear, linear), (right, row.log, log)):
            _row(ax, table, edges, row.thresholds, look["color"], top)
        left.set_ylabel(formats.label(row.strength), rotation=0, ha="right", va="center")
    canvas.legend(figure, [axes[0][0]])
    return figure


def _row(
    ax: Axes, table: np.ndarray, edges: np.ndarray, thresholds: Mapping[float, float], colour: str, top: float
) -> None:
    mean, lowest = table.mean(axis=0), 0.7 / len(table)
    ax.stairs(mean, edges, fill=True, color=colour, alpha=0.4, baseline=lowest)
    ax.stairs(mean, edges, color=colour, baseline=lowest)
    for index, (ratio, threshold) in enumerate(thresholds.items()):
        style = palette.LINES[1:][index % 5]
        label = f"up to here {formats.ratio(ratio)} is removed"
        ax.axvline(max(threshold, edges[0]), color=palette.INK, linewidth=1.2, linestyle=style, label=label)
    ax.set(yscale="log", ylim=(lowest, top), xlim=(edges[0], edges[-1]))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.minorticks_off()


def _shades(rows: Sequence[Row], linear: np.ndarray, log: np.ndarray, width: float) -> Figure:
    """Every λ a band, the darker the more channels are in a bin (logarithm of the count)."""
    figure = Figure(figsize=(width, 0.16 * len(rows) + 0.8), layout=canvas.Layout())
    axes = figure.subplots(1, 2, sharey=True)
    for ax, name, edges in zip(axes, ("linear", "log"), (linear, log), strict=True):
        table = np.log1p(np.stack([getattr(row, name).mean(axis=0) for row in rows]))
        colours = [[to_rgb(palette.shade(share)) for share in line] for line in table / max(table.max(), 1.0)]
        ax.pcolormesh(edges, np.arange(len(rows) + 1), colours, rasterized=True)
        ax.set(xlim=(edges[0], edges[-1]), ylim=(len(rows), 0))
        ax.grid(visible=False)
    shown = range(0, len(rows), -(-len(rows) // 20))
    axes[0].set_yticks([place + 0.5 for place in shown], [formats.label(rows[place].strength) for place in shown])
    return figure
