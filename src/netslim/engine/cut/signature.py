"""What tells one network from another, line by line: name -> what it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import nn

from netslim.engine.cut.select_scatter import SOURCE
from netslim.modules import Around, Network

ROOT = "the network"
SETTING = "setting of "


def signature(network: Network) -> dict[str, str]:
    """What tells one architecture from another: class of every module, shape of every parameter and buffer."""
    modules = {name: module for name, module in network.modules.items() if not isinstance(module, Around)}
    tensors = {name: tensor for name, tensor in network.state.items() if name.rpartition(".")[2] != SOURCE}
    lines = {name or ROOT: _module_line(module) for name, module in modules.items()}
    return lines | {name: f"shape {tuple(tensor.shape)}" for name, tensor in tensors.items()}


def _module_line(module: nn.Module) -> str:
    line = type(module).__name__
    if isinstance(module, nn.modules.conv._ConvNd):
        line += f" stride {module.stride} padding {module.padding} dilation {module.dilation} groups {module.groups}"
    return line


def settings(network: Network) -> dict[str, str]:
    """What modules compute with beside their tensors: eps, momentum, padding mode, slope, probability, activation."""
    lines = ((name or ROOT, ", ".join(_set(module))) for name, module in network.modules.items())
    return {SETTING + name: line for name, line in lines if line}


def _set(module: nn.Module) -> Iterator[str]:
    """PyTorch's own layers say it themselves; of others the numbers that are no counters, words and functions."""
    kind = type(module)
    if kind.extra_repr.__module__.startswith("torch.") and kind.extra_repr is not nn.Module.extra_repr:
        yield module.extra_repr()
    if not kind.__module__.startswith("torch."):
        for name, value in vars(module).items():
            if isinstance(value, (float, str)):
                yield f"{name}={value!r}"
            elif isinstance(value, (FunctionType, BuiltinFunctionType)):
                yield f"{name}={value.__qualname__}"


def description(network: Network, sizes: Iterable[tuple[str, str, Any]]) -> dict[str, str]:
    """All of that, and the sizes that modules remember: (module, attribute, whatever)."""
    remembered = {
        f"{name}.{attribute}": f"size {getattr(network.modules[name], attribute, None)}"
        for name, attribute, _ in sizes
        if name in network.modules
    }
    return {**signature(network), **settings(network), **remembered}


def differences(ours: Mapping[str, str], theirs: Mapping[str, str], without: Iterable[str] = ()) -> list[str]:
    """Names whose lines differ, in order, except those of the modules `without` and what is in them."""
    apart = tuple(without)
    names = (name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name))
    return [name for name in names if not any(within(name.removeprefix(SETTING), module) for module in apart)]


def within(name: str, module: str) -> bool:
    """Is this the module, or something in it?"""
    return name == module or name.startswith(f"{module}.")


def outermost(names: Iterable[str]) -> list[str]:
    """Those that lie in none of the others."""
    found: list[str] = []
    for name in sorted(set(names)):
        if not any(within(name, other) for other in found):
            found.append(name)
    return found
