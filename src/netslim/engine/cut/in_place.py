"""What ``emit`` makes, made of the model itself: modules and parameters stay the same objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from netslim.engine.cut import plan
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
            _replace(old, new)
    correct(network.modules, changes)


def _replace(old: nn.Parameter, new: Tensor) -> None:
    """Give a parameter other values. What adds up its gradients knows its shape, and lives as long as any graph with it
    does (a loss that the user keeps); a change of type makes PyTorch forget it."""
    other = torch.float32 if old.dtype == torch.float16 else torch.float16
    old.data = new.new_empty(0, dtype=other)
    old.data, old.grad = new.data, None


def parameter_cuts(network: Network, changes: Changes) -> dict[nn.Parameter, list[tuple[int, Tensor]]]:
    """The parameters that lose something -> (dimension, kept positions), in the order in which they are cut."""
    found: dict[nn.Parameter, list[tuple[int, Tensor]]] = {}
    for (name, dim), positions in sorted(changes.cut.items(), key=lambda item: item[0]):
        tensor = network.state[name]
        if isinstance(tensor, nn.Parameter):
            found.setdefault(tensor, []).append((dim, positions))
    return found


def plan_data(model: nn.Module) -> dict[str, Any] | None:
    """What was cut from a slim network, as plain data for a checkpoint; None for a dense one."""
    return getattr(model, plan.ATTRIBUTE, None)


def follow_in_place(model: nn.Module, data: dict[str, Any] | None) -> None:
    """Cut the model as ``plan_data`` says, from the pass on that it has not been through. None: nothing to do.

    Raises:
        ValueError: the model was slimmed another way.
    """
    if data is None:
        return
    carried, whole = plan_data(model), msgspec.convert(data, plan.Plan)
    done = [] if carried is None else msgspec.convert(carried, plan.Plan).passes
    if done != whole.passes[: len(done)]:
        kind = type(model).__name__
        raise ValueError(f"{kind} was slimmed another way than in the checkpoint; give the dense network")
    for step in whole.passes[len(done) :]:
        cut_in_place(Network(model), plan.changes_of(step), {})
    plan.carry(model, whole)
