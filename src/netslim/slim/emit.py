"""Emission: cut a network down to the channels that exist.

What to cut is already known per parameter and dimension, so there is one generic loop: index_select along every axis,
then correct the sizes that modules remember (in_channels, num_features...). A BN layer that reads a stream others also
read gets a selection in front: the indices are a registered buffer, applied by a forward pre-hook with index_select
(the role of `channel_selection` in the authors' code, without its copy to the host and its numpy in every forward
pass). Classes and forward code stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from netslim.slim.clone import clone
from netslim.slim.graph import Graph
from netslim.slim.shapes import META, in_channels_last
from netslim.slim.sizes import Sizes
from netslim.slim.tape import SELECT, state

Model = TypeVar("Model", bound=nn.Module)
Cut = dict[tuple[str, int], Tensor]  # (tensor name, dimension) -> kept positions (k,), or (groups, k) one row per group


def cuts(graph: Graph, exist: Tensor, order: Cut | None = None) -> Cut:
    """Kept positions along every axis that loses something.

    order: positions found by the replay for axes whose channels arrive in another order than in the dense network.
    """
    result: Cut = {}
    exists = exist.numpy()
    for key, ids in graph.axes.items():
        alive = exists[ids.numpy()]
        if order and key in order:
            result[key] = order[key]
        elif not alive.all():
            rows = [np.flatnonzero(row) for row in np.atleast_2d(alive) if row.any()]
            result[key] = torch.from_numpy(np.stack(rows) if ids.dim() == 2 else rows[0])
    return result


def selections(graph: Graph, exist: Tensor, layouts: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """BN name -> positions in its (already cut) input, one per remaining channel; only where some channel is dropped.

    A channel whose input does not exist is a carrier: any position will do.
    """
    result = {}
    for flow in graph.flows.values():
        norm = getattr(flow, "norm", "")
        if norm not in graph.sources:
            continue
        source = graph.sources[norm]
        layout = layouts[norm] if layouts and norm in layouts else source[exist[source]]
        wanted = flow.ins[0][exist[flow.out]]
        order = layout.argsort(stable=True)
        places = order[torch.searchsorted(layout[order], wanted).clamp(max=len(order) - 1)]
        positions = places.where(layout[places] == wanted, 0)
        had_selection = source is not flow.ins[0]
        if had_selection or len(positions) != len(layout) or not torch.equal(positions, torch.arange(len(layout))):
            result[norm] = positions
    return result


def select_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook: the layer reads only some channels of its input x, of shape (N, C, ...)."""
    x, positions = args[0], module.get_buffer(SELECT)
    if not in_channels_last(x):
        return (x.index_select(1, positions), *args[1:])
    # index_select would return channels-first memory, slowly, and make all that follows slow: select columns of pixels.
    pixels = x.permute(0, 2, 3, 1)  # (N, H, W, C)
    selected = pixels.flatten(0, 2).index_select(1, positions)
    return (selected.unflatten(0, pixels.shape[:3]).permute(0, 3, 1, 2), *args[1:])


