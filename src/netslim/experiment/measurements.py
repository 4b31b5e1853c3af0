"""What records are made of: a metric, a test, a run, a layer, a network's size."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from msgspec import Meta, Struct

AtLeast0 = Annotated[int, Meta(ge=0)]
AtLeast1 = Annotated[int, Meta(ge=1)]


class Metric(Struct, frozen=True):
    """What a task is judged by: its name in the log, which direction is better, how a value is written."""

    name: str = "accuracy"
    direction: Literal["max", "min"] = "max"
    format: str = ".1%"


class Test(Struct, omit_defaults=True):
    """One pass over the test set: ``correct`` of ``total`` images, or the ``value`` of another metric."""

    __test__ = False  # no test of pytest's

    correct: AtLeast0 | None = None
    total: AtLeast1 | None = None
    loss: float | None = None
    value: float | None = None

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


class Run(Struct, kw_only=True):
    """When, where and how long a stage ran, of what command."""

    started: str
    seconds: float
    command: str
    versions: dict[str, str]
    hardware: str

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


class Measured(Struct, kw_only=True):
    """A network's size, for one input, and its test."""

    params: AtLeast1
    macs: AtLeast0
    test: Test


class Recalibrated(Struct):
    test: Test  # of the slim network after its BatchNorm statistics were estimated anew


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
