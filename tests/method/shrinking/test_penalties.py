"""Penalties beside L1. Oracles: autograd of the formula written out, arithmetic by hand, the minimiser of a cost."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import netslim
from netslim.method.penalties import Penalty
from netslim.method.shrinking.macs_l1 import MacsL1
from netslim.method.shrinking.polarization import Polarization
from netslim.method.shrinking.proximal import Proximal, soft_threshold

gammas = st.lists(st.sampled_from([-2.0, -0.3, -1e-3, 0.0, 1e-3, 0.2, 0.7]), min_size=1, max_size=6)
layers = st.lists(gammas, min_size=1, max_size=4)


def network(values: list[list[float]]) -> nn.Sequential:
    model = nn.Sequential(*(nn.BatchNorm1d(len(row)) for row in values)).double()
    for layer, row in zip(model, values, strict=True):
        layer.weight = nn.Parameter(torch.tensor(row, dtype=torch.float64))
    return model


def scales(model: nn.Module) -> list[nn.Parameter]:
    return [layer.weight for layer in netslim.bn_layers(model).values()]


def polarized(sizes: list[Tensor], t: float) -> Tensor:
    """The formula of Zhuang et al., layer by layer, channel by channel."""
    total = torch.zeros((), dtype=torch.float64)
    for size in sizes:
        mean = sum(size) / len(size)
        for one in size:
            total = total + t * one - (one - mean).abs()
    return total


def check_gradient(penalty: Penalty, model: nn.Module, value: Tensor, weight: float) -> None:
    """``add_gradient`` adds what autograd says of the formula, to gradients that are there."""
    expected = torch.autograd.grad(weight * value, scales(model))
    scales(model)[0].grad = torch.full_like(scales(model)[0], 0.25)
    penalty.add_gradient(scales(model), torch.tensor(weight, dtype=torch.float64))
    for number, (gamma, term) in enumerate(zip(scales(model), expected, strict=True)):
        torch.testing.assert_close(gamma.grad, term + (0.25 if number == 0 else 0))


@given(layers, st.sampled_from([0.0, 1.0, 1.2, 2.0]), st.floats(0, 10))
def test_polarization_is_the_formula_and_its_gradient_autograds(values, t, weight):
    model = network(values)
    value = polarized([gamma.abs() for gamma in scales(model)], t)
    assert Polarization(t).value(scales(model)).item() == pytest.approx(value.item(), abs=1e-12)
    check_gradient(Polarization(t), model, value, weight)


def test_polarization_parts_the_scales_of_a_layer_where_l1_shrinks_all_alike():
    model = network([[0.4, 0.5, 0.9, 1.0]])
    sgd = torch.optim.SGD(scales(model), lr=0.01)
    netslim.penalize(sgd, model, 1.0, Polarization(t=1.0))
    for _ in range(20):  # by hand: sides are −, −, +, +; 1 ± 1 + 0 per step
        sgd.step()
    assert scales(model)[0].tolist() == pytest.approx([0.0, 0.1, 0.9, 1.0])


@given(layers, st.lists(st.integers(1, 50), min_size=4, max_size=4), st.floats(0, 10))
def test_macs_l1_weighs_layers_by_their_cost(values, costs, weight):
    model = network(values)
    names = list(netslim.bn_layers(model))
    per_channel = {name: torch.full((len(row),), float(c)) for name, row, c in zip(names, values, costs, strict=False)}
    counts = [len(row) for row in values]
    mean = sum(n * c for n, c in zip(counts, costs, strict=False)) / sum(counts)
    value = sum(c / mean * gamma.abs().sum() for c, gamma in zip(costs, scales(model), strict=False))
    penalty = MacsL1()
    penalty.weigh(model, per_channel)
    assert penalty.value(scales(model)).item() == pytest.approx(value.item())
    check_gradient(penalty, model, value, weight)
    assert penalty.budget(1e-4, [0.1, 0.1], 0.9) == pytest.approx(2e-4)


BAD = [{"0": 1.0}, {"0": 1.0, "1": -1.0}, {"0": 0.0, "1": 0.0}, {"0": 1.0, "1": float("nan")}]


@pytest.mark.parametrize("costs", BAD)
def test_costs_that_are_none_are_refused(costs):
    with pytest.raises(ValueError, match="macs_l1: "):
        MacsL1().weigh(network([[1.0], [1.0]]), {name: torch.tensor([cost]) for name, cost in costs.items()})


def test_a_loop_without_costs_is_refused_at_its_first_step():
    model = network([[1.0]])
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    netslim.penalize(sgd, model, 0.1, MacsL1())
    with pytest.raises(
        ValueError, match=r"macs_l1 does not know .* call penalty.weigh\(model, netslim.engine.channel_"
    ):
        sgd.step()


@given(layers, st.floats(0, 3))
def test_the_soft_threshold_is_the_minimiser_of_its_parabola(values, step):
    """prox(γ) = argmin over x of (x − γ)²/2 + step·|x|: no x on a fine grid does better."""
    model = network(values)
    before = [gamma.detach().clone() for gamma in scales(model)]
    soft_threshold(scales(model), step)
    grid = torch.linspace(-2.5, 2.5, 2001, dtype=torch.float64)
    for old, new in zip(before, scales(model), strict=True):
        for gamma, found in zip(old, new.detach(), strict=True):
            costs = (torch.cat([grid, found[None]]) - gamma) ** 2 / 2 + step * torch.cat([grid, found[None]]).abs()
            assert costs.argmin() == len(grid) or costs[-1] <= costs.min() + 1e-12


@pytest.mark.parametrize("step", [0.25, torch.tensor(0.25, dtype=torch.float64)])
def test_proximal_makes_exact_zeros(step):
    model = network([[0.5, -0.1, 0.25, -1.0]])
    Proximal().after_step(scales(model), step)
    assert scales(model)[0].tolist() == [0.25, 0.0, 0.0, -0.75]


def test_a_loop_with_proximal_steps_as_by_hand():
    """Momentum moves γ by the loss alone; then lr·λ is taken off, or nothing where the scaler skips the step."""
    model, oracle = network([[0.5, -0.1]]), network([[0.5, -0.1]])
    ours, theirs = (torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in (model, oracle))
    netslim.penalize(ours, model, 0.2, Proximal())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    batches = torch.randn(5, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for number, batch in enumerate(batches):
        ours.zero_grad()
        scaler.scale(model(batch).square().mean() * (torch.inf if number == 2 else 1)).backward()
        scaler.step(ours)
        scaler.update()
        theirs.zero_grad()
        oracle(batch).square().mean().backward()
        if number != 2:
            theirs.step()
            with torch.no_grad():
                for gamma in scales(oracle):
                    gamma.copy_(gamma.sign() * (gamma.abs() - 0.1 * 0.2).clamp(min=0))
    torch.testing.assert_close(scales(model)[0], scales(oracle)[0])
    assert Proximal().budget(0.2, [0.1] * 4, 0.9) == pytest.approx(0.08)


@pytest.mark.parametrize("t", [-1, float("nan"), "1"])
def test_a_bad_t_is_refused(t):
    with pytest.raises(ValueError, match=f"t={t}: how much of L1 the polarization has must be 0 or more, such as 1.5"):
        Polarization(t)
