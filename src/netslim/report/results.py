"""Records of a sweep -> groups, rows and mean ± std. Pure: nothing is drawn or written here."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from netslim.experiment.records import TARGETS, FinetuneRecord, FinishedJob, Metric, Test, TrainRecord
from netslim.report.render.document import slug

Trained = TrainRecord | FinetuneRecord
Found = dict[tuple[str, str, str], list[FinishedJob]]  # network, data, what else differs -> jobs
SMALL = (1e-4, 1e-3, 1e-2)  # bounds of |γ| whose shares tables have


@dataclass(frozen=True)
class MeanStd:
    """Mean and sample standard deviation of one number over ``n`` seeds; ``std`` is None for n = 1."""

    mean: float
    std: float | None
    n: int


def mean_std(values: Iterable[float]) -> MeanStd | None:
    """Mean and sample standard deviation (n − 1 in the denominator); None when there is no value.

    >>> mean_std([1.0, 2.0, 3.0])
    MeanStd(mean=2.0, std=1.0, n=3)
    >>> mean_std([0.5])
    MeanStd(mean=0.5, std=None, n=1)
    """
    known = list(values)
    if not known:
        return None
    mean, n = statistics.fmean(known), len(known)
    if n == 1:
        return MeanStd(mean, None, n)
    apart = math.dist(known, [mean] * n) if len(set(known)) > 1 else 0.0  # of equal values the mean may be rounded
    return MeanStd(mean, apart / math.sqrt(n - 1), n)


# Where a job is tested, in order. Each training is tested at its last epoch only.
GRADUAL = "after gradual slimming"  # of a training in which the network got smaller: there is no dense network
RECOVERED = ("after reconstruction", "after rescaling")  # where a job asked for that
STAGES = ("dense", "after pruning", "after recalibration", *RECOVERED, GRADUAL, "after fine-tuning")


def tests(job: FinishedJob) -> dict[str, Test | None]:
    """The test at each of STAGES that the job can have; None after fine-tuning where that was left out."""
    found: dict[str, Test | None] = {GRADUAL: job.train.test}
    if job.slim is not None:
        measured = job.slim.dense.test, job.slim.small.test, job.slim.recalibrated.test
        found = dict(zip(STAGES, measured, strict=False))
        more = zip(RECOVERED, (job.slim.reconstructed, job.slim.rescaled), strict=True)
        found.update((stage, each.test) for stage, each in more if each)
    return {**found, STAGES[-1]: job.finetune.test if job.finetune else None}


def reached(jobs: Iterable[FinishedJob]) -> list[str]:
    """Those of STAGES that any of the jobs can have, in order."""
    known = {stage for job in jobs for stage in tests(job)}
    return [stage for stage in STAGES if stage in known]


def final(job: FinishedJob) -> tuple[str, Test]:
    """The last test of a job, whatever its stages, and the stage that it is of."""
    return [(stage, test) for stage, test in tests(job).items() if test][-1]


ByStage = dict[str, MeanStd | None]


def by_stage(jobs: Sequence[FinishedJob]) -> ByStage:
    """The test at each stage that these jobs can have, over the seeds."""
    found = [tests(job) for job in jobs]
    return {stage: mean_std(test.score for of in found if (test := of.get(stage))) for stage in reached(jobs)}


@dataclass(frozen=True)
class Group:
    """The jobs that may be compared and averaged: same network, same data, same settings but λ, ratio and seed."""

    label: str  # what tells this group from the others; "" when it is the only one
    jobs: list[FinishedJob]

    @property
    def network(self) -> str:
        return self.jobs[0].train.network

    @property
    def data(self) -> str:
        return self.jobs[0].train.data

    @property
    def lambdas(self) -> list[float]:
        return sorted({job.strength for job in self.jobs})

    @property
    def ratios(self) -> list[float]:
        return sorted({job.ratio for job in self.jobs})

    @property
    def seeds(self) -> list[int]:
        return sorted({job.seed for job in self.jobs})

    @property
    def metric(self) -> Metric:
        return self.jobs[0].train.metric

    @property
    def of(self) -> str:
        """What the ratios are shares of: channels, MACs or parameters."""
        return self.jobs[0].of

    def file(self, name: str) -> str:
        """The name of a figure's files, with this group's label when there are several: the whole label, or its
        beginning and a number, because file systems take 255 bytes."""
        label = slug(self.label)
        if len(label) > 80:
            label = f"{label[:80].rstrip('-.')}-{zlib.crc32(label.encode()):08x}"
        return "-".join(filter(None, (label, name)))

    def at(self, strength: float, ratio: float) -> list[FinishedJob]:
        """The jobs of one λ and one ratio, one per seed, in the order of the seeds."""
        return [job for job in self.jobs if job.strength == strength and job.ratio == ratio]

    def trained(self, strength: float) -> list[TrainRecord]:
        """The sparsity trainings of one λ, one per seed: of the jobs with the smallest network, where each ratio has
        its own (schedule=gradual); else all share them."""
        jobs = [job for job in self.jobs if job.strength == strength]
        smallest = min(jobs, key=lambda job: job.cut.small.macs).ratio
        found = [job for job in jobs if job.ratio == smallest or not self.trains_for_ratios]
        return list({job.train.name: job.train for job in found}.values())

    @property
    def trains_for_ratios(self) -> bool:
        return len({job.train.name for job in self.jobs}) > len({(job.strength, job.seed) for job in self.jobs})

    def finetunings(self, strength: float, ratio: float) -> list[FinetuneRecord]:
        return [job.finetune for job in self.at(strength, ratio) if job.finetune]


# Neither what tells the jobs of a group apart, nor what cannot change a result.
APART = {"lambda", "ratio", *TARGETS, "seed", "train", "slim", "data.root", "data.title"}


def settings(job: FinishedJob) -> dict[str, Any]:
    """What a job was made with, by the names in its command: {"optimizer.lr": 0.1, "finetune.epochs": 5}."""
    found: dict[str, Any] = {}
    for record in filter(None, (job.train, job.slim, job.finetune)):
        known = record.settings.get("identity", {})  # what files are counts, not where they lie
        for key, value in _flat({key: value for key, value in record.settings.items() if key != "identity"}):
            if key in APART and key not in known:
                continue
            value = known.get(key, value)
            if record is job.finetune and (key in ("lr", "epochs") or found.get(key, ...) != value):
                key = f"finetune.{key}"
            found.setdefault(key, value)
    found |= {"removed of": job.of} if job.target else {}
    return {"finetune.epochs": 0, **found} if found else {}


def _flat(nested: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def groups(jobs: Sequence[FinishedJob], origins: Sequence[str] | None = None) -> list[Group]:
    """Jobs grouped by what they may be averaged over, each group sorted by λ, ratio and seed.

    Args:
        origins: the folder of every job; jobs of several folders are never averaged. Default: all of one.

    Raises:
        ValueError: two jobs of one group have the same λ, ratio and seed, so they cannot be told apart.
    """
    found: Found = {}
    labels = _labels(jobs)
    if origins and len(set(origins)) > 1:
        labels = [", ".join(filter(None, pair)) for pair in zip(origins, labels, strict=True)]
    for job, label in zip(jobs, labels, strict=True):
        found.setdefault((job.train.network, job.train.data, label), []).append(job)
    found = _split(found, lambda members: _differences(members, named=True))  # networks or data of the same name
    found = _split(found, _roots)
    several = [len({key[i] for key in found}) > 1 for i in range(3)]
    result = []
    for key, members in sorted(found.items(), key=lambda item: item[0]):
        members.sort(key=_axes)
        for a, b in itertools.pairwise(members):
            if _axes(a) == _axes(b):
                raise ValueError(
                    f"job lambda={a.strength} ratio={a.ratio} seed={a.seed} was recorded twice ({_cut_by(a)} and "
                    f"{_cut_by(b)}): remove one of them"
                )
        result.append(Group(", ".join(itertools.compress(key, several)), members))
    return result


def _labels(jobs: Sequence[FinishedJob]) -> list[str]:
    """The name of each job's method where there are several, and in which settings it differs from its like."""
    found = [""] * len(jobs)
    several = len({job.method for job in jobs}) > 1
    for method in {job.method for job in jobs}:
        places = [place for place, job in enumerate(jobs) if job.method == method]
        for place, more in zip(places, _differences([jobs[place] for place in places], named=False), strict=True):
            found[place] = ", ".join(filter(None, [(method or "no method") if several else "", more]))
    return found


