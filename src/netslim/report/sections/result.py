"""The first screen: the result in words, as a table, and as accuracy over cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from netslim.experiment.records import FinishedJob
from netslim.report import formats, intervals
from netslim.report.controls import Control, controls, epochs_of
from netslim.report.figures import accuracy
from netslim.report.render.document import Block, Fold, Lines, Picture, Points, Section, Table, Text
from netslim.report.results import (
    STAGES,
    Group,
    MeanStd,
    by_stage,
    final,
    mean_std,
    reached,
    tests,
)
from netslim.report.sections import comparison, cost
from netslim.report.sections.verdict import Verdict

Row = tuple[Group, float, float, list[FinishedJob]]  # group, ratio, λ, its jobs
MANY = 24  # rows that are still read one by one
SENTENCES = 4  # groups up to which each has all its sentences; of more, each has its first


def summary(groups: Sequence[Group], unfinished: Sequence[str]) -> Section:
    """Sentences, main table, the picture that says all, every stage as a table, and the jobs that are missing."""
    table, picture = main_table(groups), cost.picture(groups)
    said, more = _sentences(groups)
    blocks: list[Block] = [Points([*_cut_short(groups), *said]), table, picture]
    if len(table.rows) > MANY:
        blocks[1:] = [picture, Fold(f"The {len(table.rows)} results as a table", [table])]
    if methods := comparison.table(groups):
        blocks.insert(1 + (picture is blocks[1]), methods)
    over: list[Block] = [_over_ratios(group) for group in groups if len(group.ratios) > 2]
    blocks += [Fold("Method by method", [Points(more), *over])] if more else over
    blocks.append(Fold("Every stage as a table", [every_stage(groups)]))
    if unfinished:
        many = "One job of the sweep has" if len(unfinished) == 1 else f"{len(unfinished)} jobs of the sweep have"
        forget = "To forget those that were a mistake, remove sweep.json."
        lines = Lines(list(unfinished))
        blocks.append(Text(f"{many} not finished yet. {forget} To run just one:"))
        blocks.append(Fold("Their commands", [lines]) if len(unfinished) > MANY else lines)
    return Section("Summary", blocks)


def _rows(groups: Sequence[Group]) -> list[Row]:
    return [
        (group, ratio, strength, jobs)
        for group in groups
        for ratio in group.ratios
        for strength in group.lambdas
        if (jobs := group.at(strength, ratio))
    ]


def _sentences(groups: Sequence[Group]) -> tuple[list[str], list[str]]:
    """What comes first; and what each of many groups has besides, where methods are compared."""
    found = [(group, Verdict(group).sentences()) for group in groups]
    if len(groups) > SENTENCES:
        found = [(group, sentences[:1]) for group, sentences in found]
    said = [f"{group.label}: {text}" if group.label else text for group, texts in found for text in texts]
    compared = comparison.sentences(groups)
    return (compared, said) if compared and len(groups) > 2 else ([*compared, *said], [])


def _cut_short(groups: Sequence[Group]) -> list[str]:
    """What says that these trainings were no whole ones."""
    limits = [job.train.limits for group in groups for job in group.jobs]
    found = formats.distinct(f"{key}={value}" for each in limits for key, value in each.items())
    if not found:
        return []
    which = "were" if all(limits) else "are in part"
    return [f"These trainings {which} cut short by {formats.listing(found)}: they show that everything runs, no more."]


def main_table(groups: Sequence[Group]) -> Table:
    """What a reader looks for: the result first, the rest in `every_stage`."""
    rows, compared = _rows(groups), controls(groups)
    last = {final(job)[0] for *_, jobs in rows for job in jobs}
    stage = last.pop() if len(last) == 1 else "at the end"
    table = Table(
        head=[stage, "95 %", "ratio", "λ", "parameters", "MACs", "epochs", "training"],
        rows=[_result(row) for row in rows],
        align="llllrrrr",
        caption=f"Test {_metrics(groups)} {stage}{_images(rows)}. Parameters and MACs: how many times fewer than in "
        f"the dense network. {formats.seeds_note(len(jobs) for *_, jobs in rows)}",
    )
    return _known(_with_controls(_with_label(table, rows, groups), compared, labelled=len(groups) > 1))


def _known(table: Table) -> Table:
    """The same with what its last column means, or without the column where nothing in it is known."""
    if any(row[-1] != formats.NONE for row in table.rows):
        means = " Training: multiply-adds of all epochs, three forward passes per image."
        return replace(table, caption=table.caption + means)
    return replace(table, head=table.head[:-1], rows=[row[:-1] for row in table.rows], align=table.align[:-1])


def _with_controls(table: Table, compared: Sequence[Control], labelled: bool) -> Table:
    """The same with a row for each control, which the first column names."""
    if not compared:
        return table
    rows = [["slimmed", *cells] for cells in table.rows]
    for control in compared:
        label = [control.group.label if control.group else "all"] if labelled else []
        rows.append([f"control: {control.words}", *label, *_control(control)])
    return replace(table, head=["network", *table.head], rows=rows, align="w" + table.align, grouped=True)


def _control(control: Control) -> list[str]:
    """The cells of ``_result``; λ and ratio where the control is that of one."""
    group, records = control.jobs[0][0], control.tests
    known = control.mean("train_macs")
    return [
        formats.unit(group.metric).cell(mean_std(record.test.score for record in records)),
        formats.interval(intervals.share([record.test for record in records])),
        formats.NONE if control.ratio is None else formats.ratio(control.ratio, group.of),
        formats.NONE if control.strength is None else formats.strength(control.strength),
        formats.times(control.dense.params, control.mean("params") or 0),
        formats.times(control.dense.macs, control.mean("macs") or 0),
        f"{sum(map(epochs_of, records)) / len(records):g}",
        formats.NONE if known is None else formats.short(known),
    ]


def _result(row: Row) -> list[str]:
    group, ratio, strength, jobs = row
    found = [final(job)[1] for job in jobs]
    slims = [job.cut for job in jobs]
    return [
        formats.unit(group.metric).cell(mean_std(test.score for test in found)),
        formats.interval(intervals.share(found)),
        formats.ratio(ratio, group.of),
        formats.strength(strength),
        formats.times(sum(s.dense.params for s in slims), sum(s.small.params for s in slims)),
        formats.times(sum(s.dense.macs for s in slims), sum(s.small.macs for s in slims)),
        *comparison.spent(jobs),
    ]


def _metrics(groups: Sequence[Group]) -> str:
    return formats.listing(
        formats.distinct(formats.unit(group.metric).axis.replace(", %", " in %") for group in groups)
    )


def _images(rows: Sequence[Row]) -> str:
    """On how many images, where the tests counted them."""
    totals = {test.total for *_, jobs in rows for job in jobs for test in tests(job).values() if test}
    known = sorted(total for total in totals if total)
    if not known:
        return ""
    return f" on {formats.listing([formats.count(total) for total in known])} images, with its Wilson interval"


def _with_label(table: Table, rows: Sequence[Row], groups: Sequence[Group]) -> Table:
    if len(groups) == 1:
        return table
    labelled = [[group.label, *cells] for (group, *_), cells in zip(rows, table.rows, strict=True)]
    return replace(table, head=["group", *table.head], rows=labelled, align="w" + table.align, grouped=True)


def every_stage(groups: Sequence[Group]) -> Table:
    rows = _rows(groups)
    stages = reached(job for *_, jobs in rows for job in jobs)
    table = Table(
        head=["ratio", "λ", "n", *stages, "parameters left", "MACs left", "removed"],
        rows=[_stages(row, stages) for row in rows],
        align="llr" + "r" * len(stages) + "rrr",
        caption=f"Test {_metrics(groups)}; a training is tested once, after its last epoch. Ratio: the share "
        "that was to be removed; removed: the share of the channels that was. Parameters and MACs left, in % of the "
        "dense network.",
        grouped=True,
    )
    return _with_label(table, rows, groups)


def _stages(row: Row, stages: Sequence[str]) -> list[str]:
    """n, the test at every stage, what is left and what was removed."""
    group, ratio, strength, jobs = row
    cells = [formats.ratio(ratio, group.of), formats.strength(strength), str(len(jobs))]
    for value in map(by_stage(jobs).get, stages):
        own = f" (n = {value.n})" if value and value.n != len(jobs) else ""
        cells.append(formats.unit(group.metric).cell(value) + own)
    cells.append(formats.percent(mean_std(job.cut.params_left for job in jobs), digits=1))
    cells.append(formats.percent(mean_std(job.cut.macs_left for job in jobs), digits=1))
    removed = [job.cut.removed / job.cut.prunable for job in jobs]
    same = len(set(removed)) == 1  # the rule: k follows from the ratio, not from the seed
    return [*cells, formats.percent(mean_std(removed[:1] if same else removed))]


def _over_ratios(group: Group) -> Picture:
    """The test result over the prune ratio, as in figure 5 of the paper."""
    panels: dict[str, dict[float, dict[float, MeanStd]]] = {}
    for strength in group.lambdas:
        cells = {ratio: by_stage(found) for ratio in group.ratios if (found := group.at(strength, ratio))}
        dense = next(iter(cells.values())).get("dense")
        for stage in STAGES[1:]:
            known = {ratio: value for ratio, stages in cells.items() if (value := stages.get(stage))}
            if known:
                panels.setdefault(stage, {})[strength] = {**({0.0: dense} if dense else {}), **known}
    unit, asked = formats.unit(group.metric), [formats.ratio(ratio, group.of) for ratio in group.ratios]
    return Picture(
        name=group.file("test-accuracy-over-ratios"),
        draw=partial(accuracy.ratios, panels, metric=f"test {unit.axis}", scale=unit.scale, of=group.of),
        alt=f"Test {unit.name} over prune ratios {formats.listing(asked)}: a panel for "
        f"{formats.listing(list(panels))}, a line per λ. The numbers are those of the table.",
        caption=f"Test {unit.name} over the prune ratio, from the dense network at 0, as in figure 5 of the paper.",
        data="results.csv",
    )
