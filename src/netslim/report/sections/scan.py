"""The section about the scan before the cut: what each ratio would cost, and which layers bear it least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from netslim.experiment.findings import ScanRecord
from netslim.report import formats
from netslim.report.figures import accuracy
from netslim.report.gammas import dead_share
from netslim.report.render.document import Block, Picture, Section, Table, Text
from netslim.report.results import Group, MeanStd, mean_std

Scans = Mapping[float, Sequence[ScanRecord]]  # λ -> its scans, one per seed
SENSITIVE = 12  # layers in the table


def before_the_cut(group: Group) -> list[Section]:
    scans = {strength: found for strength in group.lambdas if (found := _scans(group, strength))}
    if not scans:
        return []
    dead = formats.listing([f"{_dead(group, strength)} % ({formats.label(strength)})" for strength in scans])
    text = (
        "Validation accuracy of the slim network at each ratio, with re-estimated BatchNorm statistics and no "
        f"fine-tuning. The share of dead γ (at most 1 % of their layer's mean) is {dead}: a larger ratio removes "
        "live ones."
    )
    blocks: list[Block] = [Text(text), _picture(group, scans), _ratios(scans), _layers(scans)]
    return [Section("A Scan before the Cut", blocks)]


def _scans(group: Group, strength: float) -> list[ScanRecord]:
    found = [record for job in group.jobs if job.strength == strength for record in job.beside]
    return list({record.name: record for record in found if isinstance(record, ScanRecord)}.values())


def _dead(group: Group, strength: float) -> str:
    return formats.percent(mean_std(dead_share(record) for record in group.trained(strength)))


def _over_ratios(scans: Sequence[ScanRecord]) -> dict[float, MeanStd]:
    ratios = sorted({point.ratio for scan in scans for point in scan.points})
    found = {r: mean_std(p.accuracy for scan in scans for p in scan.points if p.ratio == r) for r in ratios}
    dense = mean_std(scan.accuracy for scan in scans)
    return {ratio: value for ratio, value in {0.0: dense, **found}.items() if value}


def _picture(group: Group, scans: Scans) -> Picture:
    lines = {strength: _over_ratios(found) for strength, found in scans.items()}
    return Picture(
        name=group.file("scan"),
        draw=partial(accuracy.ratios, {"before the cut": lines}, metric="validation accuracy, %", scale=100.0),
        alt="Validation accuracy over prune ratios, a line per λ. The numbers are those of the table.",
        caption="Validation accuracy over the prune ratio, from the dense network at 0.",
        data="report.md",
    )


def _ratios(scans: Scans) -> Table:
    lines = {strength: _over_ratios(found) for strength, found in scans.items()}
    ratios = sorted({ratio for line in lines.values() for ratio in line})
    unit = formats.Unit("accuracy")
    rows = [[formats.ratio(ratio), *(unit.cell(line.get(ratio)) for line in lines.values())] for ratio in ratios]
    head = ["ratio", *(formats.label(strength) for strength in lines)]
    return Table(head, rows, "l" + "r" * len(lines), "Validation accuracy in %, statistics re-estimated.")


def _layers(scans: Scans) -> Table:
    """The layers that bear it least, at the smallest λ first."""
    every = {strength: _mean_of_layers(found) for strength, found in scans.items()}
    first = next(iter(every.values()))
    names = sorted(first, key=lambda name: first[name])[:SENSITIVE]
    rows = [[name, *(formats.Unit("accuracy").number(found[name]) for found in every.values())] for name in names]
    head = ["layer", *(formats.label(strength) for strength in every)]
    caption = "Validation accuracy in % without the weaker half of one layer's channels; the most sensitive layers."
    return Table(head, rows, "l" + "r" * len(every), caption)


def _mean_of_layers(scans: Sequence[ScanRecord]) -> dict[str, float]:
    return {name: sum(scan.layers[name] for scan in scans) / len(scans) for name in scans[0].layers}
