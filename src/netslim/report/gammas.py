"""The |γ| of one training, as numbers for tables and sentences."""

from __future__ import annotations

from netslim.experiment.records import TrainRecord


def scales(train: TrainRecord) -> list[float]:
    """|γ| of all BatchNorm layers of one trained network, as one list."""
    return [abs(value) for layer in train.scales.values() for value in layer]


def share_under(train: TrainRecord, bound: float) -> float:
    """Share of the |γ| strictly under ``bound``, 0..1; nan when the record has no γ."""
    values = scales(train)
    return sum(value < bound for value in values) / len(values) if values else float("nan")
