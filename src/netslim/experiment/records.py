"""What stands in the JSON files under ``outputs/``, as types: what does not fit is answered in one line that names it.

A file of an older version is read if it has what a report needs; unknown keys are ignored. ``lambda`` of the files is
``strength`` here, ``slim`` of a slim stage's record is ``small``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from netslim.experiment.measurements import (
    AUTO,
    AtLeast0,
    AtLeast1,
    Candidate,
    Cut,
    Epoch,
    Layer,
    Left,
    Measured,
    Metric,
    Recalibrated,
    Reconstructed,
    Rescaled,
    Run,
    Test,
    Timed,
    as_filed,
    as_read,
    check_epochs,
    check_finite,
    check_histograms,
    check_positive,
    check_removed,
    schema_error,
)
from netslim.files import read_json

Kind = TypeVar("Kind")
# What a job may be asked for instead of a ratio.
TARGETS = {"target_macs": "MACs", "target_params": "parameters", "target_latency": "latency"}


class StageRecord(Struct, kw_only=True, omit_defaults=True):
    """What the record of every stage has; a stage of one's own adds its numbers as fields of a subclass.

    ``stage`` (its kind), ``name``, λ, ratio and seed are filled in by who runs it. ``limits``: what cut it short, as
    limit_train_batches does. ``settings``: all that determined the result, from the file beside the record.
    """

    stage: str = ""
    name: str = ""
    strength: float | None = field(name="lambda", default=None)
    ratio: float | None = None
    target: dict[str, float] = {}
    seed: int | None = None
    run: Run | None = None
    limits: dict[str, Any] = {}
    settings: dict[str, Any] = {}


class TrainRecord(StageRecord, kw_only=True, omit_defaults=True):
    """Sparsity training; of no ``epochs`` where the network was trained before.

    ``budget``: how far the penalty alone could move a γ; None where the optimiser's steps do not tell, or where the
    penalty ended earlier than the training. ``train_macs``: multiply-adds of all its steps. ``cut``: what is left of a
    network that got smaller meanwhile; the test is that of the small one. ``scales``: γ by layer. ``gamma_history``: of
    every epoch, how many |γ| are in each bin of method/scale_bins.py; [] for an epoch of which that is not known.
    """

    network: str
    data: str
    classes: AtLeast1 | None = None
    budget: float | None
    metric: Metric = Metric()
    epochs: list[Epoch]
    test: Test
    train_macs: AtLeast0 | None = None
    cut: Cut | None = None
    run: Run
    scales: dict[str, list[float]] = {}
    gamma_history: list[list[AtLeast0]] = []

    def __post_init__(self) -> None:
        check_positive(self, "budget")
        check_epochs(self.epochs, self.metric)
        check_histograms(self.gamma_history, len(self.epochs))


class SlimRecord(StageRecord, Left, kw_only=True, omit_defaults=True):
    """One threshold over all scores. ``threshold``: the largest score removed, ``unit``: what a score is.

    ``train``: the training that was slimmed. ``removed``, ``prunable``: channels, of the dense network in later rounds
    too. ``at_floor``: layers that lost all that their floor lets go. ``uncounted``: operations without a MAC rule, and
    how often they ran. ``candidates``: of a vote. ``latency``: where there is a target for it.
    """

    train: str = ""
    metric: Metric = Metric()
    threshold: float
    unit: str = "|γ|"
    removed: AtLeast0
    prunable: AtLeast1
    layers: Annotated[list[Layer], Meta(min_length=1)]
    uncounted: dict[str, int] = {}
    at_floor: list[str] = []
    dense: Measured
    small: Measured = field(name="slim")
    recalibrated: Recalibrated
    reconstructed: Reconstructed | None = None
    rescaled: Rescaled | None = None
    candidates: list[Candidate] = []
    latency: Timed | None = None
    run: Run

    def __post_init__(self) -> None:
        check_finite(self, "threshold")
        check_removed(self.removed, self.prunable)


class FinetuneRecord(StageRecord, kw_only=True, omit_defaults=True):
    """Fine-tuning of the network that the stage ``slim`` made; or sparsity training of it, between two rounds."""

    slim: str = ""
    metric: Metric = Metric()
    epochs: Annotated[list[Epoch], Meta(min_length=1)]
    test: Test
    train_macs: AtLeast0 | None = None
    run: Run

    def __post_init__(self) -> None:
        check_epochs(self.epochs, self.metric)


class ControlRecord(StageRecord, kw_only=True, omit_defaults=True):
    """A training to compare the job's result with. ``control``: what it is, in words, as tables name it.

    ``params``, ``macs``: of its network, for one input. ``widths``: channels of each BN layer. ``inherited``: epochs of
    the training that its weights come from; ``train_macs`` has those too. ``training``: a digest of the network that it
    starts from and of the recipe; ``same_as``: the control that did this training, where another did.
    """

    control: str
    params: AtLeast1
    macs: AtLeast0
    widths: dict[str, int] = {}
    metric: Metric = Metric()
    inherited: int = 0
    training: str = ""
    same_as: str = ""
    epochs: Annotated[list[Epoch], Meta(min_length=1)]
    test: Test
    train_macs: AtLeast0 | None = None
    run: Run

    def __post_init__(self) -> None:
        check_epochs(self.epochs, self.metric)


ROUNDS: dict[str, type[StageRecord]] = {"slim": SlimRecord, "retrain": FinetuneRecord, "finetune": FinetuneRecord}


def cut_of(train: TrainRecord, slim: SlimRecord | None) -> SlimRecord | Cut:
    """What is left of the dense network: of the slim stage, or of the training in which it got smaller."""
    found = slim or train.cut
    if found is None:
        raise ValueError(f"neither the training {train.name} nor a slim stage removes channels")
    return found


class JobRecord(Struct, kw_only=True, omit_defaults=True):
    """Which stages a job consists of, by the names of their folders.

    ``target``: what was asked for where ``ratio`` is None, such as {"target_macs": 0.5}.
    ``slim``: none where the network got smaller inside the training. ``more``: those beside the last round of training,
    slimming and fine-tuning: earlier rounds, own stages. ``method``: the file of conf/method.
    ``controls``: what its result is compared with, ``beside``: a scan before the cut, exported files; they are no part
    of what makes it this job.
    """

    strength: float = field(name="lambda")
    ratio: float | None
    target: dict[str, float] = {}
    seed: int
    train: str
    slim: str | None
    finetune: str | None
    more: list[str] = []
    controls: list[str] = []
    beside: list[str] = []
    method: str = ""
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
    slim: SlimRecord | None
    finetune: FinetuneRecord | None
    more: list[StageRecord] = []
    controls: list[ControlRecord] = []
    beside: list[StageRecord] = []
    method: str = ""
    command: str

    def __post_init__(self) -> None:
        _check_job(self)
        cut_of(self.train, self.slim)

    @property
    def cut(self) -> SlimRecord | Cut:
        """What is left of the dense network, and of which layers: of the last slim stage or of the training."""
        return cut_of(self.train, self.slim)

    @property
    def trainings(self) -> list[TrainRecord | FinetuneRecord]:
        """All that the job trained on the way to its result, in order; not its controls."""
        rounds = [record for record in self.more if isinstance(record, FinetuneRecord) and record.stage in ROUNDS]
        return [self.train, *rounds, *filter(None, [self.finetune])]

    @property
    def epochs_total(self) -> int:
        return sum(len(training.epochs) for training in self.trainings)

    @property
    def train_macs(self) -> int | None:
        """Multiply-adds of these trainings (measure/cost.py says what counts); None where one of them is not known."""
        known = [training.train_macs for training in self.trainings if training.train_macs is not None]
        return sum(known) if len(known) == len(self.trainings) else None

    @property
    def of(self) -> str:
        return next((TARGETS[name] for name in self.target), "channels")


def read(path: Path, kind: type[Kind]) -> Kind:
    """Parse a file of that type; ValueError, with its name, the place in it and the remedy, where it is of no such."""
    try:
        return msgspec.convert(as_read(read_json(path)), kind)
    except msgspec.ValidationError as error:
        raise schema_error(path, str(error)) from None


def plain(record: Struct) -> dict[str, Any]:
    """The record as it is written: dictionaries, lists, numbers and text."""
    return as_filed(msgspec.to_builtins(record))


def _check_job(job: JobRecord | FinishedJob) -> None:
    check_finite(job, "ratio", *(["strength"] if job.strength != AUTO else []))
    if (job.ratio is None) != bool(job.target) and not isinstance(job, FinishedJob):
        raise ValueError("there is neither 'ratio' nor 'target'")
    if job.strength < 0 or not 0 <= (job.ratio or 0) < 1:
        raise ValueError(f"λ = {job.strength:g} and ratio = {job.ratio or 0:g} are not λ >= 0 and 0 <= ratio < 1")
