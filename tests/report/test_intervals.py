"""Oracle: the examples of Newcombe's two papers in Statistics in Medicine 17 (1998), pages 857 and 873."""

from __future__ import annotations

import pytest

from netslim.experiment.records import Test
from netslim.report import intervals
from netslim.report.intervals import Share


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_s_interval(correct: int, total: int, low: float, high: float) -> None:
    assert intervals.wilson(Share(correct, total)) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_newcombe_s_interval_of_a_difference(a: tuple[int, int], b: tuple[int, int], low: float, high: float) -> None:
    assert intervals.difference(Share(*a), Share(*b)) == pytest.approx((low, high), abs=5e-5)


def test_shares_are_distinct_when_the_interval_leaves_zero_out() -> None:
    assert intervals.distinct(Share(56, 70), Share(48, 80))
    assert not intervals.distinct(Share(330, 364), Share(326, 364))


def test_several_seeds_count_as_one_test_set() -> None:
    tests = [Test(correct=900, total=1000), Test(correct=910, total=1000)]
    assert intervals.share(tests) == Share(905.0, 1000)
    assert intervals.share([*tests, Test(value=0.5)]) is None
    assert intervals.share([*tests, Test(correct=1, total=2)]) is None
    assert intervals.share([]) is None
