"""|γ| over the epochs of a training: a heat map, epoch × logarithm of |γ|."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from netslim.method.scale_bins import BINS, bins_under
from netslim.report import formats
from netslim.report.figures import canvas, palette

COLUMNS = 48  # of a panel: of more epochs, neighbours share one
DECADES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
Map = tuple[Sequence[int], np.ndarray]  # epochs, and γ per bin, shape (epochs, bins)
Box = tuple[float, float, float]  # from an epoch to an epoch, in a bin


@canvas.drawn
def over_epochs(panels: Mapping[float, Map], *, width: float) -> Figure:
    """A panel per λ, all with the same shades: the deeper, the more γ (logarithm of the count)."""
    most, columns = max(float(counts.max()) for _, counts in panels.values()), min(3, len(panels))
    wide = width >= canvas.NARROW
    figure, axes = canvas.panels(len(panels), columns, width=width, height=1.9 if wide else 1.5, sharey=True)
    for ax, (strength, (epochs, counts)) in zip(axes, panels.items(), strict=True):
        for colour, boxes in _boxes(epochs, counts, most).items():
            _draw(ax, colour, boxes)
        ax.set(title=formats.label(strength), xlabel="epoch", xlim=(0.5, max(epochs) + 0.5), ylim=(0, BINS))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.grid(visible=False)
        ax.set_yticks([bins_under(bound) for bound in DECADES], [formats.strength(bound) for bound in DECADES])
    for ax in axes[:: columns if wide else 1]:
        ax.set_ylabel("|γ|")
    _key(axes[0], most)
    canvas.legend(figure, axes[:1])
    return figure


def _boxes(epochs: Sequence[int], counts: np.ndarray, most: float) -> dict[str, list[Box]]:
    """Boxes by their colour: neighbours of one shade are one box, cells without γ none."""
    together = -(-len(epochs) // COLUMNS)
    starts = range(0, len(epochs), together)
    means = np.stack([counts[start : start + together].mean(axis=0) for start in starts])
    edges = [*(epochs[start] - 0.5 for start in starts), epochs[-1] + 0.5]
    found: dict[str, list[Box]] = {}
    for place, row in enumerate(_shares(means, most).T):
        begin = 0
        for share, run in itertools.groupby(row.tolist()):
            end = begin + len(list(run))
            if share:
                found.setdefault(palette.shade(share), []).append((edges[begin], edges[end], place))
            begin = end
    return found


def _shares(counts: np.ndarray | float, most: float) -> np.ndarray:
    """How deep the shade of a count is, 0..1, rounded up to one of the palette's: a single γ can be seen."""
    steps = palette.SHADES - 1
    return np.ceil(steps * np.log1p(counts) / np.log1p(most)) / steps


def _draw(ax: Axes, colour: str, boxes: Sequence[Box]) -> None:
    """All boxes of a colour as one path; the thin edge closes the gaps between neighbours."""
    corners = [[(left, y), (right, y), (right, y + 1), (left, y + 1)] for left, right, y in boxes]
    path = Path.make_compound_path(*(Path(box, closed=False) for box in corners))
    patch = PathPatch(path, facecolor=colour, edgecolor=colour, linewidth=0.3)
    patch.set_in_layout(False)  # it is inside: the layout need not measure it
    ax.add_artist(patch)


def _key(ax: Axes, most: float) -> None:
    """What some of the shades mean, for the legend."""
    for number in (1, 10, 100, 1000):
        if number <= most:
            shade = palette.shade(float(_shares(number, most)))
            ax.fill([], [], label=f"{number} γ", facecolor=shade, edgecolor=palette.GRID)
