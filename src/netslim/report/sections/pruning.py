"""Sections about pruning: test accuracy from the dense to the fine-tuned network, and fine-tuning over the epochs."""

from __future__ import annotations

from collections.abc import Sequence

from netslim.experiment.records import FinishedJob
from netslim.report import figures, formats
from netslim.report.render.document import Block, Lines, Picture, Section, Table, Text
from netslim.report.results import STAGES, Group, MeanStd, curve, curve_metric, mean_std, tests
from netslim.report.sections.training import METRIC

ByStage = dict[str, MeanStd | None]


def by_stage(jobs: Sequence[FinishedJob]) -> ByStage:
    """Test accuracy at each stage, over the seeds."""
    found = [tests(job) for job in jobs]
    return {stage: mean_std(test.score for of in found if (test := of[stage])) for stage in STAGES}


def over_ratios(group: Group) -> Picture:
    """Test accuracy over the prune ratio, as in figure 5 of the paper."""
    values = {
        strength: {ratio: by_stage(found) for ratio in group.ratios if (found := group.at(strength, ratio))}
        for strength in group.lambdas
    }
    panels: dict[str, dict[float, dict[float, MeanStd]]] = {}
    for stage in STAGES[1:]:
        for strength, cells in values.items():
            known = {ratio: value for ratio, stages in cells.items() if (value := stages[stage])}
            dense = next(iter(cells.values()))["dense"]
            if known and dense:
                panels.setdefault(stage, {})[strength] = {0.0: dense, **known}
    note = formats.seeds_note(len(group.at(strength, ratio)) for strength, cells in values.items() for ratio in cells)
    return Picture(
        name=group.file("test-accuracy-over-ratios"),
        png=figures.ratios(panels),
        alt=f"Test accuracy over prune ratios {formats.listing([formats.ratio(r) for r in group.ratios])}: a panel for "
        f"{formats.listing(list(panels))}, a line per λ. The numbers are those of the table above.",
        caption=f"Test accuracy over the prune ratio, from the dense network at 0, as in figure 5 of the paper. {note}",
    )


def test_accuracy(group: Group, ratio: float) -> Section:
    jobs = {strength: found for strength in group.lambdas if (found := group.at(strength, ratio))}
    values = {strength: by_stage(found) for strength, found in jobs.items()}
    note = formats.seeds_note(map(len, jobs.values()))
    text = (
        "Look for how far the accuracy falls when the channels go, and how much of it comes back. "
        "Recalibration re-estimates the means and variances of BatchNorm on training images; no weight changes."
    )
    source = (
        "In the paper: “Channel Pruning and Fine-tuning” in section 3, table 1 and figure 5. "
        "Recalibration is not in the paper."
    )
    picture = Picture(
        name=group.file(f"test-accuracy-ratio-{100 * ratio:.8g}"),
        png=figures.stages(values),
        alt=f"Test accuracy by stage, one line per λ. {_changes(values)}",
        caption=f"Test accuracy at each stage, prune ratio {formats.ratio(ratio)}. A training is tested "
        f"once, after its last epoch. {note}",
    )
    several = len(group.seeds) > 1
    lines = [line for found in jobs.values() for job in found for line in _test_lines(job, several=several)]
    removed = _removed([job for found in jobs.values() for job in found])
    blocks: list[Block] = [Text(text), Text(f"{_changes(values)} {removed}"), Text(source, quiet=True), picture]
    if several:
        rows = [
            [formats.strength(strength), *map(formats.percent, cells.values()), str(len(jobs[strength]))]
            for strength, cells in values.items()
        ]
        blocks.append(Table(["λ", *STAGES, "n"], rows, "lrrrrr", f"Test accuracy in %. {note}"))
    blocks.append(Lines(lines))
    return Section(f"Test Accuracy with Prune Ratio {formats.ratio(ratio)}", blocks)


def _changes(values: dict[float, ByStage]) -> str:
    """How far each λ is from its dense network right after pruning and at the end, in points."""
    sentences = []
    for stage in ("after pruning", "after fine-tuning"):
        changes = [
            f"{formats.points(now.mean - dense.mean)} ({formats.label(strength)})"
            for strength, cells in values.items()
            if (dense := cells["dense"]) and (now := cells[stage])
        ]
        if changes:
            sentences.append(f"{stage} {formats.listing(changes)}")
    return f"Change of the test accuracy against the dense network, in points: {'; '.join(sentences)}."


def _removed(jobs: list[FinishedJob]) -> str:
    pairs = sorted({(job.slim.removed, job.slim.prunable) for job in jobs})
    counts = [
        f"{formats.count(removed)} of {formats.count(prunable)} ({100 * removed / prunable:.2f} %)"
        for removed, prunable in pairs
    ]
    asked = formats.ratio(jobs[0].ratio)
    return f"Asked to remove {asked} of the prunable channels, removed {formats.listing(counts)}."


def _test_lines(job: FinishedJob, *, several: bool) -> list[str]:
    """The lab's line for every stage of a job, under a line that names it."""
    lines = [formats.label(job.strength) + (f", seed {job.seed}" if several else "")]
    for stage, test in tests(job).items():
        lines.append(f"  {stage:<20} {formats.test_line(test) if test else 'not run'}")
    return lines


def fine_tuning(group: Group) -> Section:
    title = "Fine Tuning Accuracy over Epochs"
    tuned = {
        ratio: {strength: found for strength in group.lambdas if (found := group.finetunings(strength, ratio))}
        for ratio in group.ratios
    }
    records = [record for lines in tuned.values() for found in lines.values() for record in found]
    if not records:
        return Section(title, [Text("Left out: this sweep was run without fine-tuning.")])
    metric = curve_metric(records)
    name, how = METRIC[metric]
    panels = {
        f"Prune ratio {formats.ratio(ratio)}": {strength: curve(found, metric) for strength, found in lines.items()}
        for ratio, lines in tuned.items()
        if lines
    }
    ends = {
        panel: formats.by_lambda({strength: values[-1] for strength, (_, values) in lines.items() if values})
        for panel, lines in panels.items()
    }
    last = "; ".join(f"{panel.lower()}: {said}" for panel, said in ends.items())
    text = (
        "Look for where each curve levels off: a narrow network that ends on the height of the wide one has lost "
        f"nothing that this measure sees. The {name} at the last epoch, {last}."
    )
    source = (
        "In the paper: “Fine-tuning” in section 4.3. The penalty is off: λ names the training the network came from."
    )
    picture = Picture(
        name=group.file("fine-tuning-accuracy"),
        png=figures.curves(panels, ylabel=f"{name}, %"),
        alt=f"Line charts of {name} over the epochs of fine-tuning, one line per λ. At the last epoch: {last}.",
        caption=f"{how} {formats.seeds_note(len(found) for lines in tuned.values() for found in lines.values())}",
    )
    return Section(title, [Text(text), Text(source, quiet=True), picture])
