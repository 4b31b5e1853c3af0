"""The variance score. Oracles: numerical integration, loops over weights, and what must not change it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netslim.engine import score_channels, select_channels
from netslim.method.scoring.variance import Variance, rectified_variance

X = torch.zeros(1, 2, 6, 6)


def network(scale: float = 1.0) -> nn.Sequential:
    """scale: what the first BN layer is multiplied by; the statistics behind it are those of the function."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3, eps=0.0), nn.ReLU(),
        nn.Flatten(), nn.Linear(12, 2),
    ).double()  # fmt: skip
    for layer in (model[1], model[4]):
        layer.weight.data.uniform_(-1, 1)
        layer.bias.data.normal_()
        layer.running_var.uniform_(0.5, 2)
    model[1].weight.data *= scale
    model[1].bias.data *= scale
    model[4].running_var *= scale**2
    return model.eval()


@given(st.floats(-2, 2), st.floats(-3, 3))
def test_the_variance_behind_relu_is_the_integral(gamma, beta):
    z = np.linspace(-9, 9, 40001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    value = np.maximum(0, beta + abs(gamma) * z)
    expected = (value**2 * density).sum() - (value * density).sum() ** 2
    found = rectified_variance(torch.tensor([gamma]), torch.tensor([beta]))
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_the_score_is_the_share_of_the_readers_variance():
    model = network()
    scores = score_channels(model, Variance(), X.double()).value
    first, second = (rectified_variance(model[i].weight.detach(), model[i].bias).tolist() for i in (1, 4))
    weight, spread = model[3].weight.detach(), model[4].running_var
    for j, score in enumerate(scores["1"].tolist()):
        terms = [weight[i, j].square().sum().item() * first[j] / spread[i].item() for i in range(3)]
        assert score == pytest.approx(sum(terms))
    head = model[7].weight.detach().reshape(2, 3, 4).square().sum(2)  # no BatchNorm behind it
    for j, score in enumerate(scores["4"].tolist()):
        terms = [head[i, j].item() * second[j] for i in range(2)]
        whole = [sum(head[i, k].item() * second[k] for k in range(3)) for i in range(2)]
        assert score == pytest.approx(sum(t / w for t, w in zip(terms, whole, strict=True)))


@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_it_does_not_see_how_large_a_layer_is(scale):
    before, after = (score_channels(network(c), Variance(), X.double()).value for c in (1.0, scale))
    torch.testing.assert_close(after, before)


def test_the_library_hands_it_what_it_needs():
    keep = select_channels(network(), 3 / 7, X.double(), score=Variance())
    scores = keep.scores
    assert scores is not None
    assert scores.unit == "share of variance"
    kept, removed = (torch.cat([scores.value[n][k if which else ~k] for n, k in keep.items()]) for which in (1, 0))
    assert len(removed) == 3
    assert removed.max() < kept.min()
