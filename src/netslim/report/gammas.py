"""The |γ| of one training, as numbers for tables and sentences."""

from __future__ import annotations

from statistics import fmean

from netslim.experiment.records import TrainRecord
from netslim.method.scale_bins import DEAD


def scales(train: TrainRecord) -> list[float]:
    """|γ| of all BatchNorm layers of one trained network, as one list."""
    return [abs(value) for layer in train.scales.values() for value in layer]


def dead_share(train: TrainRecord) -> float:
    """Share of the γ that are dead, at most 1 % of their layer's mean |γ|, 0..1; nan when the record has no γ."""
    layers = [[abs(value) for value in layer] for layer in train.scales.values() if layer]
    dead = sum(value <= DEAD * fmean(layer) for layer in layers for value in layer)
    count = sum(map(len, layers))
    return dead / count if count else float("nan")


def share_under(train: TrainRecord, bound: float) -> float:
    """Share of the |γ| strictly under ``bound``, 0..1; nan when the record has no γ."""
    values = scales(train)
    return sum(value < bound for value in values) / len(values) if values else float("nan")
