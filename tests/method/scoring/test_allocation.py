"""|γ| over the layer's mean, and the controls uniform and random: by hand, and what must hold for all γ."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netslim.method.scores import Magnitude
from netslim.method.scoring.layer_mean import LayerMean
from netslim.method.scoring.random import Random
from netslim.method.scoring.uniform import Uniform
from netslim.method.threshold import remove_lowest

sizes = st.lists(st.floats(-2.0, 2.0, width=32).filter(lambda g: abs(g) > 1e-3), min_size=1, max_size=9, unique_by=abs)
layers = st.lists(sizes, min_size=1, max_size=4)


def network(values: list[list[float]]) -> nn.Sequential:
    model = nn.Sequential(*(nn.BatchNorm1d(len(row)) for row in values))
    for layer, row in zip(model, values, strict=True):
        layer.weight.data = torch.tensor(row)  # type: ignore[operator]
    return model


def test_by_hand():
    model = network([[0.01, -0.03, 0.02], [0.5, -0.3, 0.1, 0.9]])
    by_mean, places = LayerMean()(model), Uniform()(model)
    assert by_mean.value["0"].tolist() == pytest.approx([0.5, 1.5, 1.0])
    assert by_mean.value["1"].tolist() == pytest.approx([0.5 / 0.45, 0.3 / 0.45, 0.1 / 0.45, 2.0])
    assert places.value["0"].tolist() == pytest.approx([1 / 6, 5 / 6, 3 / 6])
    assert places.value["1"].tolist() == pytest.approx([5 / 8, 3 / 8, 1 / 8, 7 / 8])


@pytest.mark.parametrize("score", [LayerMean(), Uniform(), Random()], ids=lambda score: type(score).__name__)
def test_what_is_dead_stays_so_and_a_layer_of_zeros_is_no_error(score):
    scores = score(network([[0.0, 0.0], [0.5, 0.0]]))
    assert {name: dead.tolist() for name, dead in scores.dead.items()} == {"0": [True, True], "1": [False, True]}
    assert all(value.isfinite().all() for value in scores.value.values())


@given(layers, st.lists(st.sampled_from([2.0**-8, 0.5, 1.0, 4.0]), min_size=4, max_size=4))
def test_layer_mean_does_not_see_how_large_a_layer_is(values, factors):
    scaled = [[c * gamma for gamma in row] for row, c in zip(values, factors, strict=False)]
    before, after = LayerMean()(network(values)), LayerMean()(network(scaled))
    for name, value in before.value.items():
        assert torch.equal(value, after.value[name])  # powers of two
        assert value.mean().item() == pytest.approx(1, rel=1e-5)


@given(layers, st.integers(0, 99))
def test_uniform_removes_the_ratio_of_every_layer_and_its_lowest(values, percent):
    keep = remove_lowest(Uniform()(network(values)).value, percent / 100, floor=0)
    for kept, row in zip(keep.values(), values, strict=True):
        removed = int((~kept).sum())
        assert abs(removed - percent / 100 * len(row)) < 2
        lowest = sorted(range(len(row)), key=lambda place: abs(row[place]))[:removed]
        assert sorted(torch.nonzero(~kept).flatten().tolist()) == sorted(lowest)


@given(layers, st.integers(0, 99), st.integers(0, 9))
def test_random_removes_as_many_of_every_layer_as_the_other_score(values, percent, seed):
    model, floor = network(values), 1
    ratio = percent / 100 * max(0, sum(map(len, values)) - len(values)) / sum(map(len, values))
    dealt, sizes = Random()(model, seed=seed), Magnitude()(model)
    expected = remove_lowest(sizes.value, ratio, floor=floor)
    found = remove_lowest(dealt.value, ratio, floor=floor)
    for name, value in dealt.value.items():
        assert sorted(value.tolist()) == sorted(sizes.value[name].tolist())
        assert int(found[name].sum()) == int(expected[name].sum())


def test_random_follows_the_seed_and_needs_what_the_other_score_needs():
    model = network([[float(i) for i in range(1, 50)]])
    first, again, other = (Random()(model, seed=seed).value["0"].tolist() for seed in (1, 1, 2))
    assert first == again != other
    hungry = Magnitude()
    object.__setattr__(hungry, "needs_data", True)
    assert (Random().needs_data, Random(hungry).needs_data) == (False, True)
