"""The figures, as PNG bytes at twice the size they are shown at.

λ goes from dark blue to coral in its order, in steps of lightness that survive colour blindness and grey print;
line style and marker say the same once more. Nothing here depends on time, display or fonts of the machine: the same
records give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from netslim.report import formats
from netslim.report.results import STAGES, MeanStd

WIDTH, DPI = 8.2, 200  # inches; shown at 100 dots per inch
INK, QUIET, GRID = "#1c2024", "#5b6168", "#dfe2e6"
LINES = ["-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (2, 1))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
Curve = tuple[list[int], list[MeanStd]]  # epochs, and the accuracy at each
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def style(index: int, of: int) -> dict[str, Any]:
    """Colour, line style and marker of the λ at this place of ``of`` values in ascending order."""
    place = index / (of - 1) if of > 1 else 0.0
    colour = matplotlib.colormaps["plasma"](0.02 + 0.62 * place)  # up to 3:1 against white
    return {
        "color": colour,
        "linestyle": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4.5,
    }


def curves(panels: dict[str, dict[float, Curve]], *, ylabel: str) -> bytes:
    """Accuracy over epochs: a row per title, a line per λ, a band of ± one sample standard deviation.

    From 12 epochs on, a second column shows the last quarter by itself, where the lines are too close for the first.
    """
    strengths = sorted({value for lines in panels.values() for value in lines})
    longest = max((epochs[-1] for lines in panels.values() for epochs, _ in lines.values() if epochs), default=0)
    columns = 2 if longest >= 12 else 1
    with rc_context(STYLE):
        figure, axes = _grid(len(panels) * columns, columns, 3.3)
        for row, (title, lines) in enumerate(panels.items()):
            for ax, since in zip(axes[row * columns :], (0, longest - longest // 4)[:columns], strict=False):
                for strength, (epochs, values) in lines.items():
                    shown = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if epoch >= since]
                    _line(ax, shown, strength, strengths)
                ax.set_title(", ".join(filter(None, (title, f"from epoch {since}" if since else ""))))
                ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes[row * columns].set_ylabel(ylabel)
        for ax in axes[-columns:]:
            ax.set_xlabel("epoch")
        _legend(figure, axes)
        return _png(figure)


def _line(ax: Axes, shown: Sequence[tuple[int, MeanStd]], strength: float, strengths: Sequence[float]) -> None:
    index, gap = strengths.index(strength), max(len(shown) // 8, 1)
    look = style(index, len(strengths))
    epochs = [epoch for epoch, _ in shown]
    mean = 100 * np.array([value.mean for _, value in shown])
    std = 100 * np.array([value.std or 0.0 for _, value in shown])
    ax.plot(epochs, mean, label=formats.label(strength), markevery=(index * gap // len(strengths), gap), **look)
    if std.any():
        ax.fill_between(epochs, mean - std, mean + std, color=look["color"], alpha=0.18, linewidth=0)


def bins(all_scales: Sequence[Sequence[float]], *, number: int = 50) -> np.ndarray:
    """Edges of shape (number + 1,) from 0 to the largest |γ| of all networks, for histograms on a common axis."""
    top = max((value for scales in all_scales for value in scales if np.isfinite(value)), default=0.0)
    return np.linspace(0.0, top or 1.0, number + 1)


def counts(all_scales: Sequence[Sequence[float]], edges: np.ndarray) -> np.ndarray:
    """Channels per bin, one row per network: shape (networks, bins). Values that are not finite fall in no bin."""
    finite = [np.asarray(scales, dtype=float)[np.isfinite(scales)] for scales in all_scales]
    return np.stack([np.histogram(values, edges)[0] for values in finite])


def histogram(
    table: np.ndarray, edges: np.ndarray, *, thresholds: dict[float, float], look: dict[str, Any], top: float
) -> bytes:
    """Mean count per bin of |γ| on a logarithmic axis; ``thresholds`` maps each prune ratio to its |γ|."""
    mean, lowest = table.mean(axis=0), 0.7 / len(table)
    with rc_context(STYLE):
        figure, (ax,) = _grid(1, 1, 3.1)
        ax.stairs(mean, edges, fill=True, color=look["color"], alpha=0.4, baseline=lowest)
        ax.stairs(mean, edges, color=look["color"], baseline=lowest)
        if len(table) > 1:
            std = table.std(axis=0, ddof=1)
            centres = (edges[:-1] + edges[1:]) / 2
            below = np.minimum(std, np.maximum(mean - lowest, 0))
            ax.errorbar(centres, mean, yerr=(below, std), fmt="none", ecolor=INK, elinewidth=0.8)
        for index, (ratio, threshold) in enumerate(thresholds.items()):
            text = f"{formats.ratio(ratio)} pruned: up to |γ| = {threshold:.3g}"
            ax.axvline(threshold, color=INK, linewidth=1.3, linestyle=LINES[1:][index % 5], label=text)
        ax.set(yscale="log", ylim=(lowest, top), xlim=(0, edges[-1]), xlabel="|γ|", ylabel="channels per bin (log)")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _legend(figure, [ax])
        return _png(figure)


def stages(lines: dict[float, dict[str, MeanStd | None]]) -> bytes:
    """Test accuracy at each stage of a job, from the dense network to the fine-tuned one; one line per λ."""
    with rc_context(STYLE):
        figure, (ax,) = _grid(1, 1, 3.3)
        for index, (strength, values) in enumerate(lines.items()):
            aside = 0.05 * (index - (len(lines) - 1) / 2)
            known = {place + aside: value for place, value in enumerate(values.values()) if value}
            _points(ax, known, label=formats.label(strength), **style(index, len(lines)) | {"markersize": 6.5})
        ax.set_xticks(range(len(STAGES)), list(STAGES), color=INK)
        ax.set(ylim=(0, 103), xlim=(-0.3, len(STAGES) - 0.7), ylabel="test accuracy, %")
        ax.grid(visible=False, axis="x")
        _legend(figure, [ax])
        return _png(figure)


def ratios(panels: dict[str, dict[float, dict[float, MeanStd]]]) -> bytes:
    """Test accuracy over the prune ratio, 0 being the dense network: a panel per stage, a line per λ."""
    with rc_context(STYLE):
        figure, axes = _grid(len(panels), len(panels), 3.3)
        for ax, (title, lines) in zip(axes, panels.items(), strict=True):
            for index, (strength, values) in enumerate(lines.items()):
                known = {100 * ratio: value for ratio, value in values.items()}
                _points(ax, known, label=formats.label(strength), **style(index, len(lines)))
            ax.set(title=title, xlabel="channels asked to go, %")
        axes[0].set_ylabel("test accuracy, %")
        _legend(figure, axes)
        return _png(figure)


def _points(ax: Axes, values: dict[float, MeanStd], **look: Any) -> None:
    """Accuracies in percent over a few places, joined by a line, with ± one sample standard deviation."""
    error = [100 * (value.std or 0.0) for value in values.values()]
    mean = [100 * value.mean for value in values.values()]
    ax.errorbar(list(values), mean, yerr=error if any(error) else None, capsize=3, **look)


def kept(names: Sequence[str], channels: Sequence[int], panels: dict[str, dict[float, list[float]]]) -> bytes:
    """Channels that stay in every BatchNorm layer, one panel per ratio, the dense width as grey bars behind."""
    strengths = sorted({value for lines in panels.values() for value in lines})
    places = np.arange(len(names))
    with rc_context(STYLE):
        figure, axes = _grid(len(panels), 1, 2.5, share=True)
        for ax, (title, lines) in zip(axes, panels.items(), strict=True):
            ax.bar(places, channels, width=0.86, color=GRID, label="dense")
            for strength, values in lines.items():
                index = strengths.index(strength)
                look = style(index, len(strengths)) | {"markersize": 4.5 if len(names) < 50 else 2.5, "linewidth": 1.4}
                ax.plot(places, values, label=formats.label(strength), **look)
            ax.set(title=title, ylabel="channels", ylim=(0, max(channels) * 1.05), xlim=(-0.7, len(names) - 0.3))
            ax.grid(visible=False, axis="x")
        if len(names) <= 24:
            axes[-1].set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8.5)
        else:
            axes[-1].set_xlabel("BatchNorm layer, in the order of the network")
        _legend(figure, axes)
        return _png(figure)


def _grid(panels: int, columns: int, height: float, *, share: bool = False) -> tuple[Figure, list[Axes]]:
    rows = -(-panels // columns)
    figure = Figure(figsize=(WIDTH, height * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    return figure, axes.ravel().tolist()


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels above them, every label once, λ in ascending order."""
    entries = {text: handle for ax in axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    if entries:
        rows = -(-len(entries) // 5)
        figure.legend(
            entries.values(), entries.keys(), loc="outside upper left", ncols=-(-len(entries) // rows), handlelength=3.2
        )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
