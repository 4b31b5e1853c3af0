"""What stands around the lab's sections: title and summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netslim.experiment.records import FinishedJob, SweepRecord
from netslim.report import formats
from netslim.report.render.document import Block, Document, Lines, Section, Table, Text
from netslim.report.results import Group, mean_std
from netslim.report.sections import lab, provenance, pruning
from netslim.report.sections.provenance import distinct

HEAD = ["dense", "after pruning", "recalibrated", "fine-tuned", "parameters left", "MACs left", "removed"]


def document(groups: Sequence[Group], *, sweep: SweepRecord | None, unfinished: Sequence[str]) -> Document:
    """The whole report of a sweep."""
    networks, data = distinct(group.network for group in groups), distinct(group.data for group in groups)
    title = f"Network Slimming: {formats.listing(networks)} on {formats.listing(data)}"
    sections = [summary(groups, unfinished)]
    for group in groups:
        sections += lab.sections(group)
    return Document(title, _lead(groups, len(unfinished)), [*sections, provenance.how_it_was_run(groups, sweep)])


def _lead(groups: Sequence[Group], missing: int) -> str:
    strengths = [formats.strength(value) for value in sorted({value for group in groups for value in group.lambdas})]
    ratios = [formats.ratio(value) for value in sorted({value for group in groups for value in group.ratios})]
    seeds = [str(value) for value in sorted({value for group in groups for value in group.seeds})]
    done = sum(len(group.jobs) for group in groups)
    tuned = any(job.finetune for group in groups for job in group.jobs)
    ran = f"Sparsity training at λ = {formats.listing(strengths)}, then pruning at {formats.listing(ratios)}"
    ran += ", then fine-tuning" if tuned else ", without fine-tuning"
    finished = (
        f"{done} of {done + missing} jobs finished"
        if missing
        else f"all {done} jobs finished"
        if done > 1
        else "one job"
    )
    return f"{ran}, with seed{'s' if len(seeds) > 1 else ''} {formats.listing(seeds)}: {finished}."


def summary(groups: Sequence[Group], unfinished: Sequence[str]) -> Section:
    """The main table, one row per group, ratio and λ, and the jobs that are missing from it."""
    cells = [
        (group.label, ratio, strength, jobs)
        for group in groups
        for ratio in group.ratios
        for strength in group.lambdas
        if (jobs := group.at(strength, ratio))
    ]
    table = Table(
        head=["ratio", "λ", "n", *HEAD],
        rows=[[formats.ratio(ratio), formats.strength(strength), *_cells(jobs)] for _, ratio, strength, jobs in cells],
        align="ll" + "r" * 8,
        caption="Test accuracy in %; a training is tested once, after its last epoch. Ratio: share of channels asked "
        "to go; removed: share that went. Parameters and MACs left, in % of the dense network. "
        + formats.seeds_note(len(jobs) for *_, jobs in cells),
        grouped=True,
    )
    if len(groups) > 1:
        rows = [[label, *row] for (label, *_), row in zip(cells, table.rows, strict=True)]
        table = replace(table, head=["part", *table.head], rows=rows, align="w" + table.align)
    blocks: list[Block] = [table]
    blocks += [pruning.over_ratios(group) for group in groups if len(group.ratios) > 2]
    if unfinished:
        many = "One job of the sweep has" if len(unfinished) == 1 else f"{len(unfinished)} jobs of the sweep have"
        forget = "To forget those that were a mistake, remove sweep.json."
        blocks += [Text(f"{many} not finished yet. {forget} To run just one:"), Lines(list(unfinished))]
    return Section("Summary", blocks)


def _cells(jobs: list[FinishedJob]) -> list[str]:
    """n, accuracy at every stage, what is left and what was removed."""
    cells = [str(len(jobs))]
    for value in pruning.by_stage(jobs).values():
        cells.append(formats.percent(value) + (f" (n = {value.n})" if value and value.n != len(jobs) else ""))
    cells.append(formats.percent(mean_std(job.slim.params_left for job in jobs), digits=1))
    cells.append(formats.percent(mean_std(job.slim.macs_left for job in jobs), digits=1))
    removed = [job.slim.removed / job.slim.prunable for job in jobs]
    same = len(set(removed)) == 1  # the rule: k follows from the ratio, not from the seed
    return [*cells, formats.percent(mean_std(removed[:1] if same else removed))]
