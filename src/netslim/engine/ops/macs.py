"""Multiply-adds of what is on a tape; and, from the graph, what a slim network that is not written yet will save."""

from __future__ import annotations

import math

import torch

from netslim.engine.trace.tape import Node, Tape


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
