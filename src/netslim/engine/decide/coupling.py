"""Coupling: which BN channels can leave, and which leave together.

A class (ids.py) is a *unit* of removal if zeroing some of its BN channels leaves nothing that anybody reads. How many
it takes follows from the flows: a sum is zero when all its terms are, a product when one factor is, and a BN channel
when it is removed or its input is zero (a normalised constant says nothing, so it is removed as well). Two measures:

    score    the smallest threshold t such that removing every γ with |γ| <= t makes the value zero: max over the terms
    of
             a sum, min over the factors of a product. It ranks the units.
    killers  the BN layers that can make the value zero alone.

coupling="keep" takes the units that one BN kills alone (never a residual stream written by several), "scatter" too, but
in a graph where every BN layer has channels of its own; "group" takes all.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from netslim.engine.graph.graph import Each, Graph, Mix
from netslim.engine.ops.channel_ids import Ids

Numbers = npt.NDArray[np.int64]


NOT_RUN = "not run with the example input"


@dataclass
class Units:
    """BN name -> unit number per channel (-1: cannot leave), shape (C,); and the unit's score in each place.

    held_back: what keeps the other BN channels from leaving -> how many it keeps.
    """

    number: dict[str, Tensor]
    score: dict[str, Tensor]
    held_back: dict[str, int]


def units(
    graph: Graph, scales: Mapping[str, Tensor], coupling: str, frozen: Sequence[tuple[str, Tensor]] = ()
) -> Units:
    """The removable units among the BN layers in `scales` (name -> γ of shape (C,)).

    frozen: (operation, ids) that the replay found to be held by a size written in the code.
    """
    classes = graph.classes
    worst = _scores(graph, scales)
    why = np.full(len(worst), "coupled", dtype=object)
    for position, flow in graph.flows.items():
        if isinstance(flow, Each) and not flow.norm and flow.zero == "never":
            reached = classes[flow.out]
            why[reached[worst[reached].isinf()].numpy()] = graph.tape.nodes[position].name  # not 0 where its input is
    for reason, line in [*graph.pins, *graph.demands, *frozen]:
        worst[classes[line]] = torch.inf
        why[classes[line].numpy()] = reason
    if coupling != "group":
        worst[~_killed_alone(graph, scales)] = torch.inf
    unit, worst = _balanced(graph, worst)
    number, score = unit.numpy(), worst.numpy()
    outs = {name: classes.numpy()[out.numpy()] for name, out in _norm_outputs(graph).items()}
    for out in outs.values():  # what would empty a layer stays
        mine = number[out]
        if (mine == mine[0]).all():
            score[number == mine[0]] = np.inf
    found, held = Units({}, {}, {}), Counter[str]()
    held[NOT_RUN] = sum(len(gamma) for name, gamma in scales.items() if name not in outs)
    for name, out in outs.items():
        allowed = np.isfinite(score[out])
        if name in scales:
            held.update(why[out[~allowed]].tolist())
            if allowed.any():
                found.number[name] = torch.from_numpy(np.where(allowed, number[out], -1))
                found.score[name] = torch.from_numpy(np.where(allowed, score[out], 0.0))
    found.held_back.update((reason, count) for reason, count in held.most_common() if count)
    return found


def _balanced(graph: Graph, worst: Tensor) -> tuple[Tensor, Tensor]:
    """The unit and the score of every class. Where all rows must keep equally many channels (grouped convolutions,
    chunks), the channels of the same rank in each row leave together.

    Not those that are dead already (score 0): they leave alone, and stay as carriers (demand.py) until their rank has
    left in all rows. If they had to leave with live channels of other rows, the ratio would be filled up with live ones
    while dead ones stay.

    The last channel of a group may leave with the group, on both sides of the convolution; after all others.
    """
    ties, score = Ids(), worst.clone()
    ties.fresh(len(worst))
    for balance in graph.balances.values():
        lasts, others = [], []
        for side in balance.sides:
            if len(side) == 1:
                continue
            classes = graph.classes[side]
            ranked = classes.gather(1, worst[classes].argsort(dim=1, stable=True))
            if balance.droppable:
                lasts.append(ranked[:, -1])
                ranked = ranked[:, :-1]
            live = worst[ranked] > 0
            if ranked.numel():
                first = ranked.gather(0, live.byte().argmax(0, keepdim=True)).expand_as(ranked)
                ties.tie(ranked[live], first[live])
            others.append(ranked[live])
        if lasts:
            _leave_last(torch.stack(lasts), torch.cat(others), ties, worst, score)
    unit = ties.classes()
    return unit, torch.zeros_like(score).scatter_reduce_(0, unit, score, "amax")[unit]


def _leave_last(lasts: Tensor, others: Tensor, ties: Ids, worst: Tensor, score: Tensor) -> None:
    """The last channels of the groups, shape (2, groups), go in pairs; in their own order, after all others."""
    live = worst[lasts] > 0
    ties.tie(*lasts[:, live.all(0)])
    finite = worst[others][worst[others].isfinite()]
    latest = finite.max() if len(finite) else 0.0
    score[lasts[live]] = torch.maximum(worst[lasts[live]], latest + 1e-9 * worst[lasts[live]])


def sample(units: Units, share: float = 0.4) -> dict[str, Tensor]:
    """The channels to keep if about that share of every layer's units leaves, lowest scores first."""
    stay = set[int]()
    for name, number in units.number.items():
        ranked = number[units.score[name].argsort(stable=True)]
        distinct = list(dict.fromkeys(n for n in ranked.tolist() if n >= 0))
        stay.update(distinct[max(1, int(share * len(distinct))) :])
    staying = torch.tensor([-1, *stay])
    return {name: torch.isin(number, staying) for name, number in units.number.items()}


