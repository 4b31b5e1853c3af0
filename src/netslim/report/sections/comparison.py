"""Sentences that put methods beside each other: the best of each at every ratio; and why a cut collapsed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netslim.report import formats, intervals
from netslim.report.results import Group
from netslim.report.sections.verdict import Cut, dead_share, mean, score

MANY = 4  # ratios up to which each has its sentence; of more, the largest have


def methods(groups: Sequence[Group]) -> list[str]:
    """One sentence per ratio that several methods were asked for, the best method first."""
    if len({group.jobs[0].method for group in groups}) < 2 or len({(g.network, g.data, g.of) for g in groups}) > 1:
        return []
    ratios = sorted({ratio for group in groups for ratio in group.ratios if ratio > 0})[-MANY:]
    return [said for ratio in ratios if (said := _at(ratio, groups))]


def _at(ratio: float, groups: Sequence[Group]) -> str:
    best = [(group, cut) for group in groups if (cut := _best(group, ratio))]
    if len(best) < 2:
        return ""
    sign = 1 if groups[0].metric.direction == "max" else -1
    best.sort(key=lambda pair: -sign * score(pair[1].final))
    words = [_words(group, cut) for group, cut in best]
    return f"At {formats.ratio(ratio, groups[0].of)}, the best of each method: {formats.listing(words)}."


def _words(group: Group, cut: Cut) -> str:
    left = 100 * mean([job.cut.macs_left for job in cut.jobs])
    shown = formats.unit(group.metric).text(score(cut.final))
    return f"{group.label} {shown} ({formats.label(cut.strength)}, {left:.3g} % of the MACs)"


def _best(group: Group, ratio: float) -> Cut | None:
    sign = 1 if group.metric.direction == "max" else -1
    return max(_cuts(group, ratio), key=lambda cut: sign * score(cut.final), default=None)


def _cuts(group: Group, ratio: float) -> Iterable[Cut]:
    return [Cut(ratio, s, jobs) for s in group.lambdas if (jobs := group.at(s, ratio))]


def collapses(group: Group, ratio: float) -> list[str]:
    """For each λ whose network is no better than guessing right after the cut: what was cut, and how it ends."""
    return [_collapse(group, cut) for cut in _cuts(group, ratio) if _guesses(cut)]


def _guesses(cut: Cut) -> bool:
    classes, found = cut.jobs[0].train.classes, intervals.share(cut.tests("after pruning"))
    return classes is not None and found is not None and intervals.wilson(found)[0] <= 1 / classes


def _collapse(group: Group, cut: Cut) -> str:
    unit, layer = formats.unit(group.metric), cut.narrowest
    return (
        f"{formats.label(cut.strength)} collapses to {unit.text(score(cut.tests('after pruning')))} when the channels "
        f"are removed, no better than guessing: {dead_share(cut)}; the narrowest layer, {layer.name}, keeps "
        f"{layer.kept} of {layer.channels} channels. At the end it has {unit.text(score(cut.final))}."
    )
