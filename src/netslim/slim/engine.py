"""The engine's public functions: choose channels, mask them, cut them out.

    record (tape.py) -> run the rules (graph.py, rules.py, ids.py) -> who can leave (coupling.py, ../threshold.py)
                                                                   -> what must stay (demand.py) -> cut (emit.py)
                                                                   -> prove (replay.py) -> remember (plan.py)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from netslim.slim import coupling as coupling_
from netslim.slim import demand, emit, graph, plan, tape
from netslim.slim.replay import Finding, replay, touched
from netslim.sparsity import bn_layers
from netslim.threshold import threshold

Model = TypeVar("Model", bound=nn.Module)


def analyse(model: nn.Module, example_input: Any) -> graph.Graph:
    """The dependency graph of a model. It is a copy that runs, so the model is left as it was."""
    shadow = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    recorded, error = tape.record(shadow, example_input)
    if error:
        raise ValueError(f"the network does not run on the example input {_describe(example_input)}: {error}")
    return graph.build(shadow, recorded)


def select_channels(
    model: nn.Module,
    ratio: float,
    example_input: Any,
    *,
    floor: int = 1,
    coupling: str = "keep",
    round_to: int = 1,
) -> dict[str, Tensor]:
    """Choose the channels that stay: one global threshold on |γ| over all prunable BN layers (paper, section 3).

    Args:
        model: any module with BN layers; it is run once on the example input and left as it was.
        ratio: share of the prunable channels to remove, in [0, 1).
        example_input: a tensor, a tuple of positional or a dict of keyword arguments of the model's forward.
        floor: channels that every layer keeps at least.
        coupling: "keep" prunes BN layers that write their channels alone, and leaves residual streams whole; exactly
            floor(ratio·N) channels go where each is a layer's own. "group" also prunes streams that several BN layers
            write: they lose a channel together, ranked by the largest |γ| in it.
        round_to: round the kept count of every layer up to a multiple, e.g. 8.

    Returns:
        BN name -> bool tensor (C,), True where the channel stays; one entry per prunable BN layer, in registration order.

    Raises:
        ValueError: no BN layer is prunable, a bad argument, or the model does not run on the example input.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> model[1].weight.data = torch.tensor([0.5, -0.1, 0.0, 0.9])
    >>> select_channels(model, ratio=0.5, example_input=torch.randn(1, 3, 8, 8))
    {'1': tensor([ True, False, False,  True])}
    """
    if coupling not in ("keep", "group"):
        raise ValueError(f"coupling must be 'keep' or 'group', got {coupling!r}")
    layers = bn_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BatchNorm layer with γ: there is nothing to slim")
    scales = {name: layer.weight.detach().cpu() for name, layer in layers.items()}
    dependencies = analyse(model, example_input)
    frozen = _written_sizes(model, dependencies, scales, coupling, example_input)
    units = coupling_.units(dependencies, scales, coupling, frozen)
    if not units.score:
        raise ValueError(f"no BatchNorm layer of {type(model).__name__} can lose channels with coupling={coupling!r}")
    return threshold(units.score, ratio, floor=floor, groups=units.number, round_to=round_to)


def _written_sizes(
    model: nn.Module, dependencies: graph.Graph, scales: Mapping[str, Tensor], coupling: str, example_input: Any
) -> Tensor:
    """Ids that cannot leave because a size is written in the code: found by removing 40 % of every layer for a try."""
    frozen = torch.empty(0, dtype=torch.long)
    while True:
        units = coupling_.units(dependencies, scales, coupling, frozen)
        more = _proved(model, dependencies, coupling_.sample(units), example_input)[3]
        if not len(more):
            return frozen
        frozen = torch.cat([frozen, more])


def mask(model: Model, keep: Mapping[str, Tensor]) -> Model:
    """A copy of the model with γ = β = 0 on the removed channels: same size, and what ``slim`` is compared with.

    Args:
        keep: BN name -> bool tensor (C,), True where the channel stays.

    Raises:
        ValueError: an unknown name or a mask of the wrong shape or type.
    """
    check_keep(model, keep)
    return emit.emit(model, {}, {}, {}, keep)


def slim(model: Model, keep: Mapping[str, Tensor], example_input: Any) -> Model:
    """A new, smaller network that computes what ``mask(model, keep)`` computes. `model` is left alone.

    Same classes and forward code, a plain nn.Module in the same mode, dtype and device. Equal to the masked network in
    eval mode, and in training as long as the masked network's removed γ, β are held at 0. A BN layer that reads a stream
    that others read too gets an index selection in front (a buffer ``channel_index`` and a forward pre-hook).

    Args:
        keep: BN name -> bool tensor (C,), as from ``select_channels``, or one's own; layers not named stay whole.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments of the model's forward.

    Raises:
        ValueError: an unknown name or wrong shape in keep, or the model does not run on the example input.
    """
    check_keep(model, keep)
    dependencies = analyse(model, example_input)
    exist, cut, known, _ = _proved(model, dependencies, keep, example_input)
    return _emit(model, dependencies, exist, cut, known, keep)


def _proved(
    model: nn.Module, dependencies: graph.Graph, keep: Mapping[str, Tensor], example_input: Any
) -> tuple[Tensor, emit.Cut, Finding, Tensor]:
    """What exists, cut and order of a slim network that has been replayed without finding fault; and what was frozen."""
    keep = {name: stays.cpu() for name, stays in keep.items()}
    frozen, known = torch.empty(0, dtype=torch.long), Finding()
    while True:
        exist = demand.solve(dependencies, keep, frozen).exist
        cut = emit.cuts(dependencies, exist, known.order)
        trial = _emit(model, dependencies, exist, cut, known, keep, share=True)
        found = replay(dependencies, exist, cut, *tape.record(trial, example_input))
        if found.position is not None:
            frozen, known = freeze(dependencies, exist, frozen, found), Finding()
        elif found.order or found.layouts:
            known = Finding(order=known.order | found.order, layouts=known.layouts | found.layouts)
        else:
            return exist, cut, known, frozen


def _emit(
    model: Model,
    dependencies: graph.Graph,
    exist: Tensor,
    cut: emit.Cut,
    found: Finding,
    keep: Mapping[str, Tensor],
    share: bool = False,
) -> Model:
    select = emit.selections(dependencies, exist, found.layouts)
    groups = {name: int(exist[ids].any(1).sum()) for name, ids in dependencies.groups.items()}
    small = emit.emit(model, cut, select, groups, keep, share)
    setattr(small, plan.ATTRIBUTE, plan.make(model, cut, select, groups))
    return small


def freeze(dependencies: graph.Graph, exist: Tensor, frozen: Tensor, finding: Finding) -> Tensor:
    """The channels that the deviating operation touches; if they were all there, those of ever more operations before."""
    for position in range(finding.position or 0, -1, -1):
        ids = touched(dependencies, position)
        if not exist[ids].all():
            return torch.cat([frozen, ids])
    raise RuntimeError(f"the slim network could not be proved equal to the masked one: {finding.reason}")


def check_keep(model: nn.Module, keep: Mapping[str, Tensor]) -> None:
    layers = bn_layers(model)
    for name, stays in keep.items():
        if name not in layers:
            raise ValueError(f"keep names {name!r}, which is no BatchNorm layer of {type(model).__name__}")
        shape = tuple(layers[name].weight.shape)
        if not isinstance(stays, Tensor) or stays.dtype != torch.bool or tuple(stays.shape) != shape:
            got = f"{stays.dtype} {tuple(stays.shape)}" if isinstance(stays, Tensor) else type(stays).__name__
            raise ValueError(f"keep[{name!r}] must be a bool tensor of shape {shape}, got {got}")


def _describe(example_input: Any) -> str:
    return str([tuple(t.shape) for t in tape.tensors_in(example_input)])
