"""Methods beside each other, in sentences and as a table: the best of each at every ratio, with its controls; and why
a cut collapsed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netslim.experiment.measurements import Size
from netslim.experiment.records import FinishedJob
from netslim.report import formats, intervals
from netslim.report.controls import is_small
from netslim.report.render.document import Table
from netslim.report.results import Group, MeanStd, mean_std
from netslim.report.sections.verdict import Cut, dead_share, mean, score

MANY = 4  # ratios up to which each has its sentence; of more, the largest have
FEW = 3  # methods that a sentence names
Best = list[tuple[Group, Cut]]  # a cut of each of several methods; at one ratio its best one, the best method first


def sentences(groups: Sequence[Group]) -> list[str]:
    """What several methods reach at every ratio, over all ratios, and why those fail that do; none of one method."""
    compared = methods(groups)
    return [*compared, *_overall(_by_ratio(groups)), *_collapsed(groups)] if compared else []


def methods(groups: Sequence[Group]) -> list[str]:
    """One sentence per ratio that several methods were asked for, the best method first."""
    return [_at(best) for best in list(_by_ratio(groups).values())[-MANY:]]


def _by_ratio(groups: Sequence[Group]) -> dict[float, Best]:
    """The ratios that several methods were asked for; none where other things differ too."""
    if len({group.jobs[0].method for group in groups}) < 2 or len({(g.network, g.data, g.of) for g in groups}) > 1:
        return {}
    sign = 1 if groups[0].metric.direction == "max" else -1
    found: dict[float, Best] = {}
    for ratio in sorted({ratio for group in groups for ratio in group.ratios if ratio > 0}):
        best = [(group, cut) for group in groups if (cut := _best(group, ratio))]
        if len(best) > 1:
            found[ratio] = sorted(best, key=lambda pair: -sign * score(pair[1].final))
    return found


def _at(best: Best) -> str:
    (group, first), *_ = best
    alone = len({strength for group, _ in best for strength in group.lambdas}) == 1
    words = [_words(*pair, alone=alone) for pair in best]
    which = "the best of each method" if len(best) <= FEW else f"the best {FEW} of {len(best)} methods"
    rest = f"; the last, {words[-1]}" if len(best) > FEW else ""
    said = f"At {formats.ratio(first.ratio, group.of)}, {which}: {formats.listing(words[:FEW])}{rest}."
    return said + _as_good(best) + _control(group, first)


def _words(group: Group, cut: Cut, *, alone: bool) -> str:
    """alone: all have the same λ."""
    left = f"{100 * mean([job.cut.macs_left for job in cut.jobs]):.3g} % of the MACs"
    shown = formats.unit(group.metric).cell(mean_std(test.score for test in cut.final))
    shown += " %" if formats.unit(group.metric).percent else ""
    return f"{group.label} {shown} ({left if alone else f'{formats.label(cut.strength)}, {left}'})"


def _as_good(best: Best) -> str:
    """Which methods the test images cannot tell from the first."""
    first = intervals.share(best[0][1].final)
    others = [(group.label, intervals.share(cut.final)) for group, cut in best[1:]]
    same = [label for label, other in others if first and other and not intervals.distinct(first, other)]
    if not first or not same:
        return ""
    images = formats.count(first.total)
    those = "all others" if len(same) == len(others) > 1 else formats.listing(same)
    return f" No difference to the first that {images} test images can show: {those}."


def _control(group: Group, cut: Cut) -> str:
    """What uniform widths of the size of the best network reach, where that was a control."""
    kinds = [words for words in _kinds([cut]) if words.startswith("uniform")]
    if not kinds:
        return ""
    words = max(kinds, key=len)  # of equal MACs, where there is that one
    unit = formats.unit(group.metric)
    sign = " %" if unit.percent else ""
    return f" As a control of the first, {words}: {unit.cell(_of_control(cut, words))}{sign}."


def _kinds(cuts: Iterable[Cut]) -> list[str]:
    """The controls of the size of the slim network."""
    records = (record for cut in cuts for job in cut.jobs for record in job.controls)
    return formats.distinct(record.control for record in records if is_small(record))


def _of_control(cut: Cut, words: str) -> MeanStd | None:
    return mean_std(record.test.score for job in cut.jobs for record in job.controls if record.control == words)


def _overall(best: dict[float, Best]) -> list[str]:
    """The mean over the ratios, where every method has all of them."""
    scores: dict[str, list[float]] = {}
    for found in best.values():
        for group, cut in found:
            scores.setdefault(group.label, []).append(score(cut.final))
    whole = {label: mean(values) for label, values in scores.items() if len(values) == len(best)}
    if len(best) < 2 or len(whole) < len(scores):
        return []
    group = next(iter(best.values()))[0][0]
    sign = 1 if group.metric.direction == "max" else -1
    order = sorted(whole, key=lambda label: -sign * whole[label])
    words = [f"{label} {formats.unit(group.metric).text(whole[label])}" for label in order]
    return [f"The mean over the {len(best)} ratios: {formats.listing(words)}."]


def _collapsed(groups: Sequence[Group]) -> list[str]:
    """Of every method, the smallest ratio at which even its best is no better than guessing right after the cut."""
    found: dict[str, Best] = {}  # by why they do
    for group in groups:
        cuts = [cut for ratio in group.ratios if (cut := _best(group, ratio)) and _guesses(cut)]
        for cut in cuts[:1]:
            why = f"at {formats.ratio(cut.ratio, group.of)}: {_collapse(group, cut)}"
            found.setdefault(why, []).append((group, cut))
    return [
        f"{formats.listing([group.label for group, _ in those])} {why} At the end: {formats.listing(_ends(those))}."
        for why, those in found.items()
    ]


def _ends(those: Best) -> list[str]:
    return [f"{formats.unit(group.metric).text(score(cut.final))} ({group.label})" for group, cut in those]


def table(groups: Sequence[Group]) -> Table | None:
    """A row per ratio and method, the best first, its controls beside it; None where there are no several methods."""
    best = _by_ratio(groups)
    if not best:
        return None
    cuts = [(group, cut) for found in best.values() for group, cut in found]
    kinds, alone = _kinds(cut for _, cut in cuts), len({cut.strength for _, cut in cuts}) == 1
    unit = formats.unit(groups[0].metric)
    compared = "; on the right controls of its size, trained to compare with" if kinds else ""
    return Table(
        head=["ratio", "method", "at the end", "MACs", "epochs", "training", *kinds],
        rows=[_row(group, cut, kinds, alone=alone) for group, cut in cuts],
        align=("ll" if alone else "lw") + "r" * (len(kinds) + 4),
        caption=f"Test {unit.axis.replace(', %', ' in %')}, the best method first{compared}. {_dense(groups)}MACs: how "
        "many times fewer than in the dense network. Training: multiply-adds of all epochs. "
        f"{formats.seeds_note(len(cut.jobs) for _, cut in cuts)}",
        grouped=True,
    )


def _row(group: Group, cut: Cut, kinds: Sequence[str], *, alone: bool) -> list[str]:
    """alone: all have the same λ."""
    unit = formats.unit(group.metric)
    return [
        formats.ratio(cut.ratio, group.of),
        group.label + ("" if alone else f", {formats.label(cut.strength)}"),
        unit.cell(mean_std(test.score for test in cut.final)),
        formats.times(*(sum(size.macs for size in sizes) for sizes in _sizes(cut))),
        *spent(cut.jobs),
        *(unit.cell(_of_control(cut, words)) for words in kinds),
    ]


def _sizes(cut: Cut) -> tuple[list[Size], list[Size]]:
    return [job.cut.dense for job in cut.jobs], [job.cut.small for job in cut.jobs]


def _dense(groups: Sequence[Group]) -> str:
    """The control that is as large as the dense network."""
    records = {record.name: record for group in groups for job in group.jobs for record in job.controls}
    large = [record for record in records.values() if not is_small(record)]
    shown = formats.unit(groups[0].metric).cell(mean_std(record.test.score for record in large))
    return f"The {large[0].control}, trained for as many epochs: {shown}. " if large else ""


def spent(jobs: Sequence[FinishedJob]) -> list[str]:
    """Epochs, and multiply-adds of the trainings: of one job, the mean over the seeds."""
    known = [job.train_macs for job in jobs if job.train_macs is not None]
    epochs = sum(job.epochs_total for job in jobs) / len(jobs)
    return [f"{epochs:g}", formats.short(sum(known) / len(known)) if known else formats.NONE]


def _best(group: Group, ratio: float) -> Cut | None:
    sign = 1 if group.metric.direction == "max" else -1
    return max(_cuts(group, ratio), key=lambda cut: sign * score(cut.final), default=None)


def _cuts(group: Group, ratio: float) -> Iterable[Cut]:
    return [Cut(ratio, s, jobs) for s in group.lambdas if (jobs := group.at(s, ratio))]


def collapses(group: Group, ratio: float) -> list[str]:
    """For each λ whose network is no better than guessing right after the cut: what was cut, and how it ends."""
    shown = formats.unit(group.metric).text
    cuts = (cut for cut in _cuts(group, ratio) if _guesses(cut))
    return [f"{_collapse(group, cut)} At the end it has {shown(score(cut.final))}." for cut in cuts]


def _guesses(cut: Cut) -> bool:
    classes, found = cut.jobs[0].train.classes, intervals.share(cut.tests("after pruning"))
    return classes is not None and found is not None and intervals.wilson(found)[0] <= 1 / classes


def _collapse(group: Group, cut: Cut) -> str:
    unit, layer = formats.unit(group.metric), cut.narrowest
    return (
        f"{formats.label(cut.strength)} collapses to {unit.text(score(cut.tests('after pruning')))} when the channels "
        f"are removed, no better than guessing: {dead_share(cut)}; the narrowest layer, {layer.name}, keeps "
        f"{layer.kept} of {layer.channels} channels."
    )
