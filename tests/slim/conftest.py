"""The oracle of the engine's tests: the masked network, in float64, in eval mode and through three SGD steps.

A network with random γ has outputs that hardly depend on its input, and then any two networks agree. So γ is kept away
from 0, the statistics are those of the test's own batch, and every comparison is relative to the spread of the outputs
over the inputs, which must be there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import netslim
from netslim.recalibration import recalibrate
from netslim.slim.tape import call, tensors_in


def outputs(model: nn.Module, x: Any) -> Tensor:
    """All outputs as one matrix (N, values)."""
    return torch.cat([t.flatten(1) for t in tensors_in(call(model, x))], 1)


def lively(model: nn.Module, x: Any) -> nn.Module:
    """The model in float64, eval mode, signed γ in 0.3..1.3, β and statistics that matter, no randomness."""
    model.double().train()
    for module in model.modules():
        for rate in {"p", "drop_prob", "drop_rate"} & vars(module).keys():  # dropped paths, dropout by function
            setattr(module, rate, 0.0)
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.Conv1d)):
            nn.init.kaiming_normal_(module.weight)
    for parameter in model.parameters():  # biases of 0 and layer scales of 1e-5 would hide what they belong to
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            nn.init.normal_(parameter, std=0.3)
    for layer in netslim.bn_layers(model).values():
        n = len(layer.weight)
        layer.weight.data = (0.3 + torch.rand(n, dtype=torch.float64)) * (1.0 - 2.0 * (torch.rand(n) < 0.3))
        layer.bias.data = 0.3 * torch.randn(n, dtype=torch.float64)
    recalibrate(model, [x])
    return model.eval()


def held_channels(small: nn.Module, keep: dict[str, Tensor]) -> dict[str, Tensor]:
    """The removed channels that the slim network still carries: BN name -> bool over its channels."""
    cut = {name: indices for name, dim, indices in small.netslim_plan["passes"][-1]["keep"] if dim == 0}
    return {
        name: ~stays[torch.tensor(cut.get(f"{name}.weight", list(range(len(stays)))), dtype=torch.long)]
        for name, stays in keep.items()
    }


def three_steps(model: nn.Module, x: Any, removed: dict[str, Tensor]) -> None:
    """SGD with momentum and weight decay in train mode; the removed γ, β are held at 0."""
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    layers = netslim.bn_layers(model)
    for step in range(3):
        optimiser.zero_grad()
        y = outputs(model, x)
        target = torch.linspace(-1, 1, y.shape[1], dtype=y.dtype).roll(step)
        ((y / y.detach().std() - target) ** 2).mean().backward()
        for name, gone in removed.items():
            for parameter in (layers[name].weight, layers[name].bias):
                if parameter.grad is not None:
                    parameter.grad[gone] = 0
        optimiser.step()
    model.eval()


def deviation(a: nn.Module, b: nn.Module, x: Any) -> float:
    """The largest difference of outputs, relative to their spread over the inputs."""
    with torch.no_grad():
        ya, yb = outputs(a, x), outputs(b, x)
    spread = float(ya.std(0).mean())
    assert spread > 1e-3 * float(ya.abs().mean()), (
        "the outputs do not depend on the input: this comparison proves nothing"
    )
    return float((ya - yb).abs().max()) / spread


def prove(model: nn.Module, keep: dict[str, Tensor], x: Any, train: bool = True) -> nn.Module:
    """Assert that slim equals masked, before and after three SGD steps; returns the untrained slim network."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small, masked = netslim.slim(model, keep, example_input=x), netslim.mask(model, keep)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert deviation(masked, small, x) < 1e-9
    if train:
        trained = netslim.slim(model, keep, example_input=x)
        three_steps(masked, x, {name: ~stays for name, stays in keep.items()})
        three_steps(trained, x, held_channels(trained, keep))
        assert deviation(small, trained, x) > 1e-6, "three steps changed nothing"
        assert deviation(masked, trained, x) < 1e-9
    return small


class Oracle:
    lively = staticmethod(lively)
    prove = staticmethod(prove)
    deviation = staticmethod(deviation)
    outputs = staticmethod(outputs)


@pytest.fixture
def oracle() -> type[Oracle]:
    return Oracle


@pytest.fixture
def images() -> Callable[..., Tensor]:
    return lambda size, n=4: torch.randn(n, 3, size, size, dtype=torch.float64)
