"""Multiply-adds of what is on a tape; and, from the graph, what a slim network that is not written yet will save."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from netslim.slim.emit import Cut
from netslim.slim.graph import Graph, Mix
from netslim.slim.tape import Node, Tape, state


def node_macs(tape: Tape, node: Node) -> int | None:
    """Multiply-adds of one operation, or None if it is none that multiplies matrices."""
    shapes = [tape.shape[ref] for ref in node.reads]
    out = tape.shape[node.outs[0]] if node.outs else torch.Size()
    if node.name == "convolution":
        x, weight = shapes[:2]
        per_output = math.prod(weight[1:])  # input channels of the group · kernel
        return (math.prod(x) if node.args[6] else math.prod(out)) * per_output
    if node.name in ("mm", "bmm", "mv", "dot", "linear"):
        return math.prod(out) * shapes[0][-1]
    if node.name in ("addmm", "baddbmm", "addmv", "addbmm"):
        return math.prod(out) * shapes[1][-1]
    if node.name.startswith("_scaled_dot_product"):
        query, key, value = shapes[:3]  # (..., L, E), (..., S, E), (..., S, V)
        return math.prod(query) * key[-2] + math.prod(query[:-1]) * key[-2] * value[-1]
    return None


def predicted(graph: Graph, exist: Tensor) -> float:
    """Multiply-adds left if only these ids exist, for the traced input."""
    total = 0.0
    for position, node in enumerate(graph.tape.nodes):
        macs, flow = node_macs(graph.tape, node), graph.flows.get(position)
        if macs and isinstance(flow, Mix):
            pairs = exist[flow.out].sum(1) * exist[flow.ins].sum(1)
            total += macs * float(pairs.sum()) / (flow.out.numel() * flow.ins.shape[1])
        elif macs:
            total += macs * (float(exist[flow.out].double().mean()) if flow is not None else 1.0)
    return total


def gone(model: nn.Module, graph: Graph, exist: Tensor, cut: Cut) -> dict[str, float]:
    """Shares of the parameters and of the multiply-adds that go with the cut."""
    shapes = {name: list(p.shape) for name, p in state(model).items() if isinstance(p, nn.Parameter)}
    params = sum(math.prod(shape) for shape in shapes.values())
    for (name, dim), positions in cut.items():
        if name in shapes:
            shapes[name][dim] = positions.shape[-1]
    left = sum(math.prod(shape) for shape in shapes.values())
    macs = sum(node_macs(graph.tape, node) or 0 for node in graph.tape.nodes)
    return {"parameters": 1 - left / params, "macs": 1 - predicted(graph, exist) / macs if macs else 0.0}
