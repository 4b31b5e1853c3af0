"""The oracle of the engine's tests: the masked network, in float64, in eval mode and through three SGD steps.

A network with random γ has outputs that hardly depend on its input, and then any two networks agree. So γ is kept away
from 0, the statistics are those of the test's own batch, and every comparison is relative to the spread of the outputs
over the inputs, which must be there.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, GenericAlias, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

import netslim
from netslim.method.recovery import recalibrate
from netslim.modules import call, tensors_in
from netslim.nets import VGG, PreResNet


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


class Residual(nn.Module):
    """Two blocks that add to one stream: its channels leave only together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(16, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16),
            )
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x.mean((2, 3)))


NETWORKS = {
    "plain": (lambda: VGG([8, "M", 16, 16]), "keep"),
    "coupled": (Residual, "group"),
    "selected": (lambda: PreResNet(11), "keep"),
    "scattered": (Residual, "scatter"),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, images: Callable[..., Tensor]) -> tuple[nn.Module, Tensor, str]:
    """A network, its input and a coupling, all of float64."""
    build, coupling = NETWORKS[request.param]
    x = images(16) * torch.tensor([0.2, 0.5, 1.0, 2.0]).double().reshape(4, 1, 1, 1)  # so that means over pixels differ
    return lively(build(), x), x, coupling


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks")


def look(model: nn.Module) -> tuple[Any, ...]:
    """All that a refusal must leave alone, as plain values."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    local = ((n, t.to_local() if isinstance(t, DTensor) else t) for n, t in tensors)
    numbers = {n: t.detach().clone() for n, t in local if not is_lazy(t) and not t.is_meta}
    modules = [(n, type(m), m.training, *(tuple(getattr(m, h, ())) for h in HOOKS)) for n, m in model.named_modules()]
    shared = (nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks)
    return modules, [n for n, _ in tensors], numbers, torch.get_rng_state(), *map(dict, shared)


def same(a: Any, b: Any) -> bool:
    """Equal, and NaN equals NaN."""
    if isinstance(a, torch.Tensor):
        return bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


@pytest.fixture
def refused() -> Callable[..., None]:
    """Assert that each call raises one line that matches, and that the model is left as it was."""

    def check(model: nn.Module, match: str, *calls: Callable[[], Any]) -> None:
        before = look(model)
        for refusal in calls:
            with pytest.raises(ValueError, match=match) as error:
                refusal()
            assert "\n" not in str(error.value)
        assert all(map(same, look(model), before))

    return check


def everything(value: Any, seen: dict[int, Any]) -> Any:
    """An object as plain values: which objects it is made of, and what they hold."""
    if isinstance(value, Tensor):
        numbers = None if is_lazy(value) or value.is_meta else value.detach().clone()
        grad = everything(value.grad, seen) if value.is_leaf else None
        return id(value), value._version, value.requires_grad, grad, numbers
    plain = (type, FunctionType, ModuleType, GenericAlias, int, float, str, bytes, type(None), random.SystemRandom)
    if id(value) in seen or isinstance(value, plain):
        return id(value) if id(value) in seen else value
    seen[id(value)] = value
    if isinstance(value, dict):
        return type(value), [(everything(k, seen), everything(v, seen)) for k, v in value.items()]
    if isinstance(value, (list, tuple, set)):
        return type(value), [everything(item, seen) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, torch.Generator):
        return id(value), value.get_state()
    if isinstance(value, (random.Random, np.random.Generator)):
        return id(value), repr(value.getstate() if isinstance(value, random.Random) else value.bit_generator.state)
    state = everything(vars(value), seen) if hasattr(value, "__dict__") else None
    return id(value), type(value), state


def difference(a: Any, b: Any, place: str = "") -> str:
    """Where two results of ``everything`` differ first, or ""."""
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)) and len(a) == len(b):
        name = f".{a[0]}" if a and isinstance(a[0], str) else ""
        found = (difference(x, y, f"{place}{name}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True)))
        return next((one for one in found if one), "")
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return "" if a.shape == b.shape and same(a, b) else f"{place}: {a} and {b}"
    return "" if type(a) is type(b) and (a == b or a != a) else f"{place}: {a!r:.200} and {b!r:.200}"


@pytest.fixture
def assert_untouched() -> Callable[..., Any]:
    """with assert_untouched(model, more...): the model, PyTorch's generator and hooks, and all that is watched besides
    (objects, and what functions return), are the same objects with the same contents afterwards."""

    @contextmanager
    def check(*watched: Any) -> Iterator[None]:
        def all_of_it() -> Any:
            own = [w() if callable(w) and not isinstance(w, nn.Module) else w for w in watched]
            shared = nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks
            patched = [vars(nn.Module).get("training"), torch.is_grad_enabled, torch.Tensor.data_ptr]
            return everything([*own, *shared, patched, torch.is_grad_enabled()], {})

        before, random_state = all_of_it(), torch.get_rng_state()
        yield
        assert difference(before, all_of_it()) == ""
        assert torch.equal(random_state, torch.get_rng_state())

    return check


@pytest.fixture(autouse=True)
def _every_model_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """In all tests of the engine, for every network and every refusal."""

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(model: Any, *args: Any, **kwargs: Any) -> Any:
            before = everything(model, {})
            try:
                return function(model, *args, **kwargs)
            finally:
                assert difference(before, everything(model, {})) == "", f"{function.__name__} changed its model"

        return call

    for name in ("select_channels", "slim", "mask", "count"):
        monkeypatch.setattr(netslim, name, watched(getattr(netslim, name)))
