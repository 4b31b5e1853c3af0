"""From a selection to a network that is proved: solve, cut, record, replay, until the replay finds no fault.

Each round either ends, or learns an order of channels or a class of modules that remember sizes, or freezes channels
that a size written in the code holds fast. Frozen channels only grow in number, and with all of them frozen nothing is
cut, so the rounds come to an end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from netslim.engine.cut import emit, plan
from netslim.engine.decide import size_attributes
from netslim.engine.decide.liveness import solve
from netslim.engine.graph.graph import Each, Graph
from netslim.engine.ops import table
from netslim.engine.ops.arithmetic import new_tensor
from netslim.engine.ops.channel_ids import shrink
from netslim.engine.ops.layout import index_select, move
from netslim.engine.ops.reductions import pad
from netslim.engine.trace.recorder import record
from netslim.engine.trace.tape import Tape, is_own_selection, unread_aliases
from netslim.engine.verify.replay import Deviation, Finding, Replay

Model = TypeVar("Model", bound=nn.Module)
Frozen = list[tuple[str, Tensor]]  # (operation, ids that it holds fast)


@dataclass
class Proved:
    """What exists (bool per id), the orders the replay found, all that is frozen, and what ``emit`` is to do."""

    exist: Tensor
    orders: Finding
    frozen: Frozen
    changes: emit.Changes = field(default_factory=emit.Changes)


def prove(
    model: nn.Module,
    graph: Graph,
    keep: Mapping[str, Tensor],
    example_input: Any,
    frozen: Sequence[tuple[str, Tensor]] = (),
) -> Proved:
    """Find what a network slimmed to `keep` consists of. The model is not changed, only copied.

    Raises:
        RuntimeError: no faultless network was found. Please report it, with the network.
    """
    keep = {name: stays.cpu() for name, stays in keep.items()}
    state = Proved(torch.empty(0), Finding(), list(frozen))
    while True:
        held = torch.cat([torch.empty(0, dtype=torch.long), *(ids for _, ids in state.frozen)])
        state.exist = solve(graph, keep, held).exist
        state.changes = _changes(model, graph, state)
        look = emit.outline(model, state.changes, graph.tape.on_meta)
        recorded = record(look, example_input, modes=graph.tape.modes, on_meta=graph.tape.on_meta)
        reordered = {name for name, _ in state.orders.order}
        found = replay(graph, state.exist, state.changes.cut, reordered, *recorded)
        if found.position is not None:
            if not size_attributes.learn(model, graph, state.exist, found.position):
                state.frozen.append(_freeze(graph, state.exist, found))
            state.orders = Finding()
        elif found.order or found.layouts:
            if state.orders.order.keys() >= found.order.keys() and state.orders.layouts.keys() >= found.layouts.keys():
                state.frozen.append(_unsettled(graph, state.exist, found))  # layers that are used twice
                state.orders = Finding()
            else:
                order, layouts = state.orders.order | found.order, state.orders.layouts | found.layouts
                state.orders = Finding(order=order, layouts=layouts)
        else:
            return state


def replay(dense: Graph, exist: Tensor, cut: emit.Cut, reordered: set[str], recorded: Tape, error: str) -> Finding:
    """Compare the slim network's tape with the dense graph.

    reordered: parameters that are not cut in the dense order. error: why the recording ended early, or "".
    """
    view = Replay(dense, exist, cut, reordered, recorded)
    nodes = dense.tape.nodes
    skip = unread_aliases(dense.tape)
    at = 0
    try:
        for node in recorded.nodes:
            selection = is_own_selection(recorded, node)
            while at < len(nodes) and is_own_selection(dense.tape, nodes[at]) and not selection:
                at += 1
            view.position = at
            if at >= len(nodes):
                raise Deviation("the slim network does more than the dense one")
            if not selection and node.name != nodes[at].name:
                raise Deviation(f"{node.name} instead of {nodes[at].name}")
            if selection:
                view.step(node)
            elif at not in skip:
                view.compare(node, nodes[at])
            at += not selection or is_own_selection(dense.tape, nodes[at])
        view.position = min(at, len(nodes) - 1)
        if error or at < len(nodes):
            raise Deviation(error or "the slim network does less than the dense one")
        _compare_outputs(dense, view)
    except Deviation as deviation:
        return Finding(view.position, f"{nodes[view.position].name}: {deviation}")
    except (RuntimeError, IndexError) as failure:  # the ids cannot be moved as the data would be
        return Finding(view.position, f"{nodes[view.position].name}: {failure}")
    return view.finding


def _compare_outputs(dense: Graph, view: Replay) -> None:
    ours, theirs = view.tape.outputs, dense.tape.outputs
    if [view.tape.shape[r] for r in ours] != [dense.tape.shape[r] for r in theirs]:
        raise Deviation("the outputs have other shapes")
    for a, b in zip(ours, theirs, strict=True):
        if a in view.kept and view.twin[a] == b:
            continue
        mine, promised = view.sym.get(a), dense.sym.get(b)
        if isinstance(promised, Tensor) and not (isinstance(mine, Tensor) and torch.equal(mine, promised)):
            raise Deviation("the outputs hold other channels")


def _changes(model: nn.Module, graph: Graph, state: Proved) -> emit.Changes:
    """What emission is to do if only these ids exist."""
    exist, numbers = state.exist, state.exist.numpy()
    cut = emit.cuts(graph, exist, state.orders.order)
    return emit.Changes(
        cut=cut,
        select=emit.selections(graph, exist, state.orders.layouts),
        scatter=emit.scatters(graph, exist, cut),
        groups={name: int(numbers[ids.numpy()].any(1).sum()) for name, ids in graph.groups.items()},
        sizes=size_attributes.remembered(model, graph, exist),
    )


def write(model: Model, state: Proved, keep: Mapping[str, Tensor]) -> Model:
    """The slim network, with its plan."""
    small = emit.emit(model, state.changes, keep)
    setattr(small, plan.ATTRIBUTE, plan.make(model, state.changes))
    return small


def untested(graph: Graph, exist: Tensor, units: Mapping[str, Tensor]) -> bool:
    """Could a size written in the code hold channels that a proved network with these ids has left whole?

    units: BN name -> unit per channel, -1 where it cannot leave. Sizes are held by operations that move data or make
    tensors; all others take them from what they read.
    """
    leave = torch.zeros(int(graph.classes.max()) + 1, dtype=torch.bool)
    for flow in graph.flows.values():
        if isinstance(flow, Each) and flow.norm in units:
            leave[graph.classes[flow.out[units[flow.norm] >= 0]]] = True
    nodes = graph.tape.nodes
    read = {ref for node in nodes for ref in node.reads}
    for position, node in enumerate(nodes):
        rule = table.rule_for(node)
        if rule is new_tensor and not read.isdisjoint(node.outs):
            return True
        if rule in (move, index_select, pad) and any(
            leave[graph.classes[ids]].any() and exist[ids].all() for ids in touched(graph, position)
        ):
            return True
    return False


def _freeze(graph: Graph, exist: Tensor, found: Finding) -> tuple[str, Tensor]:
    """The channels that a deviating slice counts, else those that the operation reads, else those it makes, else those
    of the one before; at last those of the ones after, whose modules' sizes it may have read."""
    failed = found.position or 0
    for position in [*range(failed, -1, -1), *range(failed + 1, len(graph.tape.nodes))]:
        for ids in [size_attributes.before_the_cut(graph, position), *touched(graph, position)]:
            if not exist[ids].all():
                _release(graph, position)
                return graph.tape.nodes[min(position, failed)].name, ids
    raise RuntimeError(f"no slim network could be proved equal to the masked one: {found.reason}")


def _unsettled(graph: Graph, exist: Tensor, found: Finding) -> tuple[str, Tensor]:
    """Channels that arrive in another order each time they are cut in the order in which they arrived."""
    lines = [*(graph.axes[key].flatten() for key in found.order), *(graph.sources[norm] for norm in found.layouts)]
    ids = torch.cat(lines).unique()
    if exist[ids].all():
        raise RuntimeError(f"the order of channels does not settle at {[*found.order, *found.layouts]}")
    return "order of channels", ids


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
