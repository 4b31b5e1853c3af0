"""The state of an optimiser, cut along with its parameters: momentum, Adam's moments, whatever has their shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.utils._pytree import tree_leaves, tree_map_only

from netslim.engine.cut.emit import take
from netslim.modules import Network

Cuts = Mapping[nn.Parameter, Sequence[tuple[int, Tensor]]]  # -> (dimension, kept positions), in order
Masks = Mapping[nn.Parameter, Tensor]  # γ or β -> bool (C,), True where the channel is kept
REMEDY = "train with SGD, Adam or another optimiser that keeps one number per weight"


def masked_parameters(network: Network, keep: Mapping[str, Tensor]) -> dict[nn.Parameter, Tensor]:
    """γ and β of the layers in ``keep`` (BN name -> bool (C,)). A removed channel may be carried along as zeros."""
    pairs = ((network.norms[name], kept) for name, kept in keep.items())
    return {tensor: kept for layer, kept in pairs for tensor in (layer.weight, layer.bias) if tensor is not None}


def check_state(optimizer: Optimizer, parameters: Set[nn.Parameter]) -> None:
    """Raise ValueError where the state of one of these parameters cannot be cut: Adafactor's rows and columns, what
    LBFGS keeps of all parameters in a row. An optimiser has a state after its first step."""
    if isinstance(optimizer, LBFGS) and parameters & {p for group in optimizer.param_groups for p in group["params"]}:
        raise ValueError(f"LBFGS keeps one vector of all parameters: its state cannot be cut; {REMEDY}")
    for parameter, entry in _entries(optimizer, parameters):
        for key, value in entry.items():
            for tensor in tree_leaves(value):
                if isinstance(tensor, Tensor) and tensor.dim() and tensor.shape != parameter.shape:
                    raise ValueError(
                        f"{type(optimizer).__name__} keeps {key!r} of shape {tuple(tensor.shape)} for a parameter of "
                        f"shape {tuple(parameter.shape)}: its state cannot be cut; {REMEDY}"
                    )


@torch.no_grad()
def cut_state(optimizer: Optimizer, cuts: Cuts, masks: Masks) -> None:
    """Keep, of every tensor in the state, what is kept of its parameter. The parameters are still whole.

    Where a removed channel is carried along, its γ and β are 0, and so is what the optimiser knows of them.
    """
    for parameter, entry in _entries(optimizer, cuts.keys() | masks.keys()):
        entry.update(tree_map_only(Tensor, partial(_cut, parameter, cuts, masks), dict(entry)))


def _cut(parameter: nn.Parameter, cuts: Cuts, masks: Masks, value: Tensor) -> Tensor:
    if not value.dim():  # a number, such as the count of steps
        return value
    if parameter in masks:
        value = value * masks[parameter].to(value.device)
    for dim, positions in cuts.get(parameter, ()):
        value = take(value, dim, positions)
    return value


def _entries(optimizer: Optimizer, parameters: Set[nn.Parameter]) -> Iterator[tuple[nn.Parameter, dict[str, Any]]]:
    """What the optimiser knows of these parameters: tensors and numbers by name, also in lists."""
    for parameter, entry in optimizer.state.items():
        if isinstance(parameter, nn.Parameter) and parameter in parameters:
            yield parameter, entry