def select_plainly(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """``select_input`` as one operation, for the tape."""
    return (args[0].index_select(1, module.get_buffer(SELECT)), *args[1:])


@torch.no_grad()
def emit(
    model: Model,
    cut: Cut,
    select: Mapping[str, Tensor],
    groups: Mapping[str, int],
    sizes: Sizes,
    keep: Mapping[str, Tensor] | None = None,
) -> Model:
    """A copy of the model, cut.

    groups: weight name -> groups of its convolution. sizes: attributes to set (sizes.py). keep: BN name -> the channels
    whose γ and β are not set to 0.
    """
    small = clone(model, _cut(model, cut, keep or {}))
    _correct(small, cut, select, groups, sizes)
    return small


@torch.no_grad()
def outline(
    model: Model, cut: Cut, select: Mapping[str, Tensor], groups: Mapping[str, int], sizes: Sizes, on_meta: bool
) -> Model:
    """What ``emit`` makes, to be looked at while it runs: without numbers, or with parameters that it shares."""
    if on_meta:
        look = clone(model, _hollow(model, cut))
    else:
        parameters: dict[Tensor, Tensor] = {p: p for p in model.parameters()}
        look = clone(model, {**parameters, **_cut(model, cut, {})})
    _correct(look, cut, select, groups, sizes)
    for module in look.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if hook is select_input:
                module._forward_pre_hooks[key] = select_plainly
    return look


def _cut(model: nn.Module, cut: Cut, keep: Mapping[str, Tensor]) -> dict[Tensor, Tensor]:
    """Parameters and buffers that change -> what they become."""
    tensors = state(model)
    new = dict(_masked(model, keep))
    for (name, dim), positions in sorted(cut.items(), key=lambda item: item[0]):
        new[name] = take(new.get(name, tensors[name].detach()), dim, positions)
    return {tensors[name]: _like(tensors[name], _keep_format(tensors[name], t)) for name, t in new.items()}


def _hollow(model: nn.Module, cut: Cut) -> dict[Tensor, Tensor]:
    """Parameters and buffers -> tensors of the same shapes, after the cut, that hold nothing. Indices keep values."""
    shapes = {name: (tensor, list(tensor.shape)) for name, tensor in state(model).items()}
    for (name, dim), positions in cut.items():
        shapes[name][1][dim] = positions.shape[-1]
    hollow = {
        tensor: _like(tensor, torch.empty(shape, dtype=tensor.dtype, device=META))
        for tensor, shape in shapes.values()
        if tensor.is_floating_point()
    }
    indices = {key: positions for key, positions in cut.items() if not shapes[key[0]][0].is_floating_point()}
    return {**hollow, **_cut(model, indices, {})} if indices else hollow


def _like(old: Tensor, new: Tensor) -> Tensor:
    """A parameter where the old one is one."""
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def _correct(model: nn.Module, cut: Cut, select: Mapping[str, Tensor], groups: Mapping[str, int], sizes: Sizes) -> None:
    modules = dict(model.named_modules()) if cut or groups or select else {}
    for owner in {name.rpartition(".")[0] for name, _ in cut} | {name.rpartition(".")[0] for name in groups}:
        prefix = f"{owner}." if owner else ""
        _correct_sizes(modules[owner], groups.get(f"{prefix}weight"))
    for (owner, attribute), size in sizes.items():
        old = getattr(modules[owner], attribute)
        setattr(modules[owner], attribute, size if isinstance(old, int) else type(old)(size))
    for name, positions in select.items():
        _select(modules[name], positions)


def _masked(model: nn.Module, keep: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """γ and β with zeros on the removed channels, by name; only where some are removed."""
    for name, stays in keep.items():
        layer = model.get_submodule(name)
        for kind in ("weight", "bias"):
            tensor = getattr(layer, kind)
            if tensor is not None and not stays.all():
                yield f"{name}.{kind}" if name else kind, tensor.detach() * stays.to(tensor.device)


def _select(layer: nn.Module, positions: Tensor) -> None:
    if not hasattr(layer, SELECT):
        layer.register_forward_pre_hook(select_input)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    layer.register_buffer(SELECT, positions if weight.device == META else positions.to(weight.device))


def take(tensor: Tensor, dim: int, positions: Tensor) -> Tensor:
    """The positions along `dim`; a matrix holds one row per group of the other leading dimension."""
    positions = positions.to(tensor.device)
    if positions.dim() == 1:
        return tensor.index_select(dim, positions)
    other = 1 - dim
    index = positions.repeat_interleave(tensor.shape[other] // len(positions), 0)
    index = (index if dim == 1 else index.t())[(...,) + (None,) * (tensor.dim() - 2)]
    return tensor.take_along_dim(index, dim)


def _keep_format(old: Tensor, new: Tensor) -> Tensor:
    for dims, memory in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if old.dim() == dims and old.is_contiguous(memory_format=memory) and not old.is_contiguous():
            return new.contiguous(memory_format=memory)
    return new.contiguous()


def _correct_sizes(module: nn.Module, groups: int | None) -> None:
    """The sizes a module remembers, from the tensors it now has."""
    sizes: dict[str, int] = {}
    if isinstance(module, nn.modules.conv._ConvNd):
        groups = module.groups if groups is None else groups
        a, b = module.weight.shape[:2]
        ins, outs = (a, b * groups) if module.transposed else (b * groups, a)
        sizes = {"groups": groups, "in_channels": ins, "out_channels": outs}
    elif isinstance(module, nn.Linear):
        outs, ins = module.weight.shape
        sizes = {"in_features": ins, "out_features": outs}
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        sized = module.weight if module.weight is not None else module.running_mean
        sizes = {"num_features": len(sized)} if sized is not None else {}
    elif isinstance(module, nn.PReLU):
        sizes = {"num_parameters": len(module.weight)}
    vars(module).update(sizes)
