"""The result in four sentences, worked out from the records of one group.

The deepest cut that costs at most one point; the same cut without the penalty; why the deepest ratio holds or fails;
what to try next. A difference that the test images cannot show is not called one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from netslim.experiment.measurements import AUTO
from netslim.experiment.records import FinishedJob, Layer, Test
from netslim.report import formats, gammas, intervals
from netslim.report.controls import is_small
from netslim.report.results import STAGES, Group, mean_std, tests

LEAST = 0.1  # a smaller ratio is not worth a try
NO_CUT = "No ratio over 0 was asked for, so nothing was removed."


@dataclass(frozen=True)
class Cut:
    """The jobs of one ratio and λ, one per seed."""

    ratio: float
    strength: float
    jobs: list[FinishedJob]

    def tests(self, stage: str) -> list[Test]:
        return [test for job in self.jobs if (test := tests(job).get(stage))]

    @property
    def final(self) -> list[Test]:
        """After the last stage that was run."""
        return next(found for stage in reversed(STAGES) if (found := self.tests(stage)))

    @property
    def dead(self) -> float | None:
        """Share of the trained network's γ that are dead; not known where it was trained on after a removal."""
        whole = [job for job in self.jobs if job.slim and not job.more and job.train.scales]
        found = mean_std(gammas.dead_share(job.train) for job in whole)
        return found.mean if found else None

    @property
    def removed(self) -> float:
        return mean([job.cut.removed / job.cut.prunable for job in self.jobs])

    def times(self, what: str) -> str:
        """How many times fewer "params" or "macs" than the dense network, over the seeds."""
        small, dense = (
            mean([getattr(size, what) for size in sizes])
            for sizes in ([job.cut.small for job in self.jobs], [job.cut.dense for job in self.jobs])
        )
        return f"{dense / small:.1f}" if small else "infinitely many"

    @property
    def faster(self) -> str:
        """How many times faster one image passes, where that was measured, as the end of a sentence."""
        runs = [job.slim.run.latency for job in self.jobs if job.slim and job.slim.run.latency]
        if not runs:
            return ""
        dense, slim = mean([run["dense"] for run in runs]), mean([run["slim"] for run in runs])
        if max(dense, slim) < 1.05 * min(dense, slim):
            return f"; one image passes as fast ({slim:.2g} ms)"
        times = f"{dense / slim:.1f} times faster" if dense >= slim else f"{slim / dense:.1f} times slower"
        return f"; one image passes {times} ({dense:.2g} -> {slim:.2g} ms)"

    @property
    def narrowest(self) -> Layer:
        """The layer that keeps the fewest channels."""
        return min(self.jobs[0].cut.layers, key=lambda layer: (layer.kept, layer.kept / layer.channels))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def score(found: list[Test]) -> float:
    return mean([test.score for test in found])


