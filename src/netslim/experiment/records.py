"""What stands in the JSON files under ``outputs/``, as types: what does not fit is answered in one line that names it.

A file of an older version is read as long as it has what a report needs; keys that nobody here knows are ignored.
``lambda`` of the files is ``strength`` here, ``slim`` of a slim stage's record is ``small``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from netslim.experiment.measurements import (
    AtLeast0,
    AtLeast1,
    Layer,
    Measured,
    Metric,
    Recalibrated,
    Run,
    Test,
    check_finite,
    check_positive,
)
from netslim.files import read_json

Epoch = dict[str, int | float]  # {"epoch": 1, "lr": .., "train_loss": .., "train_<metric>": .., "val_<metric>": ..}
Kind = TypeVar("Kind")


TARGETS = {"target_macs": "MACs", "target_params": "parameters"}  # what a job may be asked for instead of a ratio


class StageRecord(Struct, kw_only=True, omit_defaults=True):
    """What the record of every stage has; a stage of one's own adds its numbers as fields of a subclass.

    ``stage`` (its kind), ``name``, λ, ratio and seed are filled in by who runs the stage. ``settings``: all that
    determined the result, from the file beside the record.
    """

    stage: str = ""
    name: str = ""
    strength: float | None = field(name="lambda", default=None)
    ratio: float | None = None
    target: dict[str, float] = {}
    seed: int | None = None
    run: Run | None = None
    settings: dict[str, Any] = {}


class TrainRecord(StageRecord, kw_only=True, omit_defaults=True):
    """Sparsity training. ``budget``: how far the penalty alone could move a γ; ``scales``: γ by layer."""

    network: str
    data: str
    classes: AtLeast1 | None = None
    budget: float | None
    metric: Metric = Metric()
    epochs: Annotated[list[Epoch], Meta(min_length=1)]
    test: Test
    run: Run
    scales: dict[str, list[float]] = {}

    def __post_init__(self) -> None:
        check_positive(self, "budget")
        _check_epochs(self.epochs, self.metric)


class SlimRecord(StageRecord, kw_only=True, omit_defaults=True):
    """One threshold over all scores. ``threshold``: the largest score removed, ``unit``: what a score is.

    ``train``: the training that was slimmed. ``removed``, ``prunable``: channels, of the dense network in later rounds
    too. ``uncounted``: operations without a MAC rule, and how often they ran.
    """

    train: str = ""
    metric: Metric = Metric()
    threshold: float
    unit: str = "|γ|"
    removed: AtLeast0
    prunable: AtLeast1
    layers: Annotated[list[Layer], Meta(min_length=1)]
    uncounted: dict[str, int] = {}
    dense: Measured
    small: Measured = field(name="slim")
    recalibrated: Recalibrated
    run: Run

    def __post_init__(self) -> None:
        check_finite(self, "threshold")
        if self.removed > self.prunable:
            raise ValueError(f"{self.removed} of {self.prunable} channels are removed")

    def to_remove(self, target: dict[str, float]) -> float:
        """The share of the dense network's cost that a target leaves no room for, 0..1."""
        (name, left), dense = next(iter(target.items())), {"target_macs": self.dense.macs}
        share = left if left <= 1 else left / dense.get(name, self.dense.params)
        return max(0.0, round(1 - share, 9))

    @property
    def params_left(self) -> float:
        """Share of the dense network's parameters, 0..1."""
        return self.small.params / self.dense.params

    @property
    def macs_left(self) -> float:
        """Share of the dense network's MACs; nan where none of its operations could be counted."""
        return self.small.macs / self.dense.macs if self.dense.macs else math.nan


class FinetuneRecord(StageRecord, kw_only=True, omit_defaults=True):
    """Fine-tuning of the network that the stage ``slim`` made."""

    slim: str = ""
    metric: Metric = Metric()
    epochs: Annotated[list[Epoch], Meta(min_length=1)]
    test: Test
    run: Run

    def __post_init__(self) -> None:
        _check_epochs(self.epochs, self.metric)


