"""Channels that are kept in every layer: layer × λ, the numbers in the cells, the share as their colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from netslim.report import formats
from netslim.report.figures import canvas, palette

READABLE = 0.3  # inches a number needs
IN_A_ROW = 4  # panels whose titles have room
NUMBERS = 300  # cells of a figure up to which each has its number
MANY = 1500  # cells of a panel from which on they are one image: the page stays small


@canvas.drawn
def kept(
    names: Sequence[str],
    channels: Sequence[int],
    panels: Mapping[float, Mapping[float, list[float]]],
    *,
    of: str = "channels",
    width: float,
) -> Figure:
    """A panel per ratio with a column per λ and a row per BatchNorm layer, the first layer on top.

    Args:
        names, channels: of every layer of the dense network.
        of: what the ratios are shares of.
        panels: ratio -> λ -> channels kept in every layer (the mean over seeds).
    """
    row = 0.2 if len(names) <= 40 else max(0.05, 12 / len(names))
    columns = min(len(panels), IN_A_ROW) if width >= canvas.NARROW else 1
    figure, axes = canvas.panels(len(panels), columns, width=width, height=row * len(names) + 0.6, sharey=True)
    few = len(names) * sum(map(len, panels.values())) <= NUMBERS
    for ax, (ratio, kept_at) in zip(axes, panels.items(), strict=True):
        space = (width - 1) / columns / len(kept_at)
        _panel(ax, channels, kept_at, numbers=few and row >= 0.2 and space >= READABLE)
        strengths = [formats.strength(value) for value in kept_at]
        shown = range(0, len(strengths), max(1, round(0.45 / space)))
        ax.set_xticks([place + 0.5 for place in shown], [strengths[place] for place in shown])
        ax.set(title=f"{formats.ratio(ratio, of)} removed", xlabel="λ", xlim=(0, len(kept_at)))
    step = 1 if row >= 0.2 else max(1, len(names) // 30)
    for ax in axes[::columns]:
        ax.set_yticks([place + 0.5 for place in range(0, len(names), step)], names[::step])
        ax.set_ylim(len(names), 0)
    return figure


def _panel(ax: Axes, channels: Sequence[int], columns: Mapping[float, list[float]], *, numbers: bool) -> None:
    shares = [[value / of for value, of in zip(values, channels, strict=True)] for values in columns.values()]
    if len(shares) * len(channels) > MANY:
        colours = [[to_rgb(palette.shade(share)) for share in row] for row in zip(*shares, strict=True)]
        ax.imshow(colours, extent=(0, len(shares), len(channels), 0), aspect="auto", interpolation="nearest")
    for x, (column, values) in enumerate(zip(shares, columns.values(), strict=True)):
        if len(shares) * len(channels) <= MANY:
            _cells(ax, x, column)
        for y, value in enumerate(values if numbers else ()):
            number = ax.text(x + 0.5, y + 0.5, f"{value:.0f}", ha="center", va="center", fontsize="small")
            number.set_in_layout(False)  # it is inside: the layout need not measure it
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)


def _cells(ax: Axes, x: int, shares: Sequence[float]) -> None:
    squares = [Rectangle((x, y), 1, 1) for y in range(len(shares))]
    colours = [palette.shade(share) for share in shares]
    cells = PatchCollection(squares, facecolor=colours, edgecolor=palette.GRID, linewidth=0.4)
    cells.set_in_layout(False)
    ax.add_collection(cells, autolim=False)
