"""What ``emit`` makes, made of the model itself: modules and parameters stay the same objects."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from netslim.engine.cut.emit import Changes, correct, cut_tensors
from netslim.modules import Network


@torch.no_grad()
def cut_in_place(network: Network, changes: Changes, keep: Mapping[str, Tensor]) -> None:
    """Cut the model. keep: BN name -> the channels whose γ and β are not set to 0. Gradients are dropped."""
    replaced = cut_tensors(network, changes.cut, keep)
    for module in network.modules.values():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer in replaced:
                module._buffers[name] = replaced[buffer]
    for old, new in replaced.items():
        if isinstance(old, nn.Parameter):
            old.data, old.grad = new.data, None
    correct(network.modules, changes)


def parameter_cuts(network: Network, changes: Changes) -> dict[nn.Parameter, list[tuple[int, Tensor]]]:
    """The parameters that lose something -> (dimension, kept positions), in the order in which they are cut."""
    found: dict[nn.Parameter, list[tuple[int, Tensor]]] = {}
    for (name, dim), positions in sorted(changes.cut.items(), key=lambda item: item[0]):
        tensor = network.state[name]
        if isinstance(tensor, nn.Parameter):
            found.setdefault(tensor, []).append((dim, positions))
    return found