def _norm_outputs(graph: Graph) -> dict[str, Tensor]:
    return {flow.norm: flow.out for flow in graph.flows.values() if isinstance(flow, Each) and flow.norm}


def _reads(graph: Graph) -> list[Tensor]:
    """Ids that somebody reads by value without being tied to them.

    A BN that selects reads too; where what it reads is zero, its own channel leaves as well, so the zero does no harm.
    """
    lines = []
    for flow in graph.flows.values():
        if isinstance(flow, Mix):
            lines.append(flow.ins.flatten())
        else:
            lines += [line for line, tied in zip(flow.ins, flow.tied, strict=True) if not tied]
    return lines


def _scores(graph: Graph, scales: Mapping[str, Tensor]) -> Tensor:
    """The score of every class: the largest among what is read of it; infinite where no BN can make it zero."""
    score = np.full(graph.ids.count, np.inf)
    for line in graph.zeros:
        score[line.numpy()] = 0.0
    for flow in graph.flows.values():
        if isinstance(flow, Mix):
            continue
        out, ins = flow.out.numpy(), [line.numpy() for line in flow.ins]
        if flow.norm in scales:
            score[out] = np.minimum(scales[flow.norm].detach().abs().double().cpu().numpy(), score[ins[0]])
        elif flow.zero == "first":
            score[out] = score[ins[0]]
        elif flow.zero != "never":
            score[out] = (np.minimum if flow.zero == "any" else np.maximum).reduce([score[line] for line in ins])
    worst = torch.zeros(int(graph.classes.max()) + 1, dtype=torch.float64)
    read = torch.cat([torch.empty(0, dtype=torch.long), *_reads(graph)])
    return worst.scatter_reduce_(0, graph.classes[read], torch.from_numpy(score)[read], "amax")


EVERYTHING = frozenset([-1])  # the neutral element of the intersection


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


def _killed_alone(graph: Graph, scales: Mapping[str, Tensor]) -> Tensor:
    """For every class: does one BN layer zero all that is read of it?"""
    sets = _Sets()
    layers = {name: i for i, name in enumerate(scales)}
    nothing, everything = sets.add(frozenset()), sets.add(EVERYTHING)
    killers = np.full(graph.ids.count, nothing)
    for line in graph.zeros:
        killers[line.numpy()] = everything
    for flow in graph.flows.values():
        if isinstance(flow, Mix):
            continue
        out, ins = flow.out.numpy(), [killers[line.numpy()] for line in flow.ins]
        if flow.norm in scales:
            own = np.full(out.shape, sets.add(frozenset([layers[flow.norm]])))
            killers[out] = sets.combine([own, ins[0]], "any")
        elif flow.zero != "never":
            killers[out] = ins[0] if flow.zero == "first" else sets.combine(ins, flow.zero)
    of_class = np.full(int(graph.classes.max()) + 1, everything)
    read = torch.cat([torch.empty(0, dtype=torch.long), *_reads(graph)]).numpy()
    size = len(sets.list)
    at, killer = np.divmod(np.unique(graph.classes.numpy()[read] * size + killers[read]), size)
    for turn in _turns(at):
        of_class[at[turn]] = sets.combine([of_class[at[turn]], killer[turn]], "all")
    return torch.from_numpy(of_class != nothing)


def _turns(values: Numbers) -> list[Numbers]:
    """Positions of the sorted values, split so that no value comes twice in one part."""
    rank = np.arange(len(values)) - np.searchsorted(values, values)
    return [np.flatnonzero(rank == r) for r in range(int(rank.max(initial=-1)) + 1)]
