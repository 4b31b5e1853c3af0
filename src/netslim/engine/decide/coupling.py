"""Coupling: which BN channels can be removed, and which are removed together.

A class (channel_ids.py) is a *unit* of removal if zeroing some of its BN channels leaves nothing that anybody reads.
How many it takes follows from the flows: a sum is zero when all its terms are, a product when one factor is, and a BN
channel when it is removed or its input is zero (a normalised constant says nothing, so it is removed as well). Two
measures:

    score    the smallest threshold t such that removing every channel with a score <= t makes the value zero: max over
             the terms of a sum, min over the factors of a product. It ranks the units.
    killers  the BN layers that can make the value zero alone (killers.py).

coupling="keep" takes the units that one BN kills alone (never a residual stream written by several), "scatter" too, but
in a graph where every BN layer has channels of its own; "group" takes all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from netslim.engine.decide.killers import killed_alone
from netslim.engine.graph.flows import AllToAll, Balance, PerChannel
from netslim.engine.graph.graph import Graph
from netslim.engine.ops.channel_ids import Ids
from netslim.method.scores import Scores

NOT_RUN = "not run with the example input"
Names = npt.NDArray[Any]


@dataclass
class Units:
    """BN name -> unit number per channel (-1: cannot be removed), shape (C,); and the unit's score in each place.

    held: BN name -> what keeps the other channels of the layer -> how many it keeps.
    """

    number: dict[str, Tensor]
    score: dict[str, Tensor]
    held: dict[str, dict[str, int]]

    @property
    def held_back(self) -> dict[str, int]:
        """Of all layers together, the most frequent first."""
        total = Counter[str]()
        for reasons in self.held.values():
            total.update(reasons)
        return dict(total.most_common())


@dataclass
class Worst:
    """Of every class: the largest score among what is read of it, float64, infinite where no BN layer can make it zero;
    and whether something that is read of it is live, bool."""

    score: Tensor
    live: Tensor

    def hold(self, classes: Tensor) -> None:
        """These cannot be removed."""
        self.score[classes] = torch.inf
        self.live[classes] = True


def units(graph: Graph, scores: Scores, coupling: str, frozen: Sequence[tuple[str, Tensor]] = ()) -> Units:
    """The removable units among the BN layers that have scores.

    frozen: (operation, ids) that the replay found to be held by a size written in the code.
    """
    worst = _worst(graph, scores)
    why = _reasons(graph, worst, frozen)
    if coupling != "group":
        worst.hold(~killed_alone(graph, scores.value))
    unit, score = (found.numpy() for found in _balanced(graph, worst))
    outs = {flow.norm: graph.classes.numpy()[flow.out.numpy()] for flow in graph.norm_flows}
    for out in outs.values():  # what would empty a layer is kept
        mine = unit[out]
        if (mine == mine[0]).all():
            score[unit == mine[0]] = np.inf
    found = Units({}, {}, {})
    for name, out in outs.items():
        allowed = np.isfinite(score[out])
        if name in scores.value and allowed.any():
            found.number[name] = torch.from_numpy(np.where(allowed, unit[out], -1))
            found.score[name] = torch.from_numpy(np.where(allowed, score[out], 0.0))
    found.held = _held(scores, {name: why[out[np.isinf(score[out])]].tolist() for name, out in outs.items()})
    return found


def _reasons(graph: Graph, worst: Worst, frozen: Sequence[tuple[str, Tensor]]) -> Names:
    """What holds every class that is held. It is held from now on."""
    why = np.full(len(worst.score), "coupled", dtype=object)
    for flow in graph.flows:
        if isinstance(flow, PerChannel) and not flow.norm and flow.zero == "never":
            reached = graph.classes[flow.out]
            why[reached[worst.score[reached].isinf()].numpy()] = graph.tape.nodes[flow.position].name
    for reason, line in [*graph.pins, *graph.demands, *frozen]:
        worst.hold(graph.classes[line])
        why[graph.classes[line].numpy()] = reason
    return why


def _balanced(graph: Graph, worst: Worst) -> tuple[Tensor, Tensor]:
    """The unit and the score of every class. Where all rows must keep equally many channels (grouped convolutions,
    chunks), the channels of the same rank in each row are removed together.

    Not those that are dead already: they are removed alone, and stay as carriers (liveness.py) until their rank has
    left in all rows. If they had to leave with live channels of other rows, the ratio would be filled up with live ones
    while dead ones stay.

    The last channel of a group may leave with the group, on both sides of the convolution; after all others.
    """
    ties, score = Ids(), worst.score.clone()
    ties.fresh(len(score))
    for balance in graph.balances.values():
        lasts, others = _tie_ranks(graph, balance, worst, ties)
        if lasts:
            _remove_last(torch.stack(lasts), torch.cat(others), ties, worst, score)
    unit = ties.classes()
    return unit, torch.zeros_like(score).scatter_reduce_(0, unit, score, "amax", include_self=False)[unit]


def _tie_ranks(graph: Graph, balance: Balance, worst: Worst, ties: Ids) -> tuple[list[Tensor], list[Tensor]]:
    """Tie live channels of one rank; return the last channels of droppable groups, and the live ones of all others."""
    lasts, others = [], []
    for side in (side for side in balance.sides if len(side) > 1):
        classes = graph.classes[side]
        ranked = classes.gather(1, worst.score[classes].argsort(dim=1, stable=True))
        if balance.droppable:
            lasts.append(ranked[:, -1])
            ranked = ranked[:, :-1]
        live = worst.live[ranked]
        if ranked.numel():
            first = ranked.gather(0, live.byte().argmax(0, keepdim=True)).expand_as(ranked)
            ties.tie(ranked[live], first[live])
        others.append(ranked[live])
    return lasts, others


def _remove_last(lasts: Tensor, others: Tensor, ties: Ids, worst: Worst, score: Tensor) -> None:
    """The last channels of the groups, shape (2, groups), go in pairs; in their own order, after all others."""
    live, own = worst.live[lasts], worst.score[lasts]
    ties.tie(*lasts[:, live.all(0)])
    finite = worst.score[others][worst.score[others].isfinite()]
    latest = finite.max() if len(finite) else 0.0
    score[lasts[live]] = torch.maximum(own[live], latest + 1e-9 * own[live])


def _worst(graph: Graph, scores: Scores) -> Worst:
    """A constant that is zero has the lowest score there is, and is dead."""
    value = {name: score.double().cpu().numpy() for name, score in scores.value.items()}
    gone = {name: dead.cpu().numpy() for name, dead in scores.dead.items()}
    lowest = min(0.0, *(float(score.min(initial=0.0)) for score in value.values()))
    score, dead = np.full(graph.count, np.inf), np.zeros(graph.count, dtype=bool)
    for line in graph.zeros:
        score[line.numpy()], dead[line.numpy()] = lowest, True
    for flow in graph.flows:
        if isinstance(flow, AllToAll):
            continue
        out, ins = flow.out.numpy(), [line.numpy() for line in flow.ins]
        if flow.norm in value:
            score[out] = np.minimum(value[flow.norm], score[ins[0]])
            dead[out] = gone[flow.norm] | dead[ins[0]]
        elif flow.zero == "first":
            score[out], dead[out] = score[ins[0]], dead[ins[0]]
        elif flow.zero != "never":
            some = flow.zero == "any"
            score[out] = (np.minimum if some else np.maximum).reduce([score[line] for line in ins])
            dead[out] = (np.logical_or if some else np.logical_and).reduce([dead[line] for line in ins])
    return _of_classes(graph, torch.from_numpy(score), torch.from_numpy(dead), lowest)


def _of_classes(graph: Graph, score: Tensor, dead: Tensor, lowest: float) -> Worst:
    read, n = graph.read_freely, int(graph.classes.max()) + 1
    worst = torch.full((n,), lowest, dtype=torch.float64)
    live = torch.zeros(n, dtype=torch.bool)
    live[graph.classes[read[~dead[read]]]] = True
    return Worst(worst.scatter_reduce_(0, graph.classes[read], score[read], "amax"), live)


def _held(scores: Scores, reasons: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    """Layer -> reason -> channels."""
    unseen = {name: {NOT_RUN: len(score)} for name, score in scores.value.items() if name not in reasons}
    return unseen | {name: dict(Counter(why)) for name, why in reasons.items() if name in scores.value and why}


def sample(units: Units, share: float = 0.4) -> dict[str, Tensor]:
    """The channels to keep if about that share of every layer's units is removed, lowest scores first."""
    stay = set[int]()
    for name, number in units.number.items():
        ranked = number[units.score[name].argsort(stable=True)]
        distinct = list(dict.fromkeys(n for n in ranked.tolist() if n >= 0))
        stay.update(distinct[max(1, int(share * len(distinct))) :])
    staying = torch.tensor([-1, *stay])
    return {name: torch.isin(number, staying) for name, number in units.number.items()}
