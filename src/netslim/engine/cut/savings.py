"""What a slim network that is not written yet will save.

Of a network that is run in several modes, the first run counts: the later ones do most of it once more.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from netslim.engine.cut.emit import cuts
from netslim.engine.graph.flows import AllToAll
from netslim.engine.graph.graph import Graph
from netslim.engine.ops.table import node_macs
from netslim.modules import Network


def macs_left(network: Network, graph: Graph, exist: Tensor) -> float:
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


def params_left(network: Network, graph: Graph, exist: Tensor) -> float:
    """Parameters left if only these ids exist."""
    shapes = {name: list(p.shape) for name, p in network.state.items() if isinstance(p, nn.Parameter)}
    for (name, dim), positions in cuts(graph, exist).items():
        if name in shapes:
            shapes[name][dim] = positions.shape[-1]
    return float(sum(math.prod(shape) for shape in shapes.values()))


def savings(network: Network, graph: Graph, exist: Tensor) -> dict[str, float]:
    """Shares of the parameters and of the multiply-adds that the slim network is without."""
    params = sum(p.numel() for p in network.state.values() if isinstance(p, nn.Parameter))
    macs = sum(node_macs(graph.tape, node) or 0 for node in graph.tape.first_run)
    return {
        "parameters": 1 - params_left(network, graph, exist) / params,
        "macs": 1 - macs_left(network, graph, exist) / macs if macs else 0.0,
    }
