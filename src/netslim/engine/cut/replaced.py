"""Layers that were put into a slim network after it was slimmed: another head, a convolution with its BN folded in.

They are not in the plan, which only knows what was cut from the dense network. Those of PyTorch, and sequences, lists
and dicts of them, are written down as the arguments that make them; a file holds no code, so others cannot be saved.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import msgspec
import torch
from torch import nn

from netslim.engine.cut.signature import description
from netslim.modules import Network

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Layer(msgspec.Struct):
    """A layer of torch.nn: its class, the arguments that make it, what it contains."""

    kind: str
    arguments: dict[str, int | float | bool | str | list[int | float | bool | str | None] | None] = {}
    children: dict[str, Layer] = {}


def written(module: nn.Module) -> Layer | None:
    """What makes a layer that computes as this one, with other weights; None if that cannot be told."""
    kind = type(module)
    if kind in CONTAINERS:
        children = {name: None if child is None else written(child) for name, child in module._modules.items()}
        known = {name: child for name, child in children.items() if child is not None}
        layer = Layer(kind.__name__, {}, known) if len(known) == len(children) else None
    else:
        layer = _plain(module) if getattr(nn, kind.__name__, None) is kind else None
    if layer is None:
        return None
    try:
        made = made_of(layer)
    except (TypeError, ValueError, RuntimeError):  # it wants more than it keeps
        return None
    same = description(Network(made), ()) == description(Network(module), ())
    return layer if same else None


def _plain(module: nn.Module) -> Layer | None:
    arguments = dict(_arguments(module))
    values = [item for value in arguments.values() for item in (value if isinstance(value, list) else [value])]
    plain = all(isinstance(value, (int, float, bool, str, type(None))) for value in values)
    return Layer(type(module).__name__, arguments) if plain else None


def _arguments(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Those of the constructor that the layer keeps under the same name; of a bias, whether it has one."""
    for name in inspect.signature(type(module)).parameters:
        if name == "bias" and not isinstance(module, nn.RNNBase):
            yield name, module.bias is not None
        elif name not in ("device", "dtype") and name in vars(module):
            value = getattr(module, name)
            yield name, list(value) if isinstance(value, tuple) else value


def made_of(layer: Layer) -> nn.Module:
    """The layer, on the meta device.

    Raises:
        ValueError: there is no such layer in torch.nn, or its arguments do not make one.
    """
    kind = getattr(nn, layer.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__.startswith("torch.nn.modules.")):
        raise ValueError(f"{layer.kind!r} is no layer of torch.nn")
    children = {name: made_of(child) for name, child in layer.children.items()}
    arguments = {name: tuple(v) if isinstance(v, list) else v for name, v in layer.arguments.items()}
    try:
        with torch.device("meta"):
            module = kind(**arguments)
            for name, child in children.items():
                module.add_module(name, child)
    except (TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{layer.arguments} make no {layer.kind}") from error
    return module
