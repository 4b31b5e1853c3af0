"""How the network is run while it is recorded: which module is at work, in which mode, and whether it asks for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@contextmanager
def note_running(modules: Mapping[str, nn.Module], running: list[str | None]) -> Iterator[None]:
    """Keep the names of the modules that are running in a list, innermost last."""
    names = {module: name for name, module in modules.items()}

    def enter(module: nn.Module, _: Any) -> None:
        running.append(names.get(module))

    def leave(_: nn.Module, __: Any, ___: Any) -> None:
        running.pop()

    hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def tracing_modes(modules: Mapping[str, nn.Module], training: bool) -> Iterator[None]:
    """Leaf modules in eval mode, so that nothing is random and no statistics move; containers train or eval as asked.

    Auxiliary heads (GoogLeNet) only run where the containers train.
    """
    before = {m: m.training for m in modules.values()}
    for module in before:
        vars(module)["training"] = training and _is_container(module)
    try:
        yield
    finally:
        for module, mode in before.items():
            vars(module)["training"] = mode


@contextmanager
def note_who_asks(modules: Mapping[str, nn.Module]) -> Iterator[list[nn.Module]]:
    """Collect the containers that ask for their mode: only these can do something else in another."""
    containers = {module for module in modules.values() if _is_container(module)}
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
