"""The schedule of a network that gets smaller while it trains."""

from __future__ import annotations

from dataclasses import dataclass

from netslim.method.ramp import check_ramp, check_stable, cubic_ramp
from netslim.method.schedules import Schedule
from netslim.method.threshold import check_most


@dataclass(frozen=True)
class Gradual(Schedule):
    """A few channels at the end of each epoch, along a cubic ramp over a part of the training; nothing after it.

    Args:
        start, end: the ramp, as shares of the epochs.
        most: the largest share of a layer that one cut removes; what it leaves over, the next cut removes.
        stable: end the ramp early, all that is left at once, when what its end would keep and what it would have kept
            three epochs before are alike by more than this (``jaccard``), such as 0.999; default None, never.

    Raises:
        ValueError: the ramp does not lie in the training, or another number is none.

    >>> gradual = Gradual(start=0.0, end=0.5)
    >>> gradual.rounds(0.9), [round(gradual.during(0.9, epoch, epochs=8), 3) for epoch in range(5)]
    ((), [0.52, 0.787, 0.886, 0.9, 0.9])
    """

    start: float = 0.05
    end: float = 0.5
    most: float = 0.5
    stable: float | None = None

    def __post_init__(self) -> None:
        check_ramp(self.start, self.end)
        check_most(self.most)
        check_stable(self.stable)

    def rounds(self, ratio: float) -> tuple[float, ...]:
        return () if ratio else (0.0,)

    def during(self, ratio: float, epoch: int, epochs: int) -> float:
        return ratio * cubic_ramp(epoch, epochs, self.start, self.end)
