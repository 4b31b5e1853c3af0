"""Which BN layers can make the value of a channel zero alone."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from netslim.engine.graph.flows import AllToAll
from netslim.engine.graph.graph import Graph

Numbers = npt.NDArray[np.int64]
EVERYTHING = frozenset([-1])  # the neutral element of the intersection


def killed_alone(graph: Graph, layers: Iterable[str]) -> Tensor:
    """For every class, bool: does one of these BN layers zero all that is read of it?"""
    sets = _Sets()
    nothing, everything = sets.add(frozenset()), sets.add(EVERYTHING)
    killers = _of_ids(graph, {name: i for i, name in enumerate(layers)}, sets, nothing, everything)
    of_class = np.full(int(graph.classes.max()) + 1, everything)
    read, size = graph.read_freely.numpy(), len(sets.list)
    at, killer = np.divmod(np.unique(graph.classes.numpy()[read] * size + killers[read]), size)
    for turn in _turns(at):
        of_class[at[turn]] = sets.combine([of_class[at[turn]], killer[turn]], "all")
    return torch.from_numpy(of_class != nothing)


def _of_ids(graph: Graph, layers: dict[str, int], sets: _Sets, nothing: int, everything: int) -> Numbers:
    """The number of the set of killers of every id."""
    killers = np.full(graph.count, nothing)
    for line in graph.zeros:
        killers[line.numpy()] = everything
    for flow in graph.flows:
        if isinstance(flow, AllToAll):
            continue
        out, ins = flow.out.numpy(), [killers[line.numpy()] for line in flow.ins]
        if flow.norm in layers:
            own = np.full(out.shape, sets.add(frozenset([layers[flow.norm]])))
            killers[out] = sets.combine([own, ins[0]], "any")
        elif flow.zero != "never":
            killers[out] = ins[0] if flow.zero == "first" else sets.combine(ins, flow.zero)
    return killers


class _Sets:
    """Sets of BN layers by number, combined for whole lines of ids at a time."""

    def __init__(self) -> None:
        self.list: list[frozenset[int]] = []
        self.number: dict[frozenset[int], int] = {}

    def add(self, members: frozenset[int]) -> int:
        if members not in self.number:
            self.number[members] = len(self.list)
            self.list.append(members)
        return self.number[members]

    def combine(self, lines: list[Numbers], how: str) -> Numbers:
        return functools.reduce(lambda a, b: self._pairwise(a, b, how), lines)

    def _pairwise(self, a: Numbers, b: Numbers, how: str) -> Numbers:
        size = len(self.list)
        pairs, inverse = np.unique(a * size + b, return_inverse=True)
        results = [self.add(_joined(self.list[p // size], self.list[p % size], how)) for p in pairs.tolist()]
        combined: Numbers = np.array(results, dtype=np.int64)[inverse]
        return combined


def _joined(a: frozenset[int], b: frozenset[int], how: str) -> frozenset[int]:
    if EVERYTHING in (a, b):
        other = b if a == EVERYTHING else a
        return EVERYTHING if how == "any" else other
    return a | b if how == "any" else a & b


def _turns(values: Numbers) -> list[Numbers]:
    """Positions of the sorted values, split so that no value comes twice in one part."""
    rank = np.arange(len(values)) - np.searchsorted(values, values)
    return [np.flatnonzero(rank == r) for r in range(int(rank.max(initial=-1)) + 1)]
