"""The |γ| of one training, as numbers for tables and sentences."""

from __future__ import annotations

import itertools

import numpy as np

from netslim.experiment.records import TrainRecord
from netslim.method.scale_bins import DEAD


def scales(train: TrainRecord) -> list[float]:
    """|γ| of all BatchNorm layers of one trained network, as one list."""
    return [abs(value) for layer in train.scales.values() for value in layer]


def dead_share(train: TrainRecord) -> float:
    """Share of the γ that are dead, at most 1 % of their layer's mean |γ|, 0..1; nan when the record has no γ."""
    layers = [abs(np.array(layer)) for layer in train.scales.values() if layer]
    dead = sum(int((layer <= DEAD * layer.mean()).sum()) for layer in layers)
    count = sum(map(len, layers))
    return dead / count if count else float("nan")


def share_under(train: TrainRecord, bound: float) -> float:
    """Share of the |γ| strictly under ``bound``, 0..1; nan when the record has no γ."""
    values = np.fromiter(itertools.chain.from_iterable(train.scales.values()), dtype=float)
    return int((abs(values) < bound).sum()) / len(values) if len(values) else float("nan")
