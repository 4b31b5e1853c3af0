"""Records of the stages beside the method: the scan before the cut, and the files for use without netslim after it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from netslim.experiment.measurements import Size, Test
from netslim.experiment.records import StageRecord


class File(Struct, kw_only=True, omit_defaults=True):
    """A file of the small network: its name in the stage's folder, what ran it, and how far its outputs were off.

    ``latency``: milliseconds for one input there, the medians; of the dense network in 32 bits. {} for tensors alone.
    """

    format: str
    name: str
    runtime: str
    deviation: float
    latency: dict[Literal["dense", "slim"], float] = {}


class Costs(Size, kw_only=True):
    """A network's size, and its latency in PyTorch: milliseconds for one input, the median; and its test."""

    latency: float
    test: Test


class ExportRecord(StageRecord, kw_only=True, omit_defaults=True):
    """What was exported, and what it costs beside the dense network, on so many CPU ``threads``."""

    dense: Costs
    small: Costs
    threads: int
    files: list[File]


class ScannedPoint(Struct, kw_only=True):
    """A ratio: the accuracy on validation data with re-estimated statistics, and what is left of the dense network."""

    ratio: float
    accuracy: float
    params: float
    macs: float


class ScanRecord(StageRecord, kw_only=True, omit_defaults=True):
    """The scan before the cut. ``accuracy``: of the dense network. ``layers``: where the weaker half of that layer
    alone is zero."""

    accuracy: float
    points: list[ScannedPoint]
    layers: dict[str, float]


BESIDE: dict[str, type[StageRecord]] = {"export": ExportRecord, "scan": ScanRecord}  # kind of stage -> its record