class Verdict:
    """The four sentences about one group; each is a method."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.unit = formats.unit(group.metric)
        self.gradual = not any(job.slim for job in group.jobs if job.ratio > 0)
        pairs = [(ratio, strength) for ratio in group.ratios for strength in group.lambdas if ratio > 0]
        self.cuts = [Cut(*pair, jobs) for pair in pairs if (jobs := group.at(pair[1], pair[0]))]

    def sentences(self) -> list[str]:
        if not self.cuts:
            return [NO_CUT]
        if self.gradual:
            return [self.while_training()]
        return [self.deepest_cut(), self.without_penalty(), self.deepest_ratio(), self.next_step()]

    @cached_property
    def reference(self) -> Cut:
        """The dense network that cuts are measured against: of λ = 0 where there is one, else the best."""
        trained = [Cut(0.0, s, [job for job in self.group.jobs if job.strength == s]) for s in self.group.lambdas]
        return trained[0] if trained[0].strength == 0 else min(trained, key=lambda cut: -self._good(cut.tests("dense")))

    def _good(self, found: list[Test]) -> float:
        """The score, turned so that larger is better."""
        return score(found) * (1 if self.group.metric.direction == "max" else -1)

    def _loss(self, found: list[Test]) -> float:
        """How much worse than the dense network, in the metric's own unit."""
        return self._good(self.reference.tests("dense")) - self._good(found)

    def _shown(self, found: list[Test]) -> str:
        return self.unit.text(score(found))

    @property
    def _point(self) -> float:
        """One point of a share; of another metric one percent of the dense network's value."""
        return 0.01 if self.unit.percent else 0.01 * abs(score(self.reference.tests("dense")))

    def _holds(self, cut: Cut) -> bool:
        return self._loss(cut.final) <= self._point

    def _costs(self, found: list[Test]) -> bool:
        """Whether more than one point is lost, and the test images can show it."""
        one, dense = intervals.share(found), intervals.share(self.reference.tests("dense"))
        seen = not one or not dense or intervals.distinct(one, dense)
        return seen and self._loss(found) > self._point

    def _best(self, cuts: list[Cut]) -> Cut:
        return max(cuts, key=lambda cut: self._good(cut.final))

    def _apart(self, a: list[Test], b: list[Test]) -> str:
        """How far a is under or over b, or that the images do not tell."""
        one, other = intervals.share(a), intervals.share(b)
        if one and other and not intervals.distinct(one, other):
            return f"no difference that {formats.count(one.total)} test images can show"
        better = self._good(a) - self._good(b)
        return f"{self.unit.size(abs(better))} {'better' if better > 0 else 'worse'}"

    @cached_property
    def chosen(self) -> Cut:
        """The deepest cut that costs at most one point; the best of all where each costs more."""
        cheap = [cut for cut in self.cuts if self._holds(cut)]
        deepest = max((cut.ratio for cut in cheap), default=None)
        return self._best([cut for cut in cheap if cut.ratio == deepest] or self.cuts)

    def deepest_cut(self) -> str:
        cut, dense = self.chosen, self.reference.tests("dense")
        begin = "The deepest cut that costs at most one point"
        if not self._holds(cut):
            begin = "Every cut measures more than one point worse; the best one"
        return (
            f"{begin} removes {formats.ratio(cut.ratio)} of the {self.group.of} at {formats.label(cut.strength)}: "
            f"{self._shown(cut.final)} {self.unit.name} against {self._shown(dense)} for the dense network of "
            f"{formats.label(self.reference.strength)}, {self._apart(cut.final, dense)}, with {cut.times('params')} "
            f"times fewer parameters and {cut.times('macs')} times fewer MACs{cut.faster}."
        )

    def without_penalty(self) -> str:
        cut = self.chosen
        others = [c for c in self.cuts if c.ratio == cut.ratio and (c.strength == 0) != (cut.strength == 0)]
        if not others:
            missing = "λ = 0" if cut.strength else "λ > 0"
            return f"No job with {missing} has this ratio, so what the penalty gives is not known."
        other = self._best(others)
        plain, sparse = (cut, other) if cut.strength == 0 else (other, cut)
        early = max((c for c in self.cuts if c.ratio == cut.ratio and c.strength), key=self._early)
        return (
            f"Without the penalty (λ = 0) this cut leaves {self._shown(plain.tests('after pruning'))} right after "
            f"pruning, where {formats.label(early.strength)} keeps {self._shown(early.tests('after pruning'))}; at the "
            f"end λ = 0 has {self._shown(plain.final)} against {self._shown(sparse.final)} "
            f"({formats.label(sparse.strength)}), {self._apart(plain.final, sparse.final)}."
        )

    def _early(self, cut: Cut) -> float:
        return self._good(cut.tests("after pruning"))

    def deepest_ratio(self) -> str:
        cut = self.deepest
        layer = cut.narrowest
        holds = "holds" if self._holds(cut) else "fails" if self._costs(cut.final) else "may hold,"
        return (
            f"The deepest ratio, {formats.ratio(cut.ratio, self.group.of)}, {holds} with {self._shown(cut.final)} at "
            f"best ({formats.label(cut.strength)}){self._guessing(cut)}: {dead_share(cut)}; the narrowest layer, "
            f"{layer.name}, keeps {layer.kept} of {layer.channels} channels."
        )

    def while_training(self) -> str:
        """Of a network that got smaller while it was trained: there is no dense one to compare with."""
        cut = self.deepest
        layer = cut.narrowest
        return (
            f"Slimming during the training to {formats.ratio(cut.ratio, self.group.of)} ends with "
            f"{self._shown(cut.final)} {self.unit.name} ({formats.label(cut.strength)}){self._guessing(cut)}, with "
            f"{cut.times('params')} times fewer parameters and {cut.times('macs')} times fewer MACs than the dense "
            f"network{self._dense_control(cut)}; the narrowest layer, {layer.name}, keeps {layer.kept} of "
            f"{layer.channels} channels.{self._controls(cut)}"
        )

    def _dense_control(self, cut: Cut) -> str:
        trained = any(not is_small(record) for job in cut.jobs for record in job.controls)
        return "" if trained else ", which was not trained here"

    def _controls(self, cut: Cut) -> str:
        """What was trained to compare with, as a sentence."""
        found: dict[str, list[Test]] = {}
        for record in (record for job in cut.jobs for record in job.controls):
            found.setdefault(record.control, []).append(record.test)
        words = [f"{words} {self._shown(tests)}" for words, tests in found.items()]
        return f" Controls: {formats.listing(words)}." if words else ""

    def next_step(self) -> str:
        cut, seeds = self.deepest, ""
        if len(cut.jobs) == 1:
            seeds = " Repeat it with seed=0,1,2 to learn how far runs differ."
        if self._holds(cut):
            return f"Next, try a deeper cut, such as {self._deeper(cut)}.{seeds}"
        if cut.dead is None or cut.dead >= cut.removed:
            return f"Next, try a longer fine-tuning, or a floor under every layer (slimming.floor).{seeds}"
        return f"Next, {self._more_penalty()}{seeds}"

    def _deeper(self, cut: Cut) -> str:
        """Half of what is left, as the command is asked for it."""
        targets = [name for job in cut.jobs for name in job.target]
        return f"{targets[0]}={(1 - cut.ratio) / 2:.2g}" if targets else f"ratio={round((1 + cut.ratio) / 2, 2):g}"

    @cached_property
    def deepest(self) -> Cut:
        """The best cut at the largest ratio."""
        return self._best([cut for cut in self.cuts if cut.ratio == self.cuts[-1].ratio])

    def _more_penalty(self) -> str:
        """What to do where fewer γ are dead than channels are removed."""
        largest = [cut for cut in self.cuts if cut.strength == self.group.lambdas[-1]][-1]
        covered = int(20 * (largest.dead or 0.0)) / 20  # in steps of 5 %
        mild = f"ratio={covered:g}, which the dead γ of {formats.label(largest.strength)} cover"
        if largest.strength == 0:
            return "try a penalty: lambda=1e-4 for the authors' schedule, a larger one for a shorter schedule."
        if self._costs(largest.tests("dense")):
            cost = self.unit.size(self._loss(largest.tests("dense")))
            instead = f"try {mild}" if covered >= LEAST else "try a longer training"
            return f"{instead}. A larger λ costs more: {formats.label(largest.strength)} loses {cost} before any cut."
        if largest.strength == AUTO:
            return f"try {mild}." if covered >= LEAST else "try a longer training."
        stronger = f"try a larger λ, such as lambda={formats.strength(float(f'{3 * largest.strength:.2g}'))}"
        return f"{stronger}, or {mild}." if covered >= LEAST else f"{stronger}."

    def _guessing(self, cut: Cut) -> str:
        classes = cut.jobs[0].train.classes
        counted, said = intervals.share(cut.final), ""
        if classes and counted and intervals.wilson(counted)[0] <= 1 / classes:
            said = f", no better than guessing among {classes} classes"
        predicted = min((test.predicted for test in cut.final if test.predicted), default=None)
        if classes and predicted and predicted < classes:
            said += f", and puts the images into {predicted} of {classes} classes"
        return said


def dead_share(cut: Cut) -> str:
    """The share of dead γ against the share of channels removed."""
    if cut.dead is None:
        return "how many of its γ were dead is not recorded"
    dead = f"{100 * cut.dead:.1f} % of the γ are dead (at most 1 % of their layer's mean)"
    if cut.dead >= cut.removed:
        return f"{dead}, enough for all that is removed"
    return f"{dead}, so {100 * (cut.removed - cut.dead):.1f} % of the channels are removed although they are live"
