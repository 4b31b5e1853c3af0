"""How the network is run while it is recorded: which module is at work, in which mode, and whether it asks for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from netslim.modules import modules_by_name


@contextmanager
def note_running(model: nn.Module, running: list[str]) -> Iterator[None]:
    """Keep the names of the modules whose forward is running in a list, innermost last.

    A forward that stands in for the module's own is several times as fast as PyTorch's hooks for all modules.
    """

    def noting(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            running.append(name)
            try:
                return forward(*args, **kwargs)
            finally:
                running.pop()

        return run

    modules = modules_by_name(model)
    before = {name: vars(module)["forward"] for name, module in modules.items() if "forward" in vars(module)}
    for name, module in modules.items():
        vars(module)["forward"] = noting(name, module.forward)
    try:
        yield
    finally:
        for name, module in modules.items():
            del vars(module)["forward"]
            if name in before:
                vars(module)["forward"] = before[name]


@contextmanager
def tracing_modes(model: nn.Module, training: bool) -> Iterator[None]:
    """Leaf modules in eval mode, so that nothing is random and no statistics move; containers train or eval as asked.

    Auxiliary heads (GoogLeNet) only run where the containers train.
    """
    before = {m: m.training for m in modules_by_name(model).values()}
    for module in before:
        vars(module)["training"] = training and _is_container(module)
    try:
        yield
    finally:
        for module, mode in before.items():
            vars(module)["training"] = mode


@contextmanager
def note_who_asks(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Collect the containers that ask for their mode: only these can do something else in another."""
    containers = {module for module in modules_by_name(model).values() if _is_container(module)}
    asked: list[nn.Module] = []

    def read(module: nn.Module) -> bool:
        if module in containers:
            asked.append(module)
        return bool(vars(module)["training"])

    nn.Module.training = property(read, lambda module, mode: vars(module).update(training=mode))  # type: ignore[assignment]
    try:
        yield asked
    finally:
        del nn.Module.training


def _is_container(module: nn.Module) -> bool:
    """A BN layer is none, even with an activation as its child (timm): training, it would refuse a single pixel."""
    return any(child is not None for child in module._modules.values()) and not isinstance(module, _BatchNorm)
