"""From a selection to a network that is proved: solve, cut, record, replay, until the replay finds no fault.

Each round either ends, or learns an order of channels or a class of modules that remember sizes, or freezes channels
that a size written in the code holds fast. Frozen channels only grow in number, and with all of them frozen nothing is
cut, so the rounds come to an end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from netslim.engine.cut import emit, plan
from netslim.engine.decide import size_attributes
from netslim.engine.decide.liveness import solve
from netslim.engine.graph.graph import Graph
from netslim.engine.ops import table
from netslim.engine.ops.channel_ids import shrink
from netslim.engine.trace.recorder import record
from netslim.engine.verify.alignment import rescue
from netslim.engine.verify.promises import Orders
from netslim.engine.verify.replay import Deviating, Replayed, replay
from netslim.modules import Network

Frozen = list[tuple[str, Tensor]]  # (operation, ids that it holds fast)


@dataclass
class Proved:
    """What exists (bool per id), the orders the replay found, all that is frozen, and what ``emit`` is to do."""

    exist: Tensor
    orders: Orders
    frozen: Frozen
    changes: emit.Changes = field(default_factory=emit.Changes)


def prove(
    network: Network,
    graph: Graph,
    keep: Mapping[str, Tensor],
    example_input: Any,
    frozen: Sequence[tuple[str, Tensor]] = (),
    *,
    until_frozen: bool = False,
) -> Proved:
    """Find what a network slimmed to `keep` consists of. The model is not changed, only copied.

    until_frozen: return as soon as there is more to freeze, unproved; the selection is going to be another one then.

    Raises:
        RuntimeError: no faultless network was found. Please report it, with the network.
    """
    keep = {name: kept.cpu() for name, kept in keep.items()}
    state = Proved(torch.empty(0), Orders(), list(frozen))
    while not until_frozen or len(state.frozen) == len(frozen):
        held = torch.cat([torch.empty(0, dtype=torch.long), *(ids for _, ids in state.frozen)])
        state.exist = solve(graph, keep, held).exist
        state.changes = _changes(network, graph, state)
        found = _try(network, graph, state, example_input)
        if found.deviations:
            if not size_attributes.learn(network, graph, state.exist, found.deviations[0].position):
                state.frozen += _freeze_alike(network, graph, state.exist, found.deviations)
            state.orders = Orders()
        elif found.orders:
            _reorder(graph, state, found.orders)
        else:
            break
    return state


def _try(network: Network, graph: Graph, state: Proved, example_input: Any) -> Replayed:
    """Record the network that the changes make, and compare it with the dense one."""
    tape = graph.tape
    look = emit.outline(network, state.changes, tape.on_meta)
    if tape.on_meta:
        made = rescue(graph, state.exist)
        recorded = record(
            look, example_input, passes=tape.passes, kernels=table.shortcut, rescue=made, made_up=tape.made_up
        )
    else:
        recorded = record(look, example_input, passes=tape.passes)
    reordered = {name for name, _ in state.orders.order}
    return replay(graph, state.exist, state.changes.cut, reordered, *recorded)


def _changes(network: Network, graph: Graph, state: Proved) -> emit.Changes:
    """What emission is to do if only these ids exist."""
    exist, numbers = state.exist, state.exist.numpy()
    cut = emit.cuts(graph, exist, state.orders.order)
    return emit.Changes(
        cut=cut,
        select=emit.selections(graph, exist, state.orders.layouts),
        scatter=emit.scatters(graph, exist, cut),
        groups={name: int(numbers[ids.numpy()].any(1).sum()) for name, ids in graph.groups.items()},
        sizes=size_attributes.remembered(network, graph, exist),
    )


def write(network: Network, state: Proved, keep: Mapping[str, Tensor]) -> nn.Module:
    """The slim network, with its plan."""
    small = emit.emit(network, state.changes, keep)
    plan.carry(small, plan.make(network, state.changes))
    return small


def untested(graph: Graph, exist: Tensor, units: Mapping[str, Tensor]) -> bool:
    """Could a size written in the code hold channels that a proved network with these ids has left whole?

    units: BN name -> unit per channel, -1 where it cannot leave. Sizes are held by operations that move data or make
    tensors; all others take them from what they read.
    """
    leave = torch.zeros(int(graph.classes.max()) + 1, dtype=torch.bool)
    for flow in graph.norm_flows:
        if flow.norm in units:
            leave[graph.classes[flow.out[units[flow.norm] >= 0]]] = True
    nodes = graph.tape.nodes
    read = {ref for node in nodes for ref in node.reads}
    for position, node in enumerate(nodes):
        rule = table.rule_for(node)
        if rule.makes and not read.isdisjoint(node.outs):
            return True
        if rule.moves and any(leave[graph.classes[ids]].any() and exist[ids].all() for ids in touched(graph, position)):
            return True
    return False


def _freeze_alike(network: Network, graph: Graph, exist: Tensor, deviations: Sequence[Deviating]) -> Frozen:
    """What the first deviation shows; if it is an operation that fails, also that of all others of its kind: the same
    operation in modules of the same class. All others may be consequences, and are left to the next round."""

    def kind(deviation: Deviating) -> tuple[Any, str]:
        node = graph.tape.nodes[deviation.position]
        return type(network.modules.get(node.module or "")), node.name

    first, *others = deviations
    frozen = [_freeze(graph, exist, first)]
    for deviation in others:
        if first.fails and deviation.fails and kind(deviation) == kind(first):
            held = torch.zeros(graph.count, dtype=torch.bool)
            held[graph.classes[frozen[-1][1]]] = True
            exist = exist | held[graph.classes]
            with contextlib.suppress(RuntimeError):  # nothing is left to freeze: it was a consequence
                frozen.append(_freeze(graph, exist, deviation))
    return frozen


def _freeze(graph: Graph, exist: Tensor, found: Deviating) -> tuple[str, Tensor]:
    """The channels that a deviating slice counts, else those that the operation reads, else those it makes, else those
    of the one before; at last those of the ones after, whose modules' sizes it may have read."""
    failed = found.position
    for position, ids in _around(graph, failed):
        if not exist[ids].all():
            _release(graph, position)
            return graph.tape.nodes[min(position, failed)].name, ids
    raise RuntimeError(f"no slim network could be proved equal to the masked one: {found.reason}")


