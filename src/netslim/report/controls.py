"""The controls of a report: each once, over the seeds, with the jobs that are compared with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from netslim.experiment.measurements import Size
from netslim.experiment.records import ControlRecord, FinishedJob
from netslim.report.results import Group, mean_std
from netslim.report.table import Row

OF_ONE_JOB = ("seed", "widths", "macs", "slim", "teacher", "cost_of")  # what names stages of a job, its seed


@dataclass(frozen=True)
class Control:
    """words: what it is; records: one per seed; jobs: with their groups, all that are compared with it."""

    words: str
    records: dict[str, ControlRecord] = field(default_factory=dict)  # by name
    jobs: list[tuple[Group, FinishedJob]] = field(default_factory=list)

    @property
    def tests(self) -> list[ControlRecord]:
        return list(self.records.values())

    @property
    def ratio(self) -> float | None:
        """The ratio of all its jobs; None where they have several, or where it has none."""
        own = any(map(is_small, self.tests))
        return _only(job.ratio for _, job in self.jobs) if own else None

    @property
    def strength(self) -> float | None:
        return _only(record.strength for record in self.tests)

    @property
    def group(self) -> Group | None:
        groups = {id(group): group for group, _ in self.jobs}
        return next(iter(groups.values())) if len(groups) == 1 else None

    @property
    def dense(self) -> Size:
        """The size of the dense network that it is a part of."""
        return self.jobs[0][1].cut.dense

    def mean(self, name: str) -> float | None:
        """The mean of ``params``, ``macs`` or ``train_macs``; None where none is known."""
        found = mean_std(value for record in self.tests if (value := getattr(record, name)) is not None)
        return found.mean if found else None


def is_small(record: ControlRecord) -> bool:
    """Whether it is of the size of a slim network, not of the dense one's."""
    return record.ratio is not None or bool(record.target)


def epochs_of(record: ControlRecord) -> int:
    """With those of the training that its weights come from."""
    return record.inherited + len(record.epochs)


def _only(values: Iterable[float | None]) -> float | None:
    found = set(values)
    return found.pop() if len(found) == 1 else None


def controls(groups: Sequence[Group]) -> list[Control]:
    """Each control once, in the order in which the jobs name them."""
    found: dict[str, Control] = {}
    for group in groups:
        for job in group.jobs:
            for record in job.controls:
                control = found.setdefault(_key(group, job, record), Control(record.control))
                control.records[record.name] = record
                control.jobs.append((group, job))
    places = list(dict.fromkeys(control.words for control in found.values()))
    return sorted(found.values(), key=lambda control: places.index(control.words))


def _key(group: Group, job: FinishedJob, record: ControlRecord) -> str:
    """What all seeds of a control have in common. One without a λ is shared by the jobs of all λ and groups."""
    own = {key: value for key, value in record.settings.items() if key not in OF_ONE_JOB}
    job_of_it = [] if record.strength is None else [group.label, job.strength, job.ratio]
    return json.dumps([record.stage, record.control, own, job_of_it, record.ratio], sort_keys=True)


def rows(groups: Sequence[Group]) -> Iterator[Row]:
    """One row per training, for the CSV of the results."""
    for control in controls(groups):
        group, metric, dense = control.group, control.jobs[0][0].metric.name, control.dense
        for record in control.tests:
            yield {
                "part": group.label if group else "",
                "method": "",
                "network": control.jobs[0][0].network,
                "data": control.jobs[0][0].data,
                "lambda": record.strength,
                "ratio": control.ratio,
                "seed": record.seed,
                f"final_{metric}": record.test.score,
                "epochs_total": epochs_of(record),
                "train_macs": record.train_macs,
                "dense_params": dense.params,
                "slim_params": record.params,
                "params_left": record.params / dense.params,
                "dense_macs": dense.macs,
                "slim_macs": record.macs,
                "macs_left": record.macs / dense.macs if dense.macs else None,
                "kept": " ".join(map(str, record.widths.values())),
                "control": record.control,
                "stage": record.name,
            }
