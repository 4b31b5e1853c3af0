"""When the channels are removed: the door ``Schedule``, and one shot, as in the paper (section 3).

netslim schedule=one_shot     all at once, after the training
netslim schedule=passes       in several rounds, with sparsity training between them      passes.py
netslim schedule=gradual      while the network trains                                    gradual.py
"""

from __future__ import annotations

import itertools
from typing import Protocol


class Schedule(Protocol):
    """Which share of the dense network's prunable channels is gone when. Another schedule is a class with these.

    most: the largest share of a layer that one cut removes; default all of it.
    stable: a ramp inside the training ends early, when what its end would keep and what it would have kept three epochs
        before are alike by more than this (``jaccard`` in ramp.py); default None, never.

    >>> class Halves(Schedule):  # two rounds of slimming and fine-tuning
    ...     def rounds(self, ratio):
    ...         return (ratio / 2, ratio)
    >>> Halves().rounds(0.5), Halves().during(0.5, epoch=3, epochs=10), Halves().between(10)
    ((0.25, 0.5), 0.0, 0)
    """

    most: float = 1.0
    stable: float | None = None

    def rounds(self, ratio: float) -> tuple[float, ...]:
        """The share gone after each round of slimming: rising, the last one is ``ratio``. None, where all of it is
        done inside the training."""
        ...

    def during(self, ratio: float, epoch: int, epochs: int) -> float:
        """The share gone at the end of an epoch (0 .. epochs - 1) inside the sparsity training; 0 by default."""
        return 0.0

    def between(self, epochs: int) -> int:
        """Epochs of sparsity training after each round but the last, in place of fine-tuning there; 0 by default.

        epochs: of the first training.
        """
        return 0


class OneShot(Schedule):
    """All channels at once, after the training.

    >>> OneShot().rounds(0.5)
    (0.5,)
    """

    def rounds(self, ratio: float) -> tuple[float, ...]:
        return (ratio,)


def sparse_epochs(schedule: Schedule, epochs: int) -> int:
    """``between`` of a schedule that may be without: it only has to have ``rounds`` and ``during``."""
    return int(schedule.between(epochs)) if hasattr(schedule, "between") else 0


def most_per_cut(schedule: Schedule) -> float:
    """``most`` of a schedule that may be without."""
    return float(getattr(schedule, "most", 1.0))


def stable_from(schedule: Schedule) -> float | None:
    """``stable`` of a schedule that may be without."""
    return getattr(schedule, "stable", None)


def check_schedule(schedule: Schedule, ratio: float, epochs: int) -> None:
    """Raise ValueError, before anything is computed, where a schedule asks for what cannot be done."""
    name, rounds = type(schedule).__name__, tuple(schedule.rounds(ratio))
    inside = [schedule.during(ratio, epoch, epochs) for epoch in range(epochs)]
    early = next((epoch for epoch, share in enumerate(inside) if share > 0), None)
    if not rounds and (early is not None or epochs < 2):
        check_inside(schedule, ratio, epochs)
        return
    rising = all(0 <= a < b for a, b in itertools.pairwise(rounds))
    if not rounds or not rising or abs(rounds[-1] - ratio) > 1e-12:
        raise ValueError(f"{name}.rounds({ratio:g}) is {rounds}; it must rise and end with the ratio")
    if early is not None:
        raise ValueError(
            f"{name} removes channels inside the training (epoch {early + 1}) and in rounds after it; choose one: let "
            "rounds be () or during 0"
        )


def check_inside(schedule: Schedule, share: float, epochs: int, *, of_channels: bool = True) -> None:
    """Raise ValueError where a schedule does not remove a share inside a training of so many epochs.

    of_channels: whether it is a share of the channels, of which one cut removes at most ``most``.
    """
    name, most = type(schedule).__name__, most_per_cut(schedule)
    inside = [schedule.during(share, epoch, epochs) for epoch in range(epochs)]
    if epochs < 2:
        raise ValueError(f"epochs={epochs}: a network that shrinks at epoch ends ({name}) needs at least 2")
    if any(a > b for a, b in itertools.pairwise(inside)) or abs(inside[-1] - share) > 1e-12:
        raise ValueError(
            f"{name}.during({share:g}, ...) ends with {inside[-1]:g} after {epochs} epochs; it must rise and end with "
            "what is asked for"
        )
    cuts = sum(gone > 0 for gone in inside)
    if of_channels and (1 - most) ** cuts > 1 - share + 1e-12:
        raise ValueError(
            f"epochs={epochs}: {cuts} cuts of at most {100 * most:g} % of a layer remove at most "
            f"{100 * (1 - (1 - most) ** cuts):.4g} %, not {100 * share:.4g} %; train for more epochs"
        )
