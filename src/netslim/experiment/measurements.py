"""What records are made of: a metric, a test, a run, a layer, a network's size, what a cut left of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from netslim.method.scale_bins import BINS

AUTO = math.inf  # the λ that a training finds itself; "auto" wherever it is written
AtLeast0 = Annotated[int, Meta(ge=0)]
AtLeast1 = Annotated[int, Meta(ge=1)]
Epoch = dict[str, int | float]  # {"epoch": 1, "lr": .., "train_loss": .., "train_<metric>": .., "val_<metric>": ..}


def as_written(strength: float | None) -> float | str | None:
    """λ as names, files and commands have it.

    >>> as_written(1e-4), as_written(AUTO)
    (0.0001, 'auto')
    """
    return "auto" if strength == AUTO else strength


def as_filed(content: dict[str, Any]) -> dict[str, Any]:
    """What a file says, with λ as it is written."""
    return {**content, "lambda": as_written(content["lambda"])} if "lambda" in content else content


def as_read(content: Any) -> Any:
    """What a file says, with λ as a number.

    >>> as_read({"lambda": "auto"}), as_read({"lambda": 1e-4})
    ({'lambda': inf}, {'lambda': 0.0001})
    """
    auto = isinstance(content, dict) and content.get("lambda") == "auto"
    return {**content, "lambda": AUTO} if auto else content


class Metric(Struct, frozen=True):
    """What a task is judged by: its name in the log, which direction is better, how a value is written."""

    name: str = "accuracy"
    direction: Literal["max", "min"] = "max"
    format: str = ".1%"


class Test(Struct, omit_defaults=True):
    """One pass over the test set: ``correct`` of ``total`` images, or the ``value`` of another metric.

    ``predicted``: into how many classes the network put the images.
    """

    __test__ = False  # no test of pytest's

    correct: AtLeast0 | None = None
    total: AtLeast1 | None = None
    loss: float | None = None
    value: float | None = None
    predicted: AtLeast1 | None = None

    def __post_init__(self) -> None:
        check_finite(self, "loss", "value")
        if self.value is None and (self.correct is None or self.total is None):
            raise ValueError("there is neither 'correct' with 'total' nor 'value'")
        if self.correct is not None and self.total is not None and self.correct > self.total:
            raise ValueError(f"{self.correct} of {self.total} images are correct")

    @property
    def score(self) -> float:
        """What the task's metric says; of a classification the share of correct images, 0..1."""
        if self.correct is not None and self.total is not None:
            return self.correct / self.total
        assert self.value is not None
        return self.value


class Run(Struct, kw_only=True, omit_defaults=True):
    """When, where and how long a stage ran, of what command.

    ``latency``: median milliseconds of a forward pass of one input there, by the network before and after slimming.
    """

    started: str
    seconds: float
    command: str
    versions: dict[str, str]
    hardware: str
    latency: dict[Literal["dense", "slim"], float] = {}

    def __post_init__(self) -> None:
        check_positive(self, "seconds")


class Layer(Struct, kw_only=True):
    """A BatchNorm layer of the dense network: its channels, and how many of them are kept."""

    name: str
    channels: AtLeast1
    kept: AtLeast0

    def __post_init__(self) -> None:
        if self.kept > self.channels:
            raise ValueError(f"{self.kept} of {self.channels} channels are kept")


class Size(Struct, kw_only=True):
    """Parameters and, for one input, MACs of a network."""

    params: AtLeast1
    macs: AtLeast0


class Measured(Size, kw_only=True):
    """A network's size, for one input, and its test."""

    test: Test


class Candidate(Size, kw_only=True):
    """A network that was up for a vote: by which score, how many channels it is without, the metric on validation."""

    unit: str
    removed: AtLeast0
    value: float


class Recalibrated(Struct):
    test: Test  # of the slim network after its BatchNorm statistics were estimated anew


class Reconstructed(Struct, kw_only=True):
    """The test after the layers were fitted to the dense network's, on so many images.

    ``layers``: the share of each one's output that was missing before and after; ``skipped``: why others were not.
    """

    test: Test
    images: AtLeast1
    seconds: float
    layers: dict[str, tuple[float, float]]
    skipped: dict[str, str]


class Rescaled(Struct, kw_only=True):
    """The test after γ of each layer was multiplied by its factor. ``left``: why others were not."""

    test: Test
    factors: dict[str, float]
    left: dict[str, str]


