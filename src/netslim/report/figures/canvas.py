"""What all figures are drawn on: size, type, panels, points, the legend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import TightLayoutEngine

from netslim.report.figures.palette import GRID, GROUND, INK, QUIET
from netslim.report.results import MeanStd

NARROW = 5.0  # inches; under it panels stand below each other and type is smaller
MOST = 8  # entries of a legend; of more λ only every so many is named
STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "text.color": INK,
    "text.hinting": "none",  # as in SVG; at the resolution of the PNG there is nothing to hint
    "text.parse_math": False,  # a name from a record is no formula
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
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # no ticks are above a panel: matplotlib need not look for them
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.facecolor": GROUND,
    "axes.facecolor": "none",
}


def drawn(figure: Callable[..., Figure]) -> Callable[..., Figure]:
    """The function, run with the report's type and colours for its ``width`` in inches, and laid out."""

    @wraps(figure)
    def wrapper(*args: Any, width: float, **kwargs: Any) -> Figure:
        with style(width):
            result = figure(*args, width=width, **kwargs)
            if engine := result.get_layout_engine():
                engine.execute(result)  # once, for all formats
            result.set_layout_engine("none")
            return result

    return wrapper


class Layout(TightLayoutEngine):
    """Panels as large as their labels leave room for, and above them a strip as high as the legend.

    The panels are measured once: most of the time of a small figure goes into that.
    """

    def execute(self, fig: Figure) -> None:
        for spine in (spine for ax in fig.axes for spine in ax.spines.values()):
            spine.set_in_layout(False)  # the ticks on it are measured
        grid, panels = fig.axes[0].get_gridspec(), fig.get_figheight()
        assert grid is not None, "the panels of `panels` are in a grid"
        grid.tight_layout(fig, pad=0.5, h_pad=self.get()["h_pad"])
        height = panels + sum(legend.get_window_extent().height for legend in fig.legends) / fig.dpi
        fig.set_figheight(height)
        room = grid.get_subplot_params(fig)
        grid.update(bottom=room.bottom * panels / height, top=room.top * panels / height)
        fig.subplots_adjust()  # moves the panels to where the grid has them


def style(width: float) -> AbstractContextManager[None]:
    """matplotlib's settings while a figure of that width is made, and while it is saved."""
    size = type_size(width)
    return rc_context(STYLE | {"font.size": size, "axes.titlesize": size, "legend.fontsize": size})


def type_size(width: float) -> float:
    """Points."""
    return 10 if width >= NARROW else 8


def panels(number: int, columns: int, *, width: float, height: float, **share: Any) -> tuple[Figure, list[Axes]]:
    """A figure of ``number`` panels, each ``height`` inches; at a narrow width they are one column."""
    columns = columns if width >= NARROW else 1
    rows = -(-number // columns)
    figure = Figure(figsize=(width, height * rows), layout=Layout())
    axes = figure.subplots(rows, columns, squeeze=False, **share).ravel().tolist()
    for spare in axes[number:]:
        spare.remove()
    for ax in axes[:number]:
        ax.locator_params(nbins=5)  # of a figure, ticks take the most time
    return figure, axes[:number]


def points(ax: Axes, values: Mapping[float, MeanStd], scale: float, **look: Any) -> None:
    """A few places joined by a line, with ± one sample standard deviation; scale 100 shows shares in percent."""
    error = [scale * (value.std or 0.0) for value in values.values()]
    mean = [scale * value.mean for value in values.values()]
    ax.errorbar(list(values), mean, yerr=error if any(error) else None, capsize=3, **look)


def line(ax: Axes, epochs: Sequence[int], values: Sequence[MeanStd], scale: float, **look: Any) -> None:
    """A curve with a band of ± one sample standard deviation; a single epoch is a dot."""
    mean = scale * np.array([value.mean for value in values])
    std = scale * np.array([value.std or 0.0 for value in values])
    ax.plot(epochs, mean, **look)
    if std.any():
        ax.fill_between(epochs, mean - std, mean + std, color=look["color"], alpha=0.18, linewidth=0)


def legend(figure: Figure, axes: Sequence[Axes], always: Collection[str] = ()) -> None:
    """One legend for all panels, above them and no wider than the picture: every label once, in order.

    always: labels that are there however many others there are.
    """
    entries = {text: handle for ax in axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    thinned = [item for item in entries.items() if item[0] not in always]
    if len(thinned) > MOST:
        step = -(-(len(thinned) - 1) // (MOST - 1))
        named = dict([*thinned[:-1:step], thinned[-1]])
        entries = {text: handle for text, handle in entries.items() if text in named or text in always}
    if not entries:
        return
    width = figure.get_figwidth()
    longest = (max(map(len, entries)) + 8) * 0.62 * type_size(width) / 72  # inches: letters, and the handle
    columns = max(1, min(len(entries), int(width / longest)))
    rows = -(-len(entries) // columns)
    columns = -(-len(entries) // rows)
    figure.legend(entries.values(), entries.keys(), loc="outside upper left", ncols=columns, handlelength=3.2)
