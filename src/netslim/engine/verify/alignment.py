"""Which operation of the slim network is the twin of which one of the dense network."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

import torch
from torch import Tensor

from netslim.engine.decide.size_attributes import width
from netslim.engine.graph.graph import Graph
from netslim.engine.trace.dispatch import Rescue
from netslim.engine.trace.meta_kernels import META
from netslim.engine.trace.tape import Node, Tape, is_own_selection


def pairs(
    dense: Tape, tape: Tape, skipped: Container[int] = (), skips: Callable[[int], bool] = lambda i: False
) -> Iterator[tuple[int, int]]:
    """The positions of the slim network's operations, each with that of its twin on the dense tape; at last both ends.

    The selection of a BN layer has no twin where the dense network's does not select, and the other way round. skipped:
    operations of the dense network that have no twin; skips: does that of the slim network?
    """
    at, nodes = 0, dense.nodes
    for i, node in enumerate(tape.nodes):
        if skips(i):
            continue
        selects = is_own_selection(tape, node)
        while at < len(nodes) and (at in skipped or (not selects and is_own_selection(dense, nodes[at]))):
            at += 1
        yield i, at
        at += not selects or (at < len(nodes) and is_own_selection(dense, nodes[at]))
    while at in skipped:
        at += 1
    yield len(tape.nodes), at


def loose_from(tape: Tape) -> int:
    """From which position on sizes depend on the data."""
    wild = tape.sized_by_data
    return next((i for i, node in enumerate(tape.nodes) if not wild.isdisjoint(node.outs)), len(tape.nodes))


def free_of_channels(dense: Graph) -> set[int]:
    """From there on, the positions of operations that read neither channels nor parameters."""
    tape, first = dense.tape, loose_from(dense.tape)
    if first == len(tape.nodes):
        return set()
    known = {ref for ref, sym in dense.sym.items() if sym is not None} | tape.state.keys()
    return {at for at in range(first, len(tape.nodes)) if known.isdisjoint(tape.nodes[at].reads)}


def rescue(dense: Graph, exist: Tensor) -> Rescue:
    """For ``record`` without numbers: what an operation that fails in the slim network should have made."""

    def made(tape: Tape, node: Node) -> Tensor | None:
        *_, (_, at) = pairs(dense.tape, tape)
        twin = dense.tape.nodes[at] if at < len(dense.tape.nodes) else None
        if twin is None or twin.name != node.name or len(twin.outs) != 1:
            return None
        ref = twin.outs[0]
        sym, shape = dense.sym.get(ref), dense.tape.shape[ref]
        widths = [width(sym, d, exist) if isinstance(sym, Tensor) else None for d in range(len(shape))]
        sizes = [old if new is None else new for old, new in zip(shape, widths, strict=True)]
        return torch.empty(sizes, dtype=dense.tape.dtype[ref], device=META)

    return made
