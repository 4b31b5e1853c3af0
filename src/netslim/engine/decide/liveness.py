"""Liveness: dead-channel elimination, the heart of the engine.

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

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from netslim.engine.graph.flows import AllToAll, Balance, Flow
from netslim.engine.graph.graph import Graph

Bools = npt.NDArray[np.bool_]


@dataclass
class Liveness:
    """Bool tensors over ids; `exist` over ids too, constant on every class."""

    zero: Tensor
    need: Tensor
    exist: Tensor


def solve(graph: Graph, keep: Mapping[str, Tensor], frozen: Tensor | None = None) -> Liveness:
    """Which ids are zero, needed, and must exist if only the channels in `keep` (BN name -> bool (C,)) stay.

    frozen: ids that must exist although nobody needs them (sizes written in the code, found by the replay).
    """
    zero = known_zeros(graph, keep)
    need = needed(graph, zero)
    exist = existing(graph, need, frozen)
    return Liveness(*(torch.from_numpy(facts) for facts in (zero, need, exist)))


def known_zeros(graph: Graph, keep: Mapping[str, Tensor]) -> Bools:
    zero = np.zeros(graph.count, dtype=bool)
    for line in graph.zeros:
        zero[line.numpy()] = True
    for flow in graph.flows:
        out = flow.out.numpy()
        if isinstance(flow, AllToAll):
            if not flow.bias:
                zero[out] = zero[flow.ins.numpy()].all(1, keepdims=True)
        elif flow.norm in keep:
            zero[out] = ~keep[flow.norm].numpy()
        elif flow.zero != "never":
            ins = [zero[line.numpy()] for line in flow.ins]
            zero[out] = ins[0] if flow.zero == "first" else _combine(ins, flow.zero)
    return zero


def _combine(ins: list[Bools], how: str) -> Bools:
    combined: Bools = (np.logical_or if how == "any" else np.logical_and).reduce(ins)
    return combined


def needed(graph: Graph, zero: Bools) -> Bools:
    need = np.zeros_like(zero)
    for _, line in graph.demands:
        need[line.numpy()] = True
    for flow in reversed(graph.flows):  # an id is made before it is read, so one sweep is enough
        out = flow.out.numpy()
        live = need[out] & ~zero[out]
        if isinstance(flow, AllToAll):
            ins = flow.ins.numpy()[live.any(1)]
            need[ins] |= ~zero[ins]
        else:
            for line in flow.ins:
                need[line.numpy()[live]] = True
    return need


def existing(graph: Graph, need: Bools, frozen: Tensor | None) -> Bools:
    """Classes that somebody needs, and those that the code needs to be there; each round adds carriers, until none is
    missing."""
    classes = graph.classes.numpy()
    exist = np.zeros(int(classes.max()) + 1, dtype=bool)
    exist[classes[need]] = True
    for line in [*(line for _, line in graph.pins), *([] if frozen is None else [frozen])]:
        exist[classes[line.numpy()]] = True
    lines = [classes[m.numpy().ravel()] for flow in graph.flows for m in _executed(flow)]
    scattered = [(classes[s.own.numpy()], classes[s.places.numpy()]) for s in graph.scattered.values()]
    balances = [(b, [torch.from_numpy(classes[side.numpy()]) for side in b.sides]) for b in graph.balances.values()]
    before = -1
    while int(exist.sum()) != before:
        before = int(exist.sum())
        for line in lines:
            if not exist[line].any():
                exist[line[0]] = True
        for own, places in scattered:  # each has a place
            exist[places] |= exist[own]
        for balance, sides in balances:
            level(balance, sides, torch.from_numpy(exist))
    everywhere: Bools = exist[classes]
    return everywhere


def _executed(flow: Flow) -> list[Tensor]:
    """Lines of which the code needs at least one channel, because a layer runs on them."""
    if isinstance(flow, AllToAll):
        return [flow.ins, flow.out]
    return [flow.out, *flow.ins]


def level(balance: Balance, sides: list[Tensor], exist: Tensor) -> None:
    """Add carriers until all rows have equally many channels."""
    rows = torch.stack([exist[side].any(1) for side in sides]).any(0)
    if not balance.droppable:
        rows = torch.ones_like(rows)
    for side in sides:
        counts = exist[side].sum(1)
        target = max(1, int(counts.max()))
        for row in side[rows & (counts < target)]:
            while int(exist[row].sum()) < target:
                exist[row[~exist[row]][0]] = True