def _around(graph: Graph, failed: int) -> Iterator[tuple[int, Tensor]]:
    for position in [*range(failed, -1, -1), *range(failed + 1, len(graph.tape.nodes))]:
        for ids in [size_attributes.before_the_cut(graph, position), *touched(graph, position)]:
            yield position, ids


def _reorder(graph: Graph, state: Proved, found: Orders) -> None:
    """Cut in the orders that were found; freeze the channels that arrive in another order each time they are cut in the
    order in which they arrived (layers that are used twice)."""
    known = state.orders
    if not (known.order.keys() >= found.order.keys() and known.layouts.keys() >= found.layouts.keys()):
        state.orders = Orders(known.order | found.order, known.layouts | found.layouts)
        return
    lines = [*(graph.axes[key].flatten() for key in found.order), *(graph.sources[norm] for norm in found.layouts)]
    ids = torch.cat(lines).unique()
    if state.exist[ids].all():
        raise RuntimeError(f"the order of channels does not settle at {[*found.order, *found.layouts]}")
    state.frozen.append(("order of channels", ids))
    state.orders = Orders()


def _release(graph: Graph, position: int) -> None:
    """Shares cut off by a number need not be equal; and if one slice of a tensor is, so are all."""
    nodes = graph.tape.nodes
    for other, balance in list(graph.balances.items()):
        sliced = nodes[other].name == nodes[position].name == "slice" and nodes[other].reads == nodes[position].reads
        if not balance.droppable and (sliced or other == position):
            graph.release(other)


def touched(graph: Graph, position: int) -> list[Tensor]:
    """The ids that one operation of the dense network reads, and those that it makes."""
    node = graph.tape.nodes[position]
    groups = [[graph.sym.get(ref) for ref in refs] for refs in (node.reads, node.outs)]
    nothing = torch.empty(0, dtype=torch.long)
    return [torch.cat([nothing, *(shrink(s).unique() for s in syms if isinstance(s, Tensor))]) for syms in groups]
