"""Oracles: autograd of λ·Σ|γ|, Python arithmetic, the schedule summed step by step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netslim.method import penalties, scales
from netslim.modules import bn_layers


def test_all_kinds_of_batchnorm_are_found_and_nothing_else():
    model = nn.Sequential(
        nn.BatchNorm1d(2),
        nn.BatchNorm2d(3),
        nn.BatchNorm3d(4),
        nn.SyncBatchNorm(5),
        nn.InstanceNorm2d(6, affine=True),
        nn.GroupNorm(1, 7),
        nn.LayerNorm(8),
        nn.BatchNorm2d(9, affine=False),
    )
    assert list(bn_layers(model)) == ["0", "1", "2", "3"]
    assert [len(gamma) for gamma in scales.bn_scales(model)] == [2, 3, 4, 5]


def test_a_shared_layer_counts_once_and_a_frozen_one_not():
    shared, frozen = nn.BatchNorm1d(2), nn.BatchNorm1d(3)
    frozen.weight.requires_grad_(False)
    assert scales.bn_scales(nn.Sequential(shared, nn.ReLU(), shared, frozen)) == [shared.weight]


@given(
    layers=st.lists(
        st.lists(st.sampled_from([-2.0, -1e-8, 0.0, 1e-8, 0.5]), min_size=1, max_size=5), min_size=1, max_size=4
    ),
    strength=st.floats(0, 10),
)
def test_subgradient_equals_autograd_of_the_l1_term(layers, strength):
    ours = [nn.Parameter(torch.tensor(values, dtype=torch.float64)) for values in layers]
    theirs = [nn.Parameter(gamma.detach().clone()) for gamma in ours]
    for gamma in (*ours, *theirs):
        gamma.grad = torch.full_like(gamma, 0.25)
    penalties.add_l1_subgradient(ours, strength)
    (strength * sum(gamma.abs().sum() for gamma in theirs)).backward()
    for mine, oracle in zip(ours, theirs, strict=True):
        assert torch.equal(mine.grad, oracle.grad)


def test_a_scale_without_gradient_gets_the_penalty_and_the_scale_may_be_a_tensor():
    gamma = nn.Parameter(torch.tensor([3.0, -3.0]))
    penalties.add_l1_subgradient([gamma], torch.tensor(0.5))
    assert gamma.grad.tolist() == [0.5, -0.5]
    penalties.add_l1_subgradient([], 0.5)  # nothing to do is not an error


def test_l1_norm_and_dead_share_by_hand():
    gammas = [torch.tensor([0.5, -0.25]), torch.tensor([0.0, 1e-4, -0.005])]
    assert scales.l1_norm(gammas).item() == pytest.approx(0.7551)
    assert scales.dead_share(gammas) == 0.2  # at most 1 % of 0.375 and of 0.0017: one of five


@pytest.mark.parametrize(("strength", "budget"), [(1e-4, 6.6), (1e-5, 0.66), (0, 0.0)])
def test_budget_of_the_labs_recipe(strength, budget):
    rates = [0.1 * 0.1 ** ((epoch >= 80) + (epoch >= 120)) for epoch in range(160) for _ in range(782)]
    assert penalties.shrinkage_budget(strength, rates, 0.9) == pytest.approx(budget, rel=0.06)


def test_budget_is_how_far_the_penalty_alone_moves_a_scale():
    gamma = nn.Parameter(torch.tensor([5.0], dtype=torch.float64))
    sgd = torch.optim.SGD([gamma], lr=0.1, momentum=0.9)
    for _ in range(2000):
        gamma.grad = None
        penalties.add_l1_subgradient([gamma], 1e-3)
        sgd.step()
    assert 5.0 - gamma.item() == pytest.approx(penalties.shrinkage_budget(1e-3, [0.1] * 2000, 0.9), rel=0.01)
