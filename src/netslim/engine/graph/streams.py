"""BN layers at streams: which read, and which can write, only some of the channels that others use too."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from netslim.engine.trace.tape import SELECT

if TYPE_CHECKING:
    from netslim.engine.graph.graph import Each, Graph


def selecting(graph: Graph) -> set[str]:
    """BN layers whose input others read too, or that cannot shrink: they get an index selection in front.

    A layer that is called twice cannot have two selections, so it only selects if it reads the same channels each time
    (as in training and in eval mode); nor does one whose input repeats ids (flattened images), because an id does not
    say which of its places is meant; nor one whose input and output exist together anyway (a residual branch that ends
    in it and is channel by channel).
    """
    classes = graph.ids.classes().numpy()
    calls = _calls(graph)
    last = {name: flows[-1][1] for name, flows in calls.items() if _read_the_same([f for _, f in flows], classes)}
    readers = np.zeros(graph.ids.count, dtype=np.int64)
    for flow in graph.flows.values():
        if last.get(flow.norm, flow) is flow:
            for line in flow.reads:
                readers[classes[line.numpy()]] += 1  # once per line, however often a class is in it
    for _, line in [*graph.demands, *graph.pins]:
        readers[classes[line.numpy()]] += 1
    return {
        name
        for name, flow in last.items()
        if name in graph.sources
        and ((readers[classes[flow.ins[0].numpy()]] > 1).any() or graph.sources[name] is not flow.ins[0])
        and (classes[flow.out.numpy()] != classes[flow.ins[0].numpy()]).any()
        and len(graph.sources[name].unique()) == len(graph.sources[name])
    }


def _read_the_same(flows: list[Each], classes: npt.NDArray[np.int64]) -> bool:
    first, *others = [classes[flow.ins[0].numpy()] for flow in flows]
    return all(np.array_equal(first, line) for line in others)


def can_scatter(graph: Graph) -> dict[str, str]:
    """BN layers of which a hook can scatter the channels -> the module whose hook does it.

    They are called once, and their output is that of the normalisation; or a module inside them computes it from that
    (timm's BN layers with an activation). Not those whose γ, β or statistics the network reads elsewhere too, as for a
    penalty that it returns.
    """
    nodes = graph.tape.nodes
    states = {ref: name.rpartition(".")[::2] for ref, name in graph.tape.state.items()}
    layer_of = {ref: layer for ref, (layer, name) in states.items() if name != SELECT}
    readers = Counter(layer_of[ref] for node in nodes for ref in {*node.reads} & layer_of.keys())
    span: dict[str, tuple[int, int]] = {}  # module -> where on the tape it, or a module inside, comes first and last
    for position, node in enumerate(nodes):
        parts = node.module.split(".") if node.module is not None else []
        for module in (".".join(parts[:i]) for i in range(1, len(parts) + 1)):
            span[module] = span.get(module, (position,))[0], position
    found = {}
    for name, flows in _calls(graph).items():
        if len(flows) > 1 or readers[name] > len(nodes[flows[0][0]].reads) - 1:
            continue
        position, end = flows[0][0], span.get(name, (0, -1))[1]
        if end == position:
            found[name] = name
        elif end > position:
            inner = nodes[position + 1].module or ""
            if inner.startswith(f"{name}.") and span[inner][0] == position + 1 and span[inner][1] <= end:
                found[name] = inner
    return found


def _calls(graph: Graph) -> dict[str, list[tuple[int, Each]]]:
    """BN layers -> the positions on the tape where they are called, and their flows there."""
    calls: dict[str, list[tuple[int, Each]]] = {}
    for position, flow in graph.flows.items():
        if not isinstance(flow.ins, Tensor) and flow.norm:
            calls.setdefault(flow.norm, []).append((position, flow))
    return calls
