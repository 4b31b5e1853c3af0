"""When channels are removed. Oracles: Zhu & Gupta's equation 1 as it is printed, sets, shares multiplied out."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netslim.method.gradual import Gradual
from netslim.method.passes import Passes
from netslim.method.ramp import cubic_ramp, jaccard
from netslim.method.schedules import OneShot, Schedule, check_schedule, most_per_cut, sparse_epochs, stable_from

shares = st.floats(0, 1, allow_nan=False)
selections = st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 5), unique=True), max_size=3)


@given(st.integers(1, 60), shares, shares, st.floats(0.01, 0.99))
def test_the_ramp_is_equation_1(epochs: int, one: float, other: float, ratio: float) -> None:
    """s_t = s_f + (s_i − s_f)(1 − (t − t_0)/(nΔt))³ from t_0 to t_0 + nΔt; here s_i = 0, and t the epochs done."""
    start, end = min(one, other), max(one, other)
    if end - start < 1e-3:
        return
    for epoch in range(epochs):
        t, t_0, span = epoch + 1, start * epochs, (end - start) * epochs
        expected = 0.0 if t < t_0 else ratio if t > t_0 + span else ratio + (0 - ratio) * (1 - (t - t_0) / span) ** 3
        assert Gradual(start, end).during(ratio, epoch, epochs) == pytest.approx(expected, abs=1e-9)
    assert cubic_ramp(epochs - 1, epochs, start, end) == 1.0


@given(selections, selections)
def test_likeness_counts_the_channels_of_both_and_of_any(
    one: dict[str, list[int]], other: dict[str, list[int]]
) -> None:
    places = [(name, channel) for name in "abc" for channel in range(6)]
    both = sum(c in one.get(n, []) and c in other.get(n, []) for n, c in places)
    some = sum(c in one.get(n, []) or c in other.get(n, []) for n, c in places)
    assert jaccard(one, other) == (both / some if some else 1.0)


@pytest.mark.parametrize("passes", [2, 3, 5])
def test_every_pass_removes_the_same_share_of_what_is_left(passes: int) -> None:
    rounds = Passes(passes, most=0.9).rounds(0.75)
    kept = [1.0, *(1 - share for share in rounds)]
    left = [after / before for before, after in pairwise(kept)]
    assert left == pytest.approx([0.25 ** (1 / passes)] * passes, abs=1e-3)
    assert rounds[-1] == 0.75
    assert (sparse_epochs(Passes(passes), 7), sparse_epochs(Passes(passes, epochs=3), 7)) == (7, 3)


class Bare:
    """A schedule of one's own that has only what it must have."""

    def rounds(self, ratio: float) -> tuple[float, ...]:
        return (ratio,)

    def during(self, ratio: float, epoch: int, epochs: int) -> float:
        return 0.0


class Falling(Gradual):
    def during(self, ratio: float, epoch: int, epochs: int) -> float:
        return ratio / (epoch + 1)


def test_a_schedule_may_be_without_what_has_a_default() -> None:
    assert (most_per_cut(Bare()), stable_from(Bare()), sparse_epochs(Bare(), 9)) == (1.0, None, 0)  # type: ignore[arg-type]
    check_schedule(Bare(), 0.5, 3)  # type: ignore[arg-type]
    check_schedule(OneShot(), 0.5, 0)
    check_schedule(Gradual(), 0.5, 2)


@pytest.mark.parametrize(
    ("schedule", "epochs", "message"),
    [
        (Gradual(), 0, r"epochs=0: a network that shrinks at epoch ends \(Gradual\) needs at least 2"),
        (Gradual(), 1, "epochs=1: a network that shrinks"),
        (Falling(), 5, r"Falling.during\(0.5, ...\) ends with 0.1 after 5 epochs; it must rise"),
        (Gradual(most=0.1), 4, "4 cuts of at most 10 % of a layer remove at most 34.39 %, not 50 %"),
    ],
)
def test_what_cannot_be_is_refused(schedule: Schedule, epochs: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_schedule(schedule, 0.5, epochs)


@pytest.mark.parametrize("stable", [1.0, -0.1, "0.9", float("nan")])
def test_a_similarity_is_a_share(stable: float) -> None:
    with pytest.raises(ValueError, match=f"stable={stable} is no similarity; give 0 ≤ stable < 1, such as 0.999"):
        Gradual(stable=stable)
