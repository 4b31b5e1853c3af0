"""The section about size: parameters, MACs, and which layers the channels were taken from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from netslim.experiment.measurements import Timed
from netslim.experiment.records import FinishedJob, Layer
from netslim.report import formats
from netslim.report.figures import channels as figure
from netslim.report.render.document import Block, Fold, Lines, Picture, Section, Table, Text
from netslim.report.results import Group, mean_std

Kept = dict[tuple[float, float], list[float]]  # (ratio, λ) -> channels kept in every layer, the mean over seeds


def channels(group: Group) -> list[Section]:
    layers = group.jobs[0].cut.layers
    jobs = {(ratio, s): found for ratio in group.ratios for s in group.lambdas if (found := group.at(s, ratio))}
    kept = {pair: _kept(found) for pair, found in jobs.items()}
    extremes = _extremes(layers, kept, group.of)
    source = (
        "In the paper: “Parameter and FLOP reductions” in section 4.4, table 1. One multiply-add is one MAC here; the "
        "paper’s FLOPs are two per MAC, so the ratios compare and the absolute values do not."
    )
    panels: dict[float, dict[float, list[float]]] = {}
    for (ratio, strength), values in kept.items():
        panels.setdefault(ratio, {})[strength] = values
    picture = Picture(
        name=group.file("kept-channels"),
        draw=partial(
            figure.kept, [layer.name for layer in layers], [layer.channels for layer in layers], panels, of=group.of
        ),
        alt=f"Channels kept in each of {len(layers)} BatchNorm layers, a panel per ratio, a column per λ. {extremes}",
        caption="Channels that are kept in each BatchNorm layer; the darker, the larger the share of the layer.",
        data="results.csv",
    )
    text = f"Look for where one threshold for the whole network cuts deepest. {extremes}{_floors(group)}"
    blocks: list[Block] = [
        Text(text),
        Text(source, quiet=True),
        _cost_table(jobs),
        *_latency_table(jobs),
        picture,
        _widths(layers, kept, group.of),
    ]
    return [Section("Parameters, MACs and Kept Channels per Layer", blocks)]


def _floors(group: Group) -> str:
    """The layers that would have lost more at the largest ratio."""
    slims = [job.slim for job in group.jobs if job.ratio == group.ratios[-1]]
    names = formats.distinct(name for slim in slims if slim for name in slim.at_floor)
    return f" At their floor there end {formats.few(names)}." if names else ""


def _kept(jobs: Sequence[FinishedJob]) -> list[float]:
    columns = zip(*([layer.kept for layer in job.cut.layers] for job in jobs), strict=True)
    return [sum(column) / len(column) for column in columns]


def _extremes(layers: Sequence[Layer], kept: Kept, of: str) -> str:
    """The layers that keep the smallest and the largest share at the largest ratio and λ."""
    ratio, strength = max(kept)
    share = [value / layer.channels for value, layer in zip(kept[ratio, strength], layers, strict=True)]
    sentences = [
        f"{layers[place].name} keeps the {what} share, {100 * share[place]:.1f} % of {layers[place].channels}"
        for what, place in (("smallest", share.index(min(share))), ("largest", share.index(max(share))))
    ]
    return f"At {formats.ratio(ratio, of)} and {formats.label(strength)}, {formats.listing(sentences)}."


def _widths(layers: Sequence[Layer], kept: Kept, of: str) -> Fold:
    """The widths before and after as text: 16-16-32-32 -> 9-11-18-18."""
    dense = "-".join(str(layer.channels) for layer in layers)
    lines = [
        f"{formats.ratio(ratio, of)}, {formats.label(strength)}: {dense} -> {'-'.join(f'{n:.0f}' for n in values)}"
        for (ratio, strength), values in kept.items()
    ]
    return Fold(f"Widths of the {len(layers)} layers as text, dense -> kept", [Lines(lines)])


def _cost_table(jobs: dict[tuple[float, float], list[FinishedJob]]) -> Table:
    slims = [job.cut for found in jobs.values() for job in found]
    dense = slims[0].dense
    uncounted = sorted({op for slim in slims for op in slim.uncounted})
    caption = (
        f"Dense: {formats.count(dense.params)} parameters and {formats.count(dense.macs)} MACs for one image. "
        "Left: share of the dense network."
    )
    return Table(
        head=["ratio", "λ", "parameters", "left", "MACs", "left"],
        rows=[
            [formats.ratio(ratio, found[0].of), formats.strength(s), *_cost(found)]
            for (ratio, s), found in jobs.items()
        ],
        align="llrrrr",
        caption=caption + (f" Operations not counted: {formats.listing(uncounted)}." if uncounted else ""),
        grouped=True,
    )


def _latency_table(jobs: dict[tuple[float, float], list[FinishedJob]]) -> list[Table]:
    """What was predicted and what the networks take, where a latency was asked for."""
    timed = {pair: [job.slim.latency for job in found if job.slim and job.slim.latency] for pair, found in jobs.items()}
    known = [each for found in timed.values() for each in found]
    if not known:
        return []
    where = formats.listing(formats.distinct(f"{each.runtime} on {each.threads} threads" for each in known))
    batches = formats.listing(formats.distinct(str(each.batch) for each in known))
    caption = (
        f"Milliseconds of a forward pass, batch of {batches}, in {where}. Predicted: from layers that were measured "
        "alone, before the cut; measured: of the whole networks, the fastest run."
    )
    rows = [
        [formats.ratio(ratio, jobs[ratio, s][0].of), formats.strength(s), *_milliseconds(found)]
        for (ratio, s), found in timed.items()
        if found
    ]
    return [Table(["ratio", "λ", "dense", "slim, predicted", "slim, measured", "times"], rows, "llrrrr", caption)]


def _milliseconds(found: Sequence[Timed]) -> list[str]:
    """The dense network measured, the slim one predicted and measured, and how many times as fast it is."""
    each = zip(*((t.measured["dense"], t.predicted["slim"], t.measured["slim"]) for t in found), strict=True)
    dense, predicted, slim = (sum(times) / len(times) for times in each)
    return [*(f"{time:.3g}" for time in (dense, predicted, slim)), f"{dense / slim:.2f}"]


def _cost(jobs: Sequence[FinishedJob]) -> list[str]:
    """Parameters and MACs, each as mean count and as share of the dense network."""
    slims = [job.cut for job in jobs]
    return [
        formats.count(sum(slim.small.params for slim in slims) / len(slims)),
        f"{formats.percent(mean_std(slim.params_left for slim in slims))} %",
        formats.count(sum(slim.small.macs for slim in slims) / len(slims)),
        f"{formats.percent(mean_std(slim.macs_left for slim in slims))} %",
    ]
