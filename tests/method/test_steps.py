"""Oracle: the same plain loop with λ·Σ|γ| in its loss, in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

import netslim
from netslim.method.scales import bn_scales

STRENGTH = 0.05
MEANS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "fused": partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True),
    "foreach": partial(torch.optim.AdamW, lr=0.01, foreach=True),
    "fused adam": partial(torch.optim.Adam, lr=0.01, fused=True),
}


def network() -> nn.Sequential:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))
    nn.init.uniform_(net[1].weight, -1, 1)
    return net.double()


def batches(count: int = 8) -> list[torch.Tensor]:
    return list(torch.randn(count, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))


Loss = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def plain(net: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> None:
    for batch in batches():
        optimizer.zero_grad()
        loss(net, batch).backward()
        optimizer.step()


def scaled(net: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> None:
    """AMP, with a batch whose step is skipped."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    for index, batch in enumerate(batches()):
        optimizer.zero_grad(set_to_none=False)
        scaler.scale(loss(net, batch) * (torch.inf if index == 2 else 1)).backward()
        scaler.step(optimizer)
        scaler.update()


def accumulating(net: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> None:
    for index, batch in enumerate(batches()):
        (loss(net, batch) / 4).backward()
        if index % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()


def ultralytics(net: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> None:
    """Accumulation that grows, warm-up of the rate, unscaling by hand, a copy with averaged weights."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    average, last = torch.optim.swa_utils.AveragedModel(net), -1
    optimizer.zero_grad()
    for index, batch in enumerate(batches()):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (index + 1)
        scaler.scale(loss(net, batch) / (1 + (index > 3))).backward()
        if index - last >= 1 + (index > 3):
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), max_norm=1e3)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            average.update_parameters(net)
            last = index


class Accelerated(torch.optim.Optimizer):
    """As Accelerate wraps an optimiser: no __init__ of torch's, everything handed on."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups): ...

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure=None):
        self.optimizer.step(closure)


def transformers(net: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> None:
    """A scheduler that wraps ``step``, two micro-batches per step, gradients cleared on the model."""
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step / 3))
    wrapped = Accelerated(optimizer)
    for index, batch in enumerate(batches()):
        (loss(net, batch) / 2).backward()
        if index % 2:
            wrapped.step()
            scheduler.step()
            net.zero_grad()


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("loop", [plain, scaled, accumulating, ultralytics, transformers])
def test_any_loop_trains_as_with_the_term_in_its_loss(loop, means):
    def trained(*, in_loss: bool, strength: float) -> torch.Tensor:
        def loss(net, batch):
            penalty = STRENGTH * sum(gamma.abs().sum() for gamma in bn_scales(net))
            return net(batch).square().mean() + (penalty if in_loss else 0)

        net = network()
        optimizer = MEANS[means](net.parameters())
        netslim.penalize(Accelerated(optimizer) if loop is transformers else optimizer, net, strength)
        loop(net, optimizer, loss)
        return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])

    oracle = trained(in_loss=True, strength=0)
    assert (trained(in_loss=False, strength=STRENGTH) - oracle).abs().max() < 1e-9
    assert (trained(in_loss=False, strength=0) - oracle).abs().max() > 1e-4


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_a_closure_that_is_called_many_times(search):
    def trained(in_loss: bool) -> torch.Tensor:
        net, data = network(), batches(1)[0]
        optimizer = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=5, line_search_fn=search)
        netslim.penalize(optimizer, net, 0.0 if in_loss else STRENGTH)

        def closure():
            optimizer.zero_grad(set_to_none=False)
            loss = net(data).square().mean() + (STRENGTH * net[1].weight.abs().sum() if in_loss else 0)
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])

    assert (trained(True) - trained(False)).abs().max() < 1e-9


def test_the_closure_of_other_optimisers_returns_the_loss_that_is_shown():
    net, data = network(), batches(1)[0]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    netslim.penalize(optimizer, net, STRENGTH)
    shown = net(data).square().mean()
    assert optimizer.step(lambda: shown) is shown


def test_gradients_are_what_backward_made_of_them_once_the_step_is_over():
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    netslim.penalize(optimizer, net, STRENGTH)
    net(batches()[0]).square().mean().backward()
    before = [parameter.grad for parameter in net.parameters()]
    optimizer.step()
    assert all(parameter.grad is grad for parameter, grad in zip(net.parameters(), before, strict=True))


def test_scales_are_penalised_while_the_optimiser_owns_them_and_they_are_trained():
    net = nn.ModuleList([nn.BatchNorm1d(2), nn.BatchNorm1d(2), nn.BatchNorm1d(2)])
    net[1].requires_grad_(False)
    optimizer = torch.optim.SGD([*net[0].parameters(), *net[1].parameters()], lr=1.0)
    steps = netslim.penalize(optimizer, net, 0.125)

    def step() -> list[float]:
        optimizer.step()
        return [layer.weight[0].item() for layer in net]

    assert step() == [0.875, 1, 1]
    net[1].requires_grad_(True)
    assert step() == [0.75, 0.875, 1]
    net[0].requires_grad_(False)
    optimizer.add_param_group({"params": net[2].parameters()})
    assert step() == [0.75, 0.75, 0.875]
    steps.remove()
    assert step() == [0.75, 0.75, 0.875]
    netslim.penalize(optimizer, net, 0.125)  # anew, after remove
    assert step() == [0.75, 0.625, 0.75]


def test_what_cannot_be_penalised_is_refused():
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for strength in (-1, "0.1", float("nan"), float("inf")):
        with pytest.raises(ValueError, match="it must be 0"):
            netslim.penalize(optimizer, net, strength)
    with pytest.raises(ValueError, match="owns none of the 1 BatchNorm scales of Sequential"):
        netslim.penalize(torch.optim.SGD(net[0].parameters(), lr=0.1), net, 0.1)
    with pytest.raises(ValueError, match="Sequential has no BatchNorm scales"):
        netslim.penalize(optimizer, net[:1], 0.1)
    netslim.penalize(optimizer, net, 0.1)
    with pytest.raises(ValueError, match="penalised already"):
        netslim.penalize(optimizer, net, 0.1)