def _split(found: Found, label: Callable[[Sequence[FinishedJob]], list[str]]) -> Found:
    """The same jobs, those apart that have different labels beside the others of their group."""
    finer: Found = {}
    for (network, data, known), members in found.items():
        for job, more in zip(members, label(members), strict=True):
            finer.setdefault((network, data, ", ".join(filter(None, (known, more)))), []).append(job)
    return finer


def _roots(jobs: Sequence[FinishedJob]) -> list[str]:
    """Where the data of each job were, if jobs were recorded twice because they were in two places."""
    if len(set(map(_axes, jobs))) == len(jobs):
        return [""] * len(jobs)
    data = [job.train.settings.get("data", {}) for job in jobs]
    return [f"data.root={own['root']}" if "root" in own else "" for own in data]


def _cut_by(job: FinishedJob) -> str:
    return (job.slim or job.train).name


def _axes(job: FinishedJob) -> tuple[float, float, int]:
    return job.strength, job.ratio, job.seed


def _differences(jobs: Sequence[FinishedJob], named: bool) -> list[str]:
    """For each job, the settings that not all share; named: those of the network and the data, else the others.

    A setting that a job does not have is one too; but not the rate of a fine-tuning that was left out.
    """
    made = [{k: v for k, v in settings(job).items() if k.startswith(("net.", "data.")) == named} for job in jobs]
    tuned = [own for own in made if own.get("finetune.epochs")]
    several = {key for own in made for key in own if _values(tuned if key == "finetune.lr" else made, key) > 1}
    return [", ".join(_word(own, key) for key in sorted(several)) for own in made]


def _word(own: dict[str, Any], key: str) -> str:
    return f"{key}={json.dumps(own[key])}".replace('"', "") if key in own else f"no {key}"


def _values(made: Sequence[dict[str, Any]], key: str) -> int:
    return len({json.dumps(own.get(key)) for own in made})


def curve_metric(trained: Iterable[Trained]) -> str:
    """`val_accuracy` when every epoch of every record has it, else `train_accuracy`; likewise of another metric."""
    known = list(trained)
    name = known[0].metric.name if known else "accuracy"
    everywhere = all(f"val_{name}" in epoch for record in known for epoch in record.epochs)
    return f"val_{name}" if known and everywhere else f"train_{name}"


def curve(trained: Sequence[Trained], metric: str) -> tuple[list[int], list[MeanStd]]:
    """One metric over the epochs that all records have: epochs and the spread over the records at each."""
    tables = [{int(epoch["epoch"]): epoch[metric] for epoch in record.epochs if metric in epoch} for record in trained]
    epochs = sorted(set(tables[0]).intersection(*tables)) if tables else []
    return epochs, [s for epoch in epochs if (s := mean_std(table[epoch] for table in tables))]
