"""From what depends on what to a proved selection."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from netslim.engine.cut.savings import savings
from netslim.engine.decide.choose import Amount
from netslim.engine.decide.coupling import Units, sample, units
from netslim.engine.graph.graph import Graph
from netslim.engine.graph.streams import can_scatter
from netslim.engine.selection import Selection
from netslim.engine.verify.analyse import Proof, graph_of
from netslim.engine.verify.prove import Frozen, Proved, prove, untested
from netslim.method.scores import Scores
from netslim.modules import Network


def choose(
    network: Network, graph: Graph, scores: Scores, coupling: str, amount: Amount, example_input: Any
) -> Selection:
    """Choose among what can be removed, and prove it; again, where that shows that something cannot be."""
    found = units(graph, scores, coupling)
    asked, keep = amount.choose(network, graph, _removable(network, found, coupling))
    proved = prove(network, graph, keep, example_input, until_frozen=True)
    if proved.frozen or untested(graph, proved.exist, found.number):
        found, frozen = _effective_units(network, graph, scores, coupling, example_input)
        if frozen:
            asked, keep = amount.choose(network, graph, _removable(network, found, coupling))
        if frozen or proved.frozen:
            proved = prove(network, graph, keep, example_input)
    described = _described(network, graph, scores, found, asked, keep, proved, example_input)
    described.coupling, described.at_floor = coupling, amount.at_floor(keep)
    described.predicted = amount.predicted(graph, proved.exist)
    return described


def _described(
    network: Network,
    graph: Graph,
    scores: Scores,
    found: Units,
    asked: float,
    keep: dict[str, Tensor],
    proved: Proved,
    example_input: Any,
) -> Selection:
    prunable = sum(int((number >= 0).sum()) for number in found.number.values())
    removed = sum(int((~kept).sum()) for kept in keep.values())
    norms = [flow for flow in graph.norm_flows if flow.norm in keep]
    carried = sum(int((proved.exist[flow.out] & ~keep[flow.norm]).sum()) for flow in norms)
    saved = savings(network, graph, proved.exist)
    return Selection(
        keep,
        asked=asked,
        prunable=prunable,
        removed=removed,
        carried=carried,
        delivered={"channels": (removed - carried) / prunable, **saved},
        held=found.held,
        held_back=found.held_back,
        scattering=graph.scattering,
        scores=scores,
        proof=Proof(network, keep, example_input, graph, proved),
    )


def _effective_units(
    network: Network, graph: Graph, scores: Scores, coupling: str, example_input: Any
) -> tuple[Units, Frozen]:
    """The units that are removed for real: a try with 40 % of every layer shows which a size in the code holds.

    Not needed where a selection is proved and has tested every operation that could hold such a size.
    """
    frozen: Frozen = []
    while True:
        found = units(graph, scores, coupling, frozen)
        tried = prove(network, graph, sample(found), example_input, frozen, until_frozen=True)
        if len(tried.frozen) == len(frozen):
            return found, frozen
        frozen = tried.frozen


def scattering_graph(network: Network, graph: Graph, example_input: Any, scores: Scores) -> Graph:
    """The graph in which the BN layers that could not lose all their channels otherwise scatter, where that saves more
    than their own γ and β: their input must be theirs alone."""
    free = _effective_units(network, graph, scores, "keep", example_input)[0].number
    held = {name for name in scores.value if name not in free or bool((free[name] < 0).any())}
    owners = {name: owner for name, owner in can_scatter(graph).items() if name in held}
    scattered = graph_of(network, graph.tape, owners)
    useful = {name: owner for name, owner in owners.items() if name not in scattered.sources}
    return graph_of(network, graph.tape, useful) if len(useful) < len(owners) else scattered


def _removable(network: Network, found: Units, coupling: str) -> Units:
    if not found.score:
        held = ", ".join(f"{n} by {why}" for why, n in found.held_back.items())
        remedy = "" if coupling == "scatter" else "; coupling='scatter' prunes layers that others hold back"
        kind = type(network.model).__name__
        raise ValueError(f"no BatchNorm layer of {kind} can lose channels ({held} with {coupling=}){remedy}")
    return found
