"""The schedule of the paper's multi-pass scheme (section 3, table 4)."""

from __future__ import annotations

from dataclasses import dataclass

from netslim.method.schedules import Schedule
from netslim.method.threshold import is_number


@dataclass(frozen=True)
class Passes(Schedule):
    """Several rounds, each with the same share of what is left; sparsity training between them, fine-tuning at the end.

    The rule that one pass removes at most half of a layer is the paper's (Liu et al. 2017, with table 4).

    Args:
        passes: how many rounds.
        epochs: of each further sparsity training; None: as many as the first has.
        most: the largest share of a layer that one pass removes.

    Raises:
        ValueError: from ``rounds``, where so many passes cannot remove the ratio.

    >>> [round(share, 3) for share in Passes(passes=2).rounds(0.75)]
    [0.5, 0.75]
    >>> Passes(passes=3).rounds(0.9)
    Traceback (most recent call last):
    ValueError: 3 passes of at most 50 % of a layer each remove at most 87.5 %, not 90 %; give schedule.passes=4
    """

    passes: int = 4
    epochs: int | None = None
    most: float = 0.5

    def __post_init__(self) -> None:
        if not (isinstance(self.passes, int) and self.passes >= 1):
            raise ValueError(f"schedule.passes={self.passes} is no number of rounds; give 1 or more")
        if self.epochs is not None and not (isinstance(self.epochs, int) and self.epochs >= 1):
            raise ValueError(f"schedule.epochs={self.epochs} is no number of epochs between the passes; give 1 or more")
        if not (is_number(self.most) and 0 < self.most < 1):
            raise ValueError(f"schedule.most={self.most} is no share of a layer; give one between 0 and 1, such as 0.5")

    def rounds(self, ratio: float) -> tuple[float, ...]:
        if not 0 < ratio < 1:
            return (ratio,)
        kept = 1 - self.most
        if (1 - ratio) < kept**self.passes - 1e-12:
            enough = next(n for n in range(self.passes, 10_000) if kept**n <= 1 - ratio)
            raise ValueError(
                f"{self.passes} passes of at most {100 * self.most:.4g} % of a layer each remove at most "
                f"{100 * (1 - kept**self.passes):.4g} %, not {100 * ratio:.4g} %; give schedule.passes={enough}"
            )
        shares = (1 - (1 - ratio) ** (n / self.passes) for n in range(1, self.passes))
        return (*(round(share, 4) for share in shares), ratio)  # they are in the names of folders

    def between(self, epochs: int) -> int:
        return self.epochs or epochs
