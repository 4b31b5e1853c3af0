"""A score per multiply-add: by hand, and what must hold for all of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netslim.engine import score_channels, select_channels
from netslim.method.scores import Connections, Magnitude
from netslim.method.scoring.layer_mean import LayerMean
from netslim.method.scoring.per_mac import PerMac
from netslim.method.scoring.random import Random


def network() -> nn.Sequential:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(1))
    model[0].weight.data, model[1].weight.data = torch.tensor([0.4, -0.2]), torch.tensor([0.5])
    return model


def costs(first: float, second: float) -> dict[str, Connections]:
    return {
        "0": Connections(torch.full((2,), first, dtype=torch.float64), ()),
        "1": Connections(torch.full((1,), second, dtype=torch.float64), ()),
    }


def test_by_hand():
    scores = PerMac(Magnitude(), power=1.0)(network(), (), 0, costs(10.0, 40.0))  # 20 on the mean
    assert scores.value["0"].tolist() == pytest.approx([0.8, 0.4])
    assert scores.value["1"].tolist() == pytest.approx([0.25])
    assert scores.unit == "|γ| / MACs^1"


@given(st.floats(1, 1e9), st.floats(1, 1e9), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_only_the_ratio_of_costs_counts_and_power_0_leaves_the_score(first, second, power):
    found, again = (PerMac(power=power)(network(), (), 0, costs(first * c, second * c)).value for c in (1, 4))
    plain = LayerMean()(network()).value
    for name, value in found.items():
        torch.testing.assert_close(again[name], value)
        if power == 0:
            torch.testing.assert_close(value, plain[name].double())
    relative = (found["0"] / plain["0"])[0] / (found["1"] / plain["1"])[0]
    assert relative.item() == pytest.approx((second / first) ** power, rel=1e-5)


def test_of_equal_scores_the_dear_channels_are_removed():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(16, 2),
    )  # fmt: skip
    for layer in (model[1], model[4]):
        layer.weight.data = torch.tensor([1.0, 1.1, 1.2, 1.3])
    x = torch.zeros(1, 1, 10, 10)
    cheap = select_channels(model, 3 / 8, x, score=PerMac(power=2.0))
    assert {name: int(kept.sum()) for name, kept in cheap.items()} == {"1": 1, "4": 4}
    assert {name: int(kept.sum()) for name, kept in select_channels(model, 3 / 8, x).items()} == {"1": 2, "4": 3}
    dealt = score_channels(model, Random(PerMac()), x, seed=1)  # a score of a score hands on what is needed
    assert sorted(dealt.value["1"].tolist()) == sorted(score_channels(model, PerMac(), x).value["1"].tolist())


@pytest.mark.parametrize("power", [-0.5, float("inf"), "half"])
def test_a_bad_power_is_refused(power):
    with pytest.raises(ValueError, match=f"power={power}: how much cost counts must be 0 or more, such as 0.5"):
        PerMac(power=power)
