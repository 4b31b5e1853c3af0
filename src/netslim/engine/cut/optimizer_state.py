"""The state of an optimiser, cut along with its parameters: momentum, Adam's moments, whatever has their shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from netslim.engine.cut.emit import take
from netslim.modules import Network

Cuts = Mapping[nn.Parameter, Sequence[tuple[int, Tensor]]]  # -> (dimension, kept positions), in order
Masks = Mapping[nn.Parameter, Tensor]  # γ or β -> bool (C,), True where the channel is kept


def masked_parameters(network: Network, keep: Mapping[str, Tensor]) -> dict[nn.Parameter, Tensor]:
    """γ and β of the layers in ``keep`` (BN name -> bool (C,)). A removed channel may be carried along as zeros."""
    pairs = ((network.norms[name], kept) for name, kept in keep.items())
    return {tensor: kept for layer, kept in pairs for tensor in (layer.weight, layer.bias) if tensor is not None}


def check_state(optimizer: Optimizer, parameters: Set[nn.Parameter]) -> None:
    """Raise ValueError where the state of one of these parameters cannot be cut: Adafactor's rows and columns."""
    for parameter, _, key, value in _tensors(optimizer, parameters):
        if value.shape != parameter.shape:
            raise ValueError(
                f"{type(optimizer).__name__} keeps {key!r} of shape {tuple(value.shape)} for a parameter of shape "
                f"{tuple(parameter.shape)}: its state cannot be cut; train with SGD, Adam or another optimiser that "
                "keeps one number per weight"
            )


@torch.no_grad()
def cut_state(optimizer: Optimizer, cuts: Cuts, masks: Masks) -> None:
    """Keep, of every tensor in the state, what is kept of its parameter. The parameters are still whole.

    Where a removed channel is carried along, its γ and β are 0, and so is what the optimiser knows of them.
    """
    for parameter, entry, key, value in _tensors(optimizer, cuts.keys() | masks.keys()):
        if parameter in masks:
            value = value * masks[parameter].to(value.device)
        for dim, positions in cuts.get(parameter, ()):
            value = take(value, dim, positions)
        entry[key] = value


def _tensors(
    optimizer: Optimizer, parameters: Set[nn.Parameter]
) -> Iterator[tuple[nn.Parameter, dict[str, Any], str, Tensor]]:
    """(parameter, its state, key, tensor) of all that is more than a number, such as the count of steps."""
    for parameter, entry in optimizer.state.items():
        if isinstance(parameter, nn.Parameter) and parameter in parameters:
            for key, value in list(entry.items()):
                if isinstance(value, Tensor) and value.dim() > 0:
                    yield parameter, entry, key, value
