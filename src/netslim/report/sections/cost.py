"""The picture that says all: the test result over what the networks cost, controls beside them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from netslim.report import formats
from netslim.report.controls import Control, controls
from netslim.report.figures import accuracy
from netslim.report.render.document import Picture
from netslim.report.results import Group, by_stage, mean_std


def picture(groups: Sequence[Group]) -> Picture:
    """The test result over parameters and MACs: everything in the folder, the dense networks marked."""
    named = len(groups) > 1 and len({strength for group in groups for strength in group.lambdas}) == 1
    paths = [path(group, strength, named=named) for group in groups for strength in group.lambdas]
    compared, far = near(paths, control_paths(controls(groups)))
    unit, each = formats.unit(groups[0].metric), "method" if named else "λ"
    smallest = min(
        (point for path in paths for point in path.points if not point.dense), key=lambda point: point.params
    )
    grey = " Controls, trained to compare with, are grey and dotted." if compared else ""
    grey += f" Far below, and not drawn: {formats.listing(far)}." if far else ""
    return Picture(
        name="cost",
        draw=partial(accuracy.cost, [*paths, *compared], metric=f"test {unit.axis}", scale=unit.scale),
        alt=f"Test {unit.name} over parameters and over MACs, a line per {each} from the dense network to the "
        f"smallest, which has {formats.count(smallest.params)} parameters and {unit.text(smallest.result.mean)}.",
        caption=f"Test {unit.name} at the end, over what the network costs. A line per {each} goes from the network "
        f"before the cut (ring) through the prune ratios to the smallest.{grey}",
        data="results.csv",
    )


def path(group: Group, strength: float, *, named: bool) -> accuracy.Path:
    """The networks of one λ.

    named: the label of the group says enough, for all have this λ.
    """
    points: list[accuracy.Point] = []
    for ratio in group.ratios:
        jobs = group.at(strength, ratio)
        if not jobs:
            continue
        known = {stage: value for stage, value in by_stage(jobs).items() if value}
        slims = [job.cut for job in jobs]
        if not points and "dense" in known:
            points.append(accuracy.Point(slims[0].dense.params, slims[0].dense.macs, known["dense"], dense=True))
        params, macs = (
            sum(sizes) / len(slims) for sizes in zip(*((s.small.params, s.small.macs) for s in slims), strict=True)
        )
        points.append(accuracy.Point(params, macs, list(known.values())[-1]))
    words = [group.label or group.jobs[0].method] if named else [group.label, formats.label(strength)]
    return accuracy.Path(", ".join(filter(None, words)), points)


def near(paths: Sequence[accuracy.Path], compared: Sequence[accuracy.Path]) -> tuple[list[accuracy.Path], list[str]]:
    """The controls that are drawn, and the names of those that would take most of the height from the networks."""
    known = [point.result.mean for path in paths for point in path.points]
    low, high = min(known), max(known + [point.result.mean for path in compared for point in path.points])
    lowest = low - (high - low)
    far = [path for path in compared if min(point.result.mean for point in path.points) < lowest]
    return [path for path in compared if path not in far], [path.label for path in far]


def control_paths(compared: Sequence[Control]) -> list[accuracy.Path]:
    """A path for each kind of control, from its largest network to its smallest; of a kind that several methods or λ
    have at one ratio, points by themselves."""
    kinds: dict[str, list[Control]] = {}
    for control in compared:
        kinds.setdefault(control.words, []).append(control)
    return [
        accuracy.Path(
            words,
            sorted(map(_point, found), key=lambda point: -point.params),
            control=True,
            joined=len({control.ratio for control in found}) == len(found),
        )
        for words, found in kinds.items()
    ]


def _point(control: Control) -> accuracy.Point:
    result = mean_std(record.test.score for record in control.tests)
    assert result is not None, "a control has a record"
    return accuracy.Point(control.mean("params") or 0, control.mean("macs") or 0, result)
