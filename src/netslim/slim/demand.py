"""Demand: dead-channel elimination, the heart of the engine.

Given the channels to remove, three facts are found for every id, each a short sweep over the flows of the graph:

    zero   (forwards)   the value is zero for every input: removed BN channels, and what only depends on such
    need   (backwards)  the value reaches an output through operations whose result is not zero anyway
    exist  (classes)    somebody needs an id of the class, or the network's code needs a channel to be there

What does not exist is cut out. What exists but is not needed is a *carrier*: it only holds a place (a convolution
needs at least one channel, a grouped one equally many per group), and its value is read by nobody, or is zero by
itself: a zero follows from zeros alone, so it stays zero in the smaller network too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from netslim.slim.graph import Balance, Each, Graph, Mix


@dataclass
class Demand:
    """Bool tensors over ids; `exist` over ids too, constant on every class."""

    zero: Tensor
    need: Tensor
    exist: Tensor


def solve(graph: Graph, keep: Mapping[str, Tensor], frozen: Tensor | None = None) -> Demand:
    """Which ids are zero, needed, and must exist if only the channels in `keep` (BN name -> bool (C,)) stay.

    frozen: ids that must exist although nobody needs them (sizes written in the code, found by the replay).
    """
    zero = known_zeros(graph, keep)
    need = needed(graph, zero)
    return Demand(zero, need, existing(graph, zero, need, frozen))


def known_zeros(graph: Graph, keep: Mapping[str, Tensor]) -> Tensor:
    zero = torch.zeros(graph.ids.count, dtype=torch.bool)
    for line in graph.zeros:
        zero[line] = True
    for flow in graph.flows.values():
        if isinstance(flow, Mix):
            if not flow.bias:
                zero[flow.out] = zero[flow.ins].all(1, keepdim=True).expand(flow.out.shape)
        elif flow.norm in keep:
            zero[flow.out] = ~keep[flow.norm]
        elif flow.zero != "never":
            ins = [zero[line] for line in flow.ins]
            zero[flow.out] = ins[0] if flow.zero == "first" else _combine(ins, flow.zero)
    return zero


def _combine(ins: list[Tensor], how: str) -> Tensor:
    stacked = torch.stack(ins)
    return stacked.any(0) if how == "any" else stacked.all(0)


def needed(graph: Graph, zero: Tensor) -> Tensor:
    need = torch.zeros_like(zero)
    for _, line in graph.demands:
        need[line] = True
    for flow in reversed(graph.flows.values()):  # an id is made before it is read, so one sweep is enough
        live = need[flow.out] & ~zero[flow.out]
        if isinstance(flow, Mix):
            need[flow.ins[live.any(1)]] |= ~zero[flow.ins[live.any(1)]]
        else:
            for line in flow.ins:
                need[line[live]] = True
    return need


def existing(graph: Graph, zero: Tensor, need: Tensor, frozen: Tensor | None) -> Tensor:
    classes = graph.classes
    exist = torch.zeros(int(classes.max()) + 1, dtype=torch.bool)
    exist[classes[need]] = True
    for _, line in graph.pins:
        exist[classes[line]] = True
    if frozen is not None:
        exist[classes[frozen]] = True
    matrices = [m for flow in graph.flows.values() for m in _executed(flow)]
    lines = [classes[m.flatten()] for m in matrices]
    balances = [(b, [classes[side] for side in b.sides]) for b in graph.balances.values()]
    while True:
        before = int(exist.sum())
        for line in lines:
            if not exist[line].any():
                exist[line[0]] = True
        for balance, sides in balances:
            level(balance, sides, exist)
        if int(exist.sum()) == before:
            return exist[classes]


def _executed(flow: Each | Mix) -> list[Tensor]:
    """Lines of which the code needs at least one channel, because a layer runs on them."""
    if isinstance(flow, Mix):
        return [flow.ins, flow.out]
    return [flow.out, *flow.ins]


def level(balance: Balance, sides: list[Tensor], exist: Tensor) -> None:
    """Add carriers until all rows have equally many channels."""
    rows = torch.stack([exist[side].any(1) for side in sides]).any(0)
    if not balance.droppable:
        rows = torch.ones_like(rows)
    for side in sides:
        target = max(1, int(exist[side].sum(1).max()))
        for row in side[rows]:
            while int(exist[row].sum()) < target:
                exist[row[~exist[row]][0]] = True
