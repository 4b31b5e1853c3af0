"""The threshold against a slow second implementation and the paper's arithmetic."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netslim.method.threshold import threshold

gammas = st.sampled_from([0.0, 0.1, -0.1, 0.25, 0.5, -0.5, 0.7])  # few values, so that ties are the rule
layers = st.lists(st.lists(gammas, min_size=1, max_size=6), min_size=1, max_size=5)
percents = st.integers(0, 99)


def named(values: list[list[float]]) -> dict[str, torch.Tensor]:
    return {f"bn{i}": torch.tensor(row) for i, row in enumerate(values)}


def slow(values: list[list[float]], percent: int, floor: int, most: float = 1.0) -> list[list[bool]] | None:
    """Remove the lowest remaining |γ| one at a time; None where floor and most leave too few."""
    keep = [[True] * len(row) for row in values]
    for _ in range(Fraction(percent, 100) * sum(map(len, values)) // 1):
        best = None
        for i, row in enumerate(values):
            for j, gamma in enumerate(row):
                may = sum(keep[i]) > floor and keep[i].count(False) + 1 <= Fraction(most) * len(row)
                if keep[i][j] and may and (best is None or abs(gamma) < best[0]):
                    best = (abs(gamma), i, j)
        if best is None:
            return None
        keep[best[1]][best[2]] = False
    return keep


@given(layers, percents, st.integers(0, 3))
def test_equals_slow_implementation(values: list[list[float]], percent: int, floor: int) -> None:
    expected = slow(values, percent, floor)
    if expected is None:
        with pytest.raises(ValueError, match="highest reachable ratio"):
            threshold(named(values), percent / 100, floor=floor)
    else:
        assert [k.tolist() for k in threshold(named(values), percent / 100, floor=floor).values()] == expected


@given(layers, percents, st.integers(0, 3), st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0]))
def test_a_layer_loses_at_most_its_share(values: list[list[float]], percent: int, floor: int, most: float) -> None:
    expected = slow(values, percent, floor, most)
    if expected is None:
        with pytest.raises(ValueError, match="highest reachable ratio"):
            threshold(named(values), percent / 100, floor=floor, most=most)
    else:
        found = threshold(named(values), percent / 100, floor=floor, most=most)
        assert [k.tolist() for k in found.values()] == expected


@pytest.mark.parametrize("most", [0, 1.5, -0.5, "half"])
def test_a_cap_that_is_no_share_is_refused(most: object) -> None:
    with pytest.raises(ValueError, match=f"most={most} is no share of a layer; give more than 0 and at most 1"):
        threshold({"a": torch.ones(2)}, 0.5, most=most)  # type: ignore[arg-type]


@given(layers, percents, percents)
def test_removed_set_grows_with_the_ratio(values: list[list[float]], a: int, b: int) -> None:
    low, high = (threshold(named(values), p / 100, floor=0) for p in sorted((a, b)))
    assert all(not (high[name] & ~low[name]).any() for name in low)


@given(layers, percents, st.lists(st.integers(-1, 4), min_size=30, max_size=30))
def test_groups_leave_together(values: list[list[float]], percent: int, numbers: list[int]) -> None:
    numbers_of, start = {}, 0
    for name, gamma in named(values).items():
        numbers_of[name] = torch.tensor(numbers[start : start + len(gamma)])
        start += len(gamma)
    keep = threshold(named(values), percent / 100, floor=0, groups=numbers_of)
    together = {}
    for name, stays in keep.items():
        for number, stay in zip(numbers_of[name].tolist(), stays.tolist(), strict=True):
            assert stay or number != -1
            assert number == -1 or together.setdefault(number, stay) == stay
    total = sum(int((n >= 0).sum()) for n in numbers_of.values())
    assert sum(int((~k).sum()) for k in keep.values()) <= percent * total / 100


@given(layers, percents)
def test_rounded_layers_are_multiples_or_full(values: list[list[float]], percent: int) -> None:
    plain = threshold(named(values), percent / 100, floor=0)
    rounded = threshold(named(values), percent / 100, floor=0, round_to=4)
    for name, stays in rounded.items():
        n, before = int(stays.sum()), int(plain[name].sum())
        assert n == min(-(-before // 4) * 4, len(stays))
        assert (stays | ~plain[name]).all()


def test_exactly_k_with_decimal_ratios() -> None:
    gamma = torch.arange(100.0)
    for percent in range(100):
        assert int((~threshold({"bn": gamma}, percent / 100)["bn"]).sum()) == percent
    ten = {"bn": torch.arange(10.0)}
    assert int((~threshold(ten, 0.1 + 0.2)["bn"]).sum()) == 3
    assert int((~threshold(ten, 1 - 0.9)["bn"]).sum()) == 1


def test_untrained_network_loses_what_was_asked_and_no_more() -> None:
    """Every γ at 0.5: the authors' `gamma > threshold` keeps nothing at any ratio; here k channels go, in order."""
    keep = threshold({"a": torch.full((4,), 0.5), "b": torch.full((4,), 0.5)}, 0.5)
    assert keep["a"].tolist() == [False, False, False, True]  # the floor keeps one
    assert keep["b"].tolist() == [False, True, True, True]


def test_floor_makes_the_ratio_unreachable() -> None:
    scales = {"a": torch.rand(4), "b": torch.rand(4)}
    with pytest.raises(ValueError, match=r"ratio 0.9 would remove 7 of 8 .* highest reachable ratio is 0.75"):
        threshold(scales, 0.9)
    assert sum(int(k.sum()) for k in threshold(scales, 0.75).values()) == 2


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_ratio_outside_range(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\)"):
        threshold({"a": torch.rand(4)}, ratio)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="'a' holds NaN"):
        threshold({"a": torch.tensor([1.0, float("nan")])}, 0.5)
    with pytest.raises(ValueError, match="floor"):
        threshold({"a": torch.rand(4)}, 0.5, floor=-1)
    with pytest.raises(ValueError, match="round_to"):
        threshold({"a": torch.rand(4)}, 0.5, round_to=0)
    with pytest.raises(ValueError, match="no BatchNorm"):
        threshold({}, 0.5)


def test_a_floor_is_a_share_of_each_layer_or_a_number_of_each():
    scales = {"a": torch.linspace(0.01, 0.02, 10), "b": torch.linspace(1, 2, 30)}  # all of a is below all of b
    kept = threshold(scales, 0.4, floor=0.25)  # a keeps ceil(2.5)
    assert kept["a"].tolist() == [False] * 7 + [True] * 3
    assert int((~kept["b"]).sum()) == 16 - 7
    kept = threshold(scales, 0.5, floor={"a": 6, "b": 0})
    assert [int(mask.sum()) for mask in kept.values()] == [6, 14]
    with pytest.raises(ValueError, match=r"with their floors kept per layer only 4 can be removed: .* 0\.1$"):
        threshold(scales, 0.5, floor={"a": 6, "b": 30})


def test_where_the_floor_is_no_error_as_many_are_removed_as_can_be():
    scales = {"a": torch.tensor([0.1, 0.2, 0.3]), "b": torch.tensor([0.4, 0.5])}
    kept = threshold(scales, 0.9, floor=2, strict=False)
    assert [mask.tolist() for mask in kept.values()] == [[False, True, True], [True, True]]
    full = threshold(scales, 0.2, floor=2)
    assert all(torch.equal(kept[name], full[name]) for name in scales)
