"""What a test on a limited number of images can tell: intervals of shares, and of their differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from netslim.experiment.records import Test

Z = 1.959964  # two-sided 95 %


@dataclass(frozen=True)
class Share:
    """``correct`` of ``total`` images; over several seeds ``correct`` is their mean, on the one test set they share."""

    correct: float
    total: int

    @property
    def value(self) -> float:
        return self.correct / self.total


def share(tests: Sequence[Test]) -> Share | None:
    """The mean of several tests on one test set; None when they did not count images, or not the same number."""
    counts = [(test.correct, test.total) for test in tests if test.correct is not None and test.total]
    if not counts or len(counts) < len(tests) or len({total for _, total in counts}) > 1:
        return None
    return Share(sum(correct for correct, _ in counts) / len(counts), counts[0][1])


def wilson(found: Share) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927): bounds in 0..1, never an empty interval.

    >>> [round(bound, 4) for bound in wilson(Share(81, 263))]
    [0.2553, 0.3662]
    """
    p, n = found.value, found.total
    middle, reach = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return (middle - reach) / (1 + Z * Z / n), (middle + reach) / (1 + Z * Z / n)


def difference(a: Share, b: Share) -> tuple[float, float]:
    """The 95 % interval of a − b (Newcombe, Stat. Med. 17, 1998, method 10): the images are taken as drawn anew for
    each, so for networks tested on the same images it is wider than need be.

    >>> [round(bound, 4) for bound in difference(Share(56, 70), Share(48, 80))]
    [0.0524, 0.3339]
    """
    (low_a, high_a), (low_b, high_b) = wilson(a), wilson(b)
    apart = a.value - b.value
    down = math.hypot(a.value - low_a, high_b - b.value)
    up = math.hypot(high_a - a.value, b.value - low_b)
    return apart - down, apart + up


def distinct(a: Share, b: Share) -> bool:
    """Whether the images can tell the two shares apart."""
    low, high = difference(a, b)
    return not low <= 0 <= high
