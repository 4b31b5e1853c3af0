"""BN layers at streams: which read, and which can write, only some of the channels that others use too."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
from torch import Tensor

from netslim.engine.graph.flows import PerChannel
from netslim.engine.graph.graph import Graph
from netslim.engine.trace.tape import SELECT, Tape

# (run, module) -> where on the tape it, or a module inside it, comes first and last in that run
Spans = dict[tuple[int, str], tuple[int, int]]


def selecting(graph: Graph, of_ids: Tensor) -> set[str]:
    """BN layers whose input others read too, or that cannot shrink: they get an index selection in front.

    A layer that is called twice cannot have two selections, so it only selects if it reads the same channels each time
    (as in training and in eval mode); nor does one whose input repeats ids (flattened images), because an id does not
    say which of its places is meant; nor one whose input and output exist together anyway (a residual branch that ends
    in it and is channel by channel).

    of_ids: the class of every id, before BN layers that do not select are tied to what they read.
    """
    classes = of_ids.numpy()
    calls = _calls(graph)
    last = {name: flows[-1] for name, flows in calls.items() if _read_the_same(flows, classes)}
    readers = _readers(graph, last, classes)
    return {
        name
        for name, flow in last.items()
        if name in graph.sources
        and name  # nothing can stand around the network itself
        and ((readers[classes[flow.ins[0].numpy()]] > 1).any() or graph.sources[name] is not flow.ins[0])
        and (classes[flow.out.numpy()] != classes[flow.ins[0].numpy()]).any()
        and len(graph.sources[name].unique()) == len(graph.sources[name])
    }


def _readers(graph: Graph, last: dict[str, PerChannel], classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often every class is read: once per line, however often it is in that. Of two calls of a layer the last."""
    lines = [line for _, line in [*graph.demands, *graph.pins]]
    for flow in graph.flows:
        if last.get(flow.norm, flow) is flow:
            lines += flow.ins if isinstance(flow, PerChannel) and flow.norm else flow.free
    readers = np.zeros(len(classes), dtype=np.int64)
    for line in lines:
        readers[classes[line.numpy()]] += 1
    return readers


def _read_the_same(flows: list[PerChannel], classes: npt.NDArray[np.int64]) -> bool:
    first, *others = [classes[flow.ins[0].numpy()] for flow in flows]
    return all(np.array_equal(first, line) for line in others)


def can_scatter(graph: Graph) -> dict[str, str]:
    """BN layers of which the channels can be scattered -> the layer around which that is done.

    They are called once in each run, and their output is that of the normalisation; or a module inside them computes it
    from that (timm's BN layers with an activation). Not those whose γ, β or statistics the network reads elsewhere too,
    as for a penalty that it returns.
    """
    nodes, readers, spans, found = graph.tape.nodes, _state_readers(graph), _spans(graph.tape), {}
    for name, flows in _calls(graph).items():
        calls = {graph.tape.run_of(flow.position): flow.position for flow in flows}
        owners = {_writer(graph.tape, spans, run, name, position) for run, position in calls.items()}
        known = sum(len(nodes[flow.position].reads) - 1 for flow in flows)
        if name and len(calls) == len(flows) and readers[name] <= known and len(owners) == 1:
            found[name] = owners.pop()
    return {name: owner for name, owner in found.items() if owner is not None}


def _writer(tape: Tape, spans: Spans, run: int, name: str, position: int) -> str | None:
    """The module that makes the output of a BN layer in one run, if it is the layer or a part of it."""
    end = spans.get((run, name), (0, -1))[1]
    if end == position:
        return name
    inner = tape.nodes[position + 1].module or "" if end > position else ""
    first = inner.startswith(f"{name}.") and spans[run, inner][0] == position + 1
    return inner if first and spans[run, inner][1] <= end else None


def _state_readers(graph: Graph) -> Counter[str]:
    """Module -> how often its parameters and buffers are read, without the engine's own selections."""
    states = {ref: name.rpartition(".")[::2] for ref, name in graph.tape.state.items()}
    owners = {ref: module for ref, (module, name) in states.items() if name != SELECT}
    return Counter(owners[ref] for node in graph.tape.nodes for ref in {*node.reads} & owners.keys())


def _spans(tape: Tape) -> Spans:
    spans: Spans = {}
    for position, node in enumerate(tape.nodes):
        run, parts = tape.run_of(position), node.module.split(".") if node.module is not None else []
        for key in ((run, ".".join(parts[:i])) for i in range(1, len(parts) + 1)):
            spans[key] = spans.get(key, (position,))[0], position
    return spans


def _calls(graph: Graph) -> dict[str, list[PerChannel]]:
    """BN layers -> their flows, one per call."""
    calls: dict[str, list[PerChannel]] = {}
    for flow in graph.norm_flows:
        calls.setdefault(flow.norm, []).append(flow)
    return calls
