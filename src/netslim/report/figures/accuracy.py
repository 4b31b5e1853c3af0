"""What a network can do: at each stage, over the prune ratios, and against what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from netslim.report import formats
from netslim.report.figures import canvas, palette
from netslim.report.results import MeanStd

SIZES = {"params": "parameters", "macs": "MACs for one input"}
FEW = 12  # λ up to which every point has its value beside it


@canvas.drawn
def stages(values: Mapping[float, Mapping[str, MeanStd | None]], *, metric: str, scale: float, width: float) -> Figure:
    """A dot per λ and stage: up to FEW λ a row for each with its value, else a panel per stage over λ."""
    return (_rows if len(values) <= FEW else _over_strengths)(values, metric, scale, width)


def _rows(values: Mapping[float, Mapping[str, MeanStd | None]], metric: str, scale: float, width: float) -> Figure:
    names = list(next(iter(values.values())))
    height = 0.2 * (len(values) + 0.8) * len(names) + 0.5
    figure, (ax,) = canvas.panels(1, 1, width=width, height=height)
    for index, (strength, cells) in enumerate(values.items()):
        look = palette.series(index, len(values)) | {"linestyle": "none", "markersize": 6}
        known = {place: value for place, stage in enumerate(names) if (value := cells[stage])}
        ys = [place * (len(values) + 0.8) + index for place in known]
        xs = [scale * value.mean for value in known.values()]
        errors = [scale * (value.std or 0.0) for value in known.values()]
        ax.errorbar(xs, ys, xerr=errors if any(errors) else None, label=formats.label(strength), **look)
        for x, y, error in zip(xs, ys, errors, strict=True):
            ax.annotate(f"{x:.2f}", (x + error, y), (7, 0), textcoords="offset points", va="center", fontsize="small")
    middles = [place * (len(values) + 0.8) + (len(values) - 1) / 2 for place in range(len(names))]
    ax.set_yticks(middles, names, color=palette.INK)
    ax.set(ylim=(middles[-1] + len(values) / 2 + 0.3, -0.8), xlabel=metric)
    ax.margins(x=0.15)
    ax.grid(visible=False, axis="y")
    canvas.legend(figure, [ax])
    return figure


def _over_strengths(
    values: Mapping[float, Mapping[str, MeanStd | None]], metric: str, scale: float, width: float
) -> Figure:
    figure, (ax,) = canvas.panels(1, 1, width=width, height=3.0)
    strengths, stages = list(values), list(next(iter(values.values())))
    for index, stage in enumerate(stages):
        known = {place: cells[stage] for place, cells in enumerate(values.values()) if cells[stage]}
        look = palette.series(index, len(stages)) | {"linestyle": "none"}
        canvas.points(ax, known, scale, label=stage, **look)  # type: ignore[arg-type]
    shown = range(0, len(strengths), -(-len(strengths) // int(width)))
    ax.set_xticks(list(shown), [formats.strength(strengths[place]) for place in shown])
    ax.set(xlabel="λ, each value one place", ylabel=metric)
    canvas.legend(figure, [ax])
    return figure


@canvas.drawn
def ratios(
    panels: Mapping[str, Mapping[float, Mapping[float, MeanStd]]],
    *,
    metric: str,
    scale: float,
    of: str = "channels",
    width: float,
) -> Figure:
    """The test result over the prune ratio, 0 being the dense network: a panel per stage, a line per λ.

    of: what the ratios are shares of.
    """
    strengths = sorted({strength for lines in panels.values() for strength in lines})
    columns = min(len(panels), 3)
    figure, axes = canvas.panels(len(panels), columns, width=width, height=2.9)
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        for strength, values in lines.items():
            look = palette.series(strengths.index(strength), len(strengths))
            known = {100 * ratio: value for ratio, value in values.items()}
            canvas.points(ax, known, scale, label=formats.label(strength), **look)
        ax.set(title=title, xlabel=f"{of} removed, %")
    for ax in axes[::columns]:
        ax.set_ylabel(metric)
    canvas.legend(figure, axes)
    return figure


@dataclass(frozen=True)
class Point:
    """What a network costs and what it can do; whether it is the dense one."""

    params: float
    macs: float
    result: MeanStd
    dense: bool = False


@dataclass(frozen=True)
class Path:
    """The networks of one λ, from the dense one, where there is one, to the smallest; or those of one control.

    joined: whether a line joins them.
    """

    label: str
    points: Sequence[Point]
    control: bool = False
    joined: bool = True


@canvas.drawn
def cost(paths: Sequence[Path], *, metric: str, scale: float, sizes: Mapping[str, str] = SIZES, width: float) -> Figure:
    """The test result over parameters and over MACs, on logarithmic axes; a ring marks each dense network.

    sizes: the sizes of a `Point` that have a panel, with the words for them.
    """
    figure, axes = canvas.panels(len(sizes), len(sizes), width=width, height=3.1, sharey=True)
    methods = sum(not path.control for path in paths)  # they come first
    for ax, (size, name) in zip(axes, sizes.items(), strict=True):
        for index, path in enumerate(paths):
            look = palette.control(index - methods) if path.control else palette.series(index, methods)
            known = {getattr(point, size): point.result for point in path.points if getattr(point, size) > 0}
            look |= {} if path.joined else {"linestyle": "none"}
            canvas.points(ax, known, scale, label=path.label, **look)
            for point in path.points[: path.points[0].dense]:
                _ring(ax, getattr(point, size), scale * point.result.mean)
        _log(ax, name)
    for ax in axes if width < canvas.NARROW else axes[:1]:
        ax.set_ylabel(metric)
    canvas.legend(figure, axes, always=[path.label for path in paths if path.control])
    return figure


def _ring(ax: Axes, x: float, y: float) -> None:
    look = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "color": palette.INK, "linestyle": "none"}
    ax.plot([x], [y], label="before the cut", **look)  # type: ignore[arg-type]


def _log(ax: Axes, name: str) -> None:
    ax.set_xscale("log")
    ax.set_xlabel(f"{name} (log)")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: formats.short(value)))
    ax.minorticks_off()
