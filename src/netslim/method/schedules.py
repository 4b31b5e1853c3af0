"""When the channels are removed: the door ``Schedule``, and one shot, as in the paper (section 3)."""

from __future__ import annotations

import itertools
from typing import Protocol


class Schedule(Protocol):
    """Which share of the dense network's prunable channels is gone when. Another schedule is a class with these two.

    >>> class Halves(Schedule):  # two rounds of slimming and fine-tuning
    ...     def rounds(self, ratio):
    ...         return (ratio / 2, ratio)
    >>> Halves().rounds(0.5), Halves().during(0.5, epoch=3, epochs=10)
    ((0.25, 0.5), 0.0)
    """

    def rounds(self, ratio: float) -> tuple[float, ...]:
        """The share gone after each round of slimming and fine-tuning: rising, the last one is ``ratio``."""
        ...

    def during(self, ratio: float, epoch: int, epochs: int) -> float:
        """The share gone at the end of an epoch (0 .. epochs - 1) inside the sparsity training; 0 by default."""
        return 0.0


class OneShot(Schedule):
    """All channels at once, after the training.

    >>> OneShot().rounds(0.5)
    (0.5,)
    """

    def rounds(self, ratio: float) -> tuple[float, ...]:
        return (ratio,)


def check_schedule(schedule: Schedule, ratio: float, epochs: int) -> None:
    """Raise ValueError, before anything is computed, where a schedule asks for what cannot be done."""
    name, rounds = type(schedule).__name__, tuple(schedule.rounds(ratio))
    rising = all(0 <= a < b for a, b in itertools.pairwise(rounds))
    if not rounds or not rising or abs(rounds[-1] - ratio) > 1e-12:
        raise ValueError(f"{name}.rounds({ratio:g}) is {rounds}; it must rise and end with the ratio")
    early = next((epoch for epoch in range(epochs) if schedule.during(ratio, epoch, epochs) > 0), None)
    if early is not None:
        raise ValueError(
            f"{name} removes channels inside the training (epoch {early + 1}), which is not built; give rounds only"
        )
