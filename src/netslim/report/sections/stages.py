"""Sections about pruning: the test from the dense to the fine-tuned network, one section per ratio."""

from __future__ import annotations

from functools import partial

from netslim.experiment.records import FinishedJob
from netslim.report import formats
from netslim.report.figures import accuracy
from netslim.report.render.document import Block, Fold, Lines, Picture, Points, Section, Table, Text
from netslim.report.results import RECOVERED, ByStage, Group, by_stage, reached, tests
from netslim.report.sections.comparison import collapses
from netslim.report.sections.training import title

MANY = 12  # test lines of more jobs are folded
AT_ONCE = (  # what to look for, and where it is in the paper
    "Look for how far the {name} falls when the channels are removed, and how much of it comes back. Recalibration "
    "re-estimates the means and variances of BatchNorm on training images; no weight changes.",
    "In the paper: “Channel Pruning and Fine-tuning” in section 3, table 1 and figure 5. Recalibration is not in the "
    "paper.",
)
MORE = {
    RECOVERED[0]: "Reconstruction fits each layer, by least squares on training images, to what it made in the dense "
    "network.",
    RECOVERED[1]: "Rescaling brings the γ of every layer to one size and changes nothing that the network computes; it "
    "is for the fine-tuning.",
}
GRADUALLY = (
    "The channels were removed during the training, a few at the end of each epoch, so there is one network and one "
    "test: that of the small network. Compare it with what one cut after a training keeps, at equal MACs.",
    "Not in the paper, which removes all channels after the training.",
)


def test_per_ratio(group: Group) -> list[Section]:
    return [_section(group, ratio) for ratio in group.ratios]


def _section(group: Group, ratio: float) -> Section:
    jobs = {strength: found for strength in group.lambdas if (found := group.at(strength, ratio))}
    values = {strength: by_stage(found) for strength, found in jobs.items()}
    unit = formats.unit(group.metric)
    every = [job for found in jobs.values() for job in found]
    text, source = AT_ONCE if any(job.slim for job in every) else GRADUALLY
    text = " ".join([text.format(name=unit.name), *(MORE[stage] for stage in reached(every) if stage in MORE)])
    said = " ".join(filter(None, [_changes(values, unit), _removed(every)]))
    blocks: list[Block] = [Text(text), Text(said), Text(source, quiet=True), _picture(group, ratio, values)]
    if why := collapses(group, ratio):
        blocks.insert(2, Points(why))
    if len(group.seeds) > 1:
        stages = reached(every)
        rows = [[formats.strength(s), *(unit.cell(cells.get(of)) for of in stages)] for s, cells in values.items()]
        caption = f"Test {unit.axis.replace(', %', ' in %')}."
        blocks.append(Table(["λ", *stages], rows, "l" + "r" * len(stages), caption))
    lines = Lines([line for job in every for line in _test_lines(job, several=len(group.seeds) > 1)])
    blocks.append(Fold(f"The test of all {len(every)} jobs", [lines]) if len(every) > MANY else lines)
    return Section(f"Test {title(group)} with Prune Ratio {formats.ratio(ratio, group.of)}", blocks)


def _picture(group: Group, ratio: float, values: dict[float, ByStage]) -> Picture:
    unit = formats.unit(group.metric)
    return Picture(
        name=group.file(f"test-accuracy-{'ratio' if group.of == 'channels' else group.of}-{100 * ratio:.8g}"),
        draw=partial(accuracy.stages, values, metric=f"test {unit.axis}", scale=unit.scale),
        alt=f"Test {unit.name} by stage, a dot per λ. {_changes(values, unit)}".strip(),
        caption=f"Test {unit.name} at each stage, prune ratio {formats.ratio(ratio, group.of)}. A training is tested "
        "once, after its last epoch.",
        data="results.csv",
    )


def _changes(values: dict[float, ByStage], unit: formats.Unit) -> str:
    """How far each λ is from its dense network right after pruning and at the end."""
    sentences = []
    for stage in ("after pruning", "after fine-tuning"):
        changes = [
            f"{unit.change(now.mean - dense.mean)} ({formats.label(strength)})"
            for strength, cells in values.items()
            if (dense := cells.get("dense")) and (now := cells.get(stage))
        ]
        if changes:
            sentences.append(f"{stage} {formats.few(changes)}")
    points = ", in points" if unit.percent else ""
    if not sentences:
        return ""
    return f"Change of the test {unit.name} against the dense network{points}: {'; '.join(sentences)}."


def _removed(jobs: list[FinishedJob]) -> str:
    pairs = sorted({(job.cut.removed, job.cut.prunable) for job in jobs})
    counts = [
        f"{formats.count(removed)} of {formats.count(prunable)} ({100 * removed / prunable:.2f} %)"
        for removed, prunable in pairs
    ]
    asked, of = formats.ratio(jobs[0].ratio), jobs[0].of.replace("channels", "prunable channels")
    channels = " channels" if jobs[0].target else ""
    return f"Asked to remove {asked} of the {of}, removed {formats.listing(counts)}{channels}."


def _test_lines(job: FinishedJob, *, several: bool) -> list[str]:
    """The lab's line for every stage of a job, under a line that names it."""
    lines = [formats.label(job.strength) + (f", seed {job.seed}" if several else "")]
    for stage, test in tests(job).items():
        lines.append(f"  {stage:<20} {formats.lab_line(test, job.train.metric) if test else 'not run'}")
    return lines