class Timed(Struct, kw_only=True):
    """Milliseconds of a forward pass of ``batch`` inputs on so many CPU ``threads``, by the network before and after
    slimming: predicted from its layers, which were measured alone, and measured once it was there."""

    runtime: str
    batch: AtLeast1
    threads: AtLeast1
    predicted: dict[Literal["dense", "slim"], float]
    measured: dict[Literal["dense", "slim"], float]

    def __str__(self) -> str:
        before, after = self.measured["dense"], self.measured["slim"]
        where = f"in {self.runtime}, batch of {self.batch}"
        return f"{before:.3g} -> {after:.3g} ms ({self.predicted['slim']:.3g} predicted) {where}"


class Left:
    """How much of the dense network is left, of whatever knows both sizes."""

    __slots__ = ()
    dense: Size
    small: Size
    latency: Timed | None = None

    @property
    def params_left(self) -> float:
        """Share of the dense network's parameters, 0..1."""
        return self.small.params / self.dense.params

    @property
    def macs_left(self) -> float:
        """Share of the dense network's MACs; nan where none of its operations could be counted."""
        return self.small.macs / self.dense.macs if self.dense.macs else math.nan

    def to_remove(self, target: dict[str, float]) -> float:
        """The share of the dense network's cost that a target leaves no room for, 0..1."""
        ((name, left),) = target.items()
        dense: dict[str, float] = {"target_macs": self.dense.macs, "target_params": self.dense.params}
        if self.latency:
            dense["target_latency"] = self.latency.predicted["dense"]
        return max(0.0, round(1 - (left if left <= 1 else left / dense[name]), 9))


class Shape(Struct, kw_only=True):
    """The network that one epoch trained: parameters, MACs of one input (None: not known), channels of every layer."""

    params: AtLeast1
    macs: AtLeast0 | None
    widths: list[int]


class Cut(Struct, Left, kw_only=True, omit_defaults=True):
    """What a training in which the network gets smaller left of it. The fields are those of a slim stage's record.

    ``removed``, ``prunable``: channels. ``epochs``: what each trained, in the order of ``layers``.
    """

    removed: AtLeast0
    prunable: AtLeast1
    layers: Annotated[list[Layer], Meta(min_length=1)]
    uncounted: dict[str, int] = {}
    dense: Size
    small: Size = field(name="slim")
    epochs: list[Shape]

    def __post_init__(self) -> None:
        check_removed(self.removed, self.prunable)


def check_removed(removed: int, prunable: int) -> None:
    if removed > prunable:
        raise ValueError(f"{removed} of {prunable} channels are removed")


def check_finite(record: Struct, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} is {value}, not a finite number")


def check_positive(record: Struct, *names: str) -> None:
    check_finite(record, *names)
    for name in names:
        if (getattr(record, name) or 0) < 0:
            raise ValueError(f"{name} is {getattr(record, name)}, under 0")


def check_epochs(rows: Sequence[Mapping[str, int | float]], metric: Metric) -> None:
    """Every epoch has what any has of the metric; a classification's always has."""
    scores = {f"train_{metric.name}", f"val_{metric.name}"}
    logged = metric.name == "accuracy" or any(scores & row.keys() for row in rows)
    for number, row in enumerate(rows):
        if "epoch" not in row or (logged and not scores & row.keys()):
            raise ValueError(f"epochs[{number}] has no 'epoch' or neither train_{metric.name} nor val_{metric.name}")
        if odd := [key for key, value in row.items() if not math.isfinite(value)]:
            raise ValueError(f"epochs[{number}]: {odd[0]} is {row[odd[0]]}, not a finite number")


def check_histograms(history: Sequence[Sequence[int]], epochs: int) -> None:
    """There is none, or one of every epoch, with a number for every bin or with none."""
    if history and len(history) != epochs:
        raise ValueError(f"gamma_history has {len(history)} epochs, there are {epochs}")
    if odd := [number for number, counts in enumerate(history) if len(counts) not in (0, BINS)]:
        raise ValueError(f"gamma_history[{odd[0]}] has {len(history[odd[0]])} bins, not {BINS}")


def schema_error(path: Path, fault: str) -> ValueError:
    """The one line about a file that is not what it should be.

    >>> schema_error(Path("lab/sweep.json"), "Expected `array`, got `int` - at `$.jobs`").args[0]
    'lab/sweep.json is not as netslim writes it (Expected `array`, got `int` - at `$.jobs`); remove lab/sweep.json and run the command again'
    """  # noqa: E501
    where = path if path.name == "sweep.json" else f"the folder {path.parent}"
    return ValueError(f"{path} is not as netslim writes it ({fault}); remove {where} and run the command again")
