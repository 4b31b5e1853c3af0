"""Emission: cut a network down to the channels that exist.

What to cut is already known per parameter and dimension, so there is one generic loop: index_select along every axis,
then correct the sizes that modules remember (in_channels, num_features...). Around a BN layer that reads, or writes,
only a part of a stream stands a module (select_scatter.py). Classes and forward code stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from netslim.engine.cut import select_scatter
from netslim.engine.cut.clone import clone
from netslim.engine.cut.isolate import isolate
from netslim.engine.decide.size_attributes import Sizes
from netslim.engine.graph.graph import Graph
from netslim.engine.trace.meta_kernels import META
from netslim.modules import Network, modules_by_name

Cut = dict[tuple[str, int], Tensor]  # (tensor name, dimension) -> kept positions (k,), or (groups, k) one row per group
Scatter = tuple[str, Tensor, int]  # the layer around which it is done, places (k,), width of the stream


@dataclass
class Changes:
    """All that makes a slim network out of a dense one.

    select: BN name -> positions (k,) in its input. scatter: BN name -> what its channels are scattered to.
    groups: weight name -> groups of its convolution. sizes: attributes to set (sizes.py).
    """

    cut: Cut = field(default_factory=dict)
    select: dict[str, Tensor] = field(default_factory=dict)
    scatter: dict[str, Scatter] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=dict)


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
    flows = {flow.norm: flow for flow in graph.norm_flows}  # of two calls the last
    for norm, source in graph.sources.items():
        flow = flows[norm]
        layout = layouts[norm] if layouts and norm in layouts else source[exist[source]]
        wanted = flow.ins[0][exist[flow.out]]
        order = layout.argsort(stable=True)
        places = order[torch.searchsorted(layout[order], wanted).clamp(max=len(order) - 1)]
        positions = places.where(layout[places] == wanted, 0)
        had_selection = source is not flow.ins[0]
        if had_selection or len(positions) != len(layout) or not torch.equal(positions, torch.arange(len(layout))):
            result[norm] = positions
    return result


def scatters(graph: Graph, exist: Tensor, cut: Cut) -> dict[str, Scatter]:
    """By BN name; only where some channels of the stream are 0."""
    result, gammas = {}, {norm: gamma for gamma, norm in graph.norms.items()}
    for scattered in graph.scattered.values():
        norm = scattered.norm
        kept = cut.get((gammas[norm], 0), torch.arange(len(scattered.own)))
        stream = scattered.stream[exist[scattered.stream]]
        places = torch.searchsorted(stream, scattered.places[kept])
        if scattered.before or len(places) != len(stream) or not torch.equal(places, torch.arange(len(stream))):
            result[norm] = scattered.owner, places, len(stream)
    return result


@torch.no_grad()
def emit(network: Network, changes: Changes, keep: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A copy of the model, changed. keep: BN name -> the channels whose γ and β are not set to 0."""
    small = clone(network.model, cut_tensors(network, changes.cut, keep or {}), network.modules)
    correct(modules_by_name(small), changes)
    return small


@torch.no_grad()
def outline(network: Network, changes: Changes, on_meta: bool) -> Network:
    """What ``emit`` makes, to be looked at while it runs: without numbers, or with numbers of its own."""
    replaced = _hollow(network, changes.cut) if on_meta else cut_tensors(network, changes.cut, {})
    look = Network(clone(network.model, replaced, network.modules))
    isolate(look.modules.values())
    correct(look.modules, changes)
    select_scatter.make_plain(look.modules.values())
    return look


def cut_tensors(network: Network, cut: Cut, keep: Mapping[str, Tensor]) -> dict[Tensor, Tensor]:
    """Parameters and buffers that change -> what they become."""
    tensors = network.state
    new = dict(_masked(network, cut, keep))
    for (name, dim), positions in sorted(cut.items(), key=lambda item: item[0]):
        new[name] = take(new.get(name, tensors[name].detach()), dim, positions)
    return {tensors[name]: _like(tensors[name], _keep_format(tensors[name], t)) for name, t in new.items()}


def _hollow(network: Network, cut: Cut) -> dict[Tensor, Tensor]:
    """Parameters and buffers -> tensors of the same shapes, after the cut, that hold nothing. Indices keep values."""
    shapes = {name: (tensor, list(tensor.shape)) for name, tensor in network.state.items()}
    for (name, dim), positions in cut.items():
        shapes[name][1][dim] = positions.shape[-1]
    hollow = {
        tensor: _like(tensor, torch.empty(shape, dtype=tensor.dtype, device=META))
        for tensor, shape in shapes.values()
        if tensor.is_floating_point()
    }
    indices = {key: positions for key, positions in cut.items() if not shapes[key[0]][0].is_floating_point()}
    return {**hollow, **cut_tensors(network, indices, {})} if indices else hollow


def _like(old: Tensor, new: Tensor) -> Tensor:
    """A parameter where the old one is one."""
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def correct(modules: dict[str, nn.Module], changes: Changes) -> None:
    """Sizes of the modules whose tensors were cut, and what selects and scatters."""
    cut, groups = changes.cut, changes.groups
    for owner in {name.rpartition(".")[0] for name, _ in cut} | {name.rpartition(".")[0] for name in groups}:
        prefix = f"{owner}." if owner else ""
        _correct_sizes(modules[owner], groups.get(f"{prefix}weight"))
    for (owner, attribute), size in changes.sizes.items():
        old = getattr(modules[owner], attribute)
        setattr(modules[owner], attribute, size if isinstance(old, int) else type(old)(size))
    select_scatter.rewire(modules, changes.select, changes.scatter)


def _masked(network: Network, cut: Cut, keep: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """γ and β with zeros on the removed channels, by name; only where some of them are not cut out as well."""
    layers = network.norms
    for name, kept in keep.items():
        prefix = f"{name}." if name else ""
        positions = cut.get((f"{prefix}weight", 0))
        left = kept.cpu().numpy() if positions is None else kept.cpu().numpy()[positions.numpy()]
        if left.all():
            continue
        for kind, tensor in (("weight", layers[name].weight), ("bias", layers[name].bias)):
            if tensor is not None:
                yield prefix + kind, tensor.detach() * kept.to(tensor.device)


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
