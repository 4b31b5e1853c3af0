"""What a slim network that is not written yet will save.

Of a network that is run in several modes, the first run counts: the later ones do most of it once more.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from netslim.engine.cut.emit import Cut
from netslim.engine.graph.flows import AllToAll
from netslim.engine.graph.graph import Graph
from netslim.engine.ops.table import node_macs
from netslim.modules import Network


def predicted(graph: Graph, exist: Tensor) -> float:
    """Multiply-adds left if only these ids exist, for the traced input."""
    total = 0.0
    for position, node in enumerate(graph.tape.first_run):
        macs, flow = node_macs(graph.tape, node), graph.flow_at.get(position)
        if macs and isinstance(flow, AllToAll):
            pairs = exist[flow.out].sum(1) * exist[flow.ins].sum(1)
            total += macs * float(pairs.sum()) / (flow.out.numel() * flow.ins.shape[1])
        elif macs:
            total += macs * (float(exist[flow.out].double().mean()) if flow is not None else 1.0)
    return total


def savings(network: Network, graph: Graph, exist: Tensor, cut: Cut) -> dict[str, float]:
    """Shares of the parameters and of the multiply-adds that go with the cut."""
    shapes = {name: list(p.shape) for name, p in network.state.items() if isinstance(p, nn.Parameter)}
    params = sum(math.prod(shape) for shape in shapes.values())
    for (name, dim), positions in cut.items():
        if name in shapes:
            shapes[name][dim] = positions.shape[-1]
    left = sum(math.prod(shape) for shape in shapes.values())
    macs = sum(node_macs(graph.tape, node) or 0 for node in graph.tape.first_run)
    return {"parameters": 1 - left / params, "macs": 1 - predicted(graph, exist) / macs if macs else 0.0}
