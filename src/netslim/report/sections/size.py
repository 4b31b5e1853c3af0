"""The section about size: parameters, MACs, and which layers the channels were taken from."""

from __future__ import annotations

from netslim.experiment.records import FinishedJob, Layer
from netslim.report import figures, formats
from netslim.report.render.document import Picture, Section, Table, Text
from netslim.report.results import Group, MeanStd, mean_std

Kept = dict[tuple[float, float], list[MeanStd]]  # (ratio, λ) -> channels kept in every layer


def channels(group: Group) -> Section:
    layers = group.jobs[0].slim.layers
    jobs = {(ratio, s): found for ratio in group.ratios for s in group.lambdas if (found := group.at(s, ratio))}
    kept = {pair: _kept(found) for pair, found in jobs.items()}
    note = formats.seeds_note(map(len, jobs.values()))
    extremes = _extremes(layers, kept)
    source = (
        "In the paper: “Parameter and FLOP reductions” in section 4.4, table 1. One multiply-add is one MAC here; the "
        "paper’s FLOPs are two per MAC, so the ratios compare and the absolute values do not."
    )
    panels: dict[str, dict[float, list[float]]] = {}
    for (ratio, strength), values in kept.items():
        panels.setdefault(f"Prune ratio {formats.ratio(ratio)}", {})[strength] = [value.mean for value in values]
    picture = Picture(
        name=group.file("kept-channels"),
        png=figures.kept([layer.name for layer in layers], [layer.channels for layer in layers], panels),
        alt=f"Channels kept in each of {len(layers)} BatchNorm layers, a panel per ratio, a line per λ. {extremes}",
        caption=f"Channels that stay in each BatchNorm layer; the grey bars are the dense network. {note}",
    )
    text = f"Look for where one threshold for the whole network cuts deepest. {extremes}"
    return Section(
        "Parameters, MACs and Kept Channels per Layer",
        [Text(text), Text(source, quiet=True), _cost_table(jobs, note), picture, _layer_table(layers, kept)],
    )


def _kept(jobs: list[FinishedJob]) -> list[MeanStd]:
    columns = zip(*([layer.kept for layer in job.slim.layers] for job in jobs), strict=True)
    return [value for column in columns if (value := mean_std(column))]


def _extremes(layers: list[Layer], kept: Kept) -> str:
    """The layers that keep the smallest and the largest share at the largest ratio and λ."""
    ratio, strength = max(kept)
    share = [value.mean / layer.channels for value, layer in zip(kept[ratio, strength], layers, strict=True)]
    sentences = [
        f"{layers[place].name} keeps the {what} share, {100 * share[place]:.1f} % of {layers[place].channels}"
        for what, place in (("smallest", share.index(min(share))), ("largest", share.index(max(share))))
    ]
    return f"At {formats.ratio(ratio)} and {formats.label(strength)}, {formats.listing(sentences)}."


def _cost_table(jobs: dict[tuple[float, float], list[FinishedJob]], note: str) -> Table:
    slims = [job.slim for found in jobs.values() for job in found]
    dense = slims[0].dense
    uncounted = sorted({op for slim in slims for op in slim.uncounted})
    caption = (
        f"Dense: {formats.count(dense.params)} parameters and {formats.count(dense.macs)} MACs for one image. "
        f"Left: share of the dense network. {note}"
    )
    return Table(
        head=["ratio", "λ", "parameters", "left", "MACs", "left", "n"],
        rows=[
            [formats.ratio(ratio), formats.strength(strength), *_cost(found), str(len(found))]
            for (ratio, strength), found in jobs.items()
        ],
        align="llrrrrr",
        caption=caption + (f" Operations not counted: {formats.listing(uncounted)}." if uncounted else ""),
        grouped=True,
    )


def _cost(jobs: list[FinishedJob]) -> list[str]:
    """Parameters and MACs, each as mean count and as share of the dense network."""
    slims = [job.slim for job in jobs]
    return [
        formats.count(sum(slim.small.params for slim in slims) / len(slims)),
        f"{formats.percent(mean_std(slim.params_left for slim in slims))} %",
        formats.count(sum(slim.small.macs for slim in slims) / len(slims)),
        f"{formats.percent(mean_std(slim.macs_left for slim in slims))} %",
    ]


def _layer_table(layers: list[Layer], kept: Kept) -> Table:
    def cell(value: MeanStd) -> str:
        return f"{value.mean:.0f}" if value.std is None else f"{value.mean:.1f} ± {value.std:.1f}"

    return Table(
        head=["layer", "dense", *(f"{formats.ratio(ratio)}, {formats.label(s)}" for ratio, s in kept)],
        rows=[
            [layer.name, str(layer.channels), *(cell(values[i]) for values in kept.values())]
            for i, layer in enumerate(layers)
        ],
        align="lr" + "r" * len(kept),
        caption="",
        folded=f"Kept channels of all {len(layers)} layers as a table",
    )