class ControlRecord(StageRecord, kw_only=True, omit_defaults=True):
    """A training to compare the job's result with. ``control``: what it is, in words, as tables name it.

    ``params``, ``macs``: of its network, for one input. ``widths``: channels of each BN layer.
    """

    control: str
    params: AtLeast1
    macs: AtLeast0
    widths: dict[str, int] = {}
    metric: Metric = Metric()
    epochs: Annotated[list[Epoch], Meta(min_length=1)]
    test: Test
    run: Run

    def __post_init__(self) -> None:
        _check_epochs(self.epochs, self.metric)


class JobRecord(Struct, kw_only=True, omit_defaults=True):
    """Which stages a job consists of, by the names of their folders.

    ``target``: what was asked for where ``ratio`` is None, such as {"target_macs": 0.5}.
    ``more``: those beside the last round of training, slimming and fine-tuning: earlier rounds, own stages.
    ``controls``: what its result is compared with; they are no part of what makes it this job.
    """

    strength: float = field(name="lambda")
    ratio: float | None
    target: dict[str, float] = {}
    seed: int
    train: str
    slim: str
    finetune: str | None
    more: list[str] = []
    controls: list[str] = []
    command: str

    def __post_init__(self) -> None:
        _check_job(self)


class FinishedJob(Struct, kw_only=True):
    """A job with the records of its stages in place of their names.

    ``ratio``: the share that was to be removed ``of`` the prunable channels, or where there is a target, of the MACs or
    parameters.
    """

    strength: float = field(name="lambda")
    ratio: float
    target: dict[str, float] = {}
    seed: int
    train: TrainRecord
    slim: SlimRecord
    finetune: FinetuneRecord | None
    more: list[StageRecord] = []
    controls: list[ControlRecord] = []
    command: str

    def __post_init__(self) -> None:
        _check_job(self)

    @property
    def of(self) -> str:
        return next((TARGETS[name] for name in self.target), "channels")


class Asked(Struct, kw_only=True):
    """A command, and the overrides of each of its jobs."""

    command: str
    jobs: list[list[str]]


class SweepRecord(Asked, kw_only=True, omit_defaults=True):
    """What was asked for in a folder: by the last command, and by ``earlier`` ones besides."""

    earlier: list[Asked] = []


def read(path: Path, kind: type[Kind]) -> Kind:
    """Parse a file of that type; ValueError, with its name, the place in it and the remedy, where it is of no such."""
    value = read_json(path)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise schema_error(path, str(error)) from None


def schema_error(path: Path, fault: str) -> ValueError:
    """The one line about a file that is not what it should be.

    >>> schema_error(Path("lab/sweep.json"), "Expected `array`, got `int` - at `$.jobs`").args[0]
    'lab/sweep.json is not as netslim writes it (Expected `array`, got `int` - at `$.jobs`); remove lab/sweep.json and run the command again'
    """  # noqa: E501
    where = path if path.name == "sweep.json" else f"the folder {path.parent}"
    return ValueError(f"{path} is not as netslim writes it ({fault}); remove {where} and run the command again")


def plain(record: Struct) -> dict[str, Any]:
    """The record as it is written: dictionaries, lists, numbers and text."""
    content: dict[str, Any] = msgspec.to_builtins(record)
    return content


def _check_epochs(rows: list[Epoch], metric: Metric) -> None:
    """Every epoch has what any has of the metric; a classification's always has."""
    scores = {f"train_{metric.name}", f"val_{metric.name}"}
    logged = metric.name == "accuracy" or any(scores & row.keys() for row in rows)
    for number, row in enumerate(rows):
        if "epoch" not in row or (logged and not scores & row.keys()):
            raise ValueError(f"epochs[{number}] has no 'epoch' or neither train_{metric.name} nor val_{metric.name}")
        if odd := [key for key, value in row.items() if not math.isfinite(value)]:
            raise ValueError(f"epochs[{number}]: {odd[0]} is {row[odd[0]]}, not a finite number")


def _check_job(job: JobRecord | FinishedJob) -> None:
    check_finite(job, "strength", "ratio")
    if (job.ratio is None) != bool(job.target) and not isinstance(job, FinishedJob):
        raise ValueError("there is neither 'ratio' nor 'target'")
    if job.strength < 0 or not 0 <= (job.ratio or 0) < 1:
        raise ValueError(f"λ = {job.strength:g} and ratio = {job.ratio or 0:g} are not λ >= 0 and 0 <= ratio < 1")
