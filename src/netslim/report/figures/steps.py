"""Steps as boxes with arrows between them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from netslim.report.figures import canvas, palette


@canvas.drawn
def steps(boxes: Sequence[tuple[str, str]], *, width: float) -> Figure:
    """A box per (title, text), in a row, or in a column at a narrow width."""
    row = width >= canvas.NARROW
    columns, rows = (len(boxes), 1) if row else (1, len(boxes))
    figure = Figure(figsize=(width, 1.15 * rows))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, columns), ylim=(rows, 0))
    ax.axis("off")
    letters = int(width / columns * 72 / canvas.type_size(width) / 0.62 * 0.8)
    for place, (title, text) in enumerate(boxes):
        x, y = (place, 0) if row else (0, place)
        edge: Any = {"facecolor": palette.shade(0.15), "edgecolor": palette.QUIET, "linewidth": 0.8}
        ax.add_patch(FancyBboxPatch((x + 0.06, y + 0.1), 0.82, 0.8, boxstyle="round,pad=0,rounding_size=0.03", **edge))
        ax.text(x + 0.47, y + 0.3, title, ha="center", va="center", weight="bold")
        ax.text(x + 0.47, y + 0.62, "\n".join(textwrap.wrap(text, letters)), ha="center", va="center", fontsize="small")
        if place + 1 < len(boxes):
            start, end = ((x + 0.89, 0.5), (x + 1.05, 0.5)) if row else ((0.47, y + 0.91), (0.47, y + 1.09))
            ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": palette.QUIET})
    return figure
