"""The law of λ=auto. Oracles: arithmetic by hand, a γ that falls as its model says."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netslim.method.auto_strength import START, check_auto, has_died, last_to_die, next_strength, to_hold
from netslim.method.scales import dead, dead_share

# Nothing so small that its product with a factor or with 1 % is no normal number: there processes differ.
sizes = st.floats(-2, 2, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0)
layers = st.lists(st.lists(sizes, min_size=1, max_size=8), min_size=1, max_size=4)


def tensors(values: list[list[float]]) -> list[torch.Tensor]:
    return [torch.tensor(row) for row in values]


@given(layers, st.sampled_from([0.125, 1.0, 8.0]))
def test_dead_is_what_is_small_beside_its_layer(values, factor):
    for gamma in tensors(values):
        mean = sum(abs(float(g)) for g in gamma.double()) / len(gamma)
        for g, found in zip(gamma.tolist(), dead(gamma).tolist(), strict=True):
            assert found == (abs(g) <= 0.01 * mean) or abs(abs(g) - 0.01 * mean) < 1e-6 * mean
        assert dead(gamma * factor).tolist() == dead(gamma).tolist()
    counts = [int(dead(gamma).sum()) for gamma in tensors(values)]
    assert dead_share(tensors(values)) == sum(counts) / sum(map(len, values))


@given(st.floats(1e-8, 1e2), st.floats(0, 3), st.floats(0, 1))
def test_lambda_rises_where_the_size_is_too_large_and_by_a_factor_e_at_most(strength, size, wanted):
    found = next_strength(strength, size, wanted)
    assert strength / math.e * 0.999 <= found <= strength * math.e * 1.001
    if abs(size - wanted) < 0.5:
        assert found == pytest.approx(strength * math.exp(2 * (size - wanted)))


@pytest.mark.parametrize("epochs", [10, 40, 160])
@pytest.mark.parametrize("reach", [1e2, 1e4, 1e6])
def test_a_size_that_falls_by_what_lambda_moves_it_is_dead_when_it_should_be(epochs, reach):
    """|γ| falls by λ · reach per epoch, over four powers of ten of that: no recipe needs a λ of its own."""
    strength, size, fallen = START, 1.0, None
    for done in range(1, epochs + 1):
        size = max(0.0, size - strength * reach)
        if has_died(size) and fallen is None:
            fallen = done
        strength = next_strength(strength, size, 1 - done / epochs)
    assert has_died(size) or size < 0.2
    if reach == 1e2:  # 1e-4 moves it by a hundredth per epoch: it follows the line
        assert fallen is None or fallen > epochs / 3


def test_the_last_to_die_by_hand():
    scales, means = tensors([[0.5, -0.1], [0.02, 0.03]]), [0.5, 0.1]  # sizes 1, .2; .2, .3
    nothing = [torch.zeros(2, dtype=torch.bool)] * 2
    assert last_to_die(scales, means, nothing, 0.5) == pytest.approx(0.2)
    assert last_to_die(scales, means, nothing, 0.75) == pytest.approx(0.3)
    crossed = [torch.tensor([False, True]), torch.tensor([True, True])]
    assert last_to_die(scales, means, crossed, 0.75) == 0.0
    assert last_to_die(scales, means, nothing, 0.01) == pytest.approx(0.2)  # of one at least


@given(layers, st.floats(0.01, 0.99), st.sampled_from([1, 0.05, 0.5]))
def test_what_is_held_is_the_lowest_of_its_layer_and_leaves_the_floor(values, ratio, floor):
    held = to_hold(tensors(values), ratio, floor)
    total = sum(map(len, values))
    least = [max(1, math.ceil(floor * len(row))) if floor < 1 else floor for row in values]
    assert sum(int(mask.sum()) for mask in held) == min(
        math.floor(ratio * total + 1e-9), sum(max(0, len(row) - n) for row, n in zip(values, least, strict=True))
    )
    for mask, row, n in zip(held, values, least, strict=True):
        assert len(row) - int(mask.sum()) >= min(n, len(row))
        sizes = torch.tensor(row).abs()
        if mask.any() and (~mask).any():
            assert sizes[mask].max() <= sizes[~mask].min()


@pytest.mark.parametrize(
    ("ratio", "by", "line"),
    [(0.0, 0.5, "the ratio is 0.0; give 0 < ratio < 1"), (0.5, 1.0, "by=1.0: .* give 0 < by < 1, such as 0.5")],
)
def test_what_cannot_be_reached_is_refused(ratio, by, line):
    with pytest.raises(ValueError, match=line):
        check_auto(ratio, by)
