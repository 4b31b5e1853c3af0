"""Multiply-adds of one operation, from the shapes that it reads and makes."""

from __future__ import annotations

import math
from collections.abc import Callable

from netslim.engine.trace.tape import Node, Tape

Macs = Callable[[Tape, Node], int]


def free(tape: Tape, node: Node) -> int:
    """What only moves, compares or scales values counts nothing, by convention."""
    return 0


def convolution(tape: Tape, node: Node) -> int:
    x, weight = (tape.shape[ref] for ref in node.reads[:2])
    transposed = node.args[6]
    per_position = math.prod(weight[1:])  # input channels of the group · kernel
    return math.prod(x if transposed else tape.shape[node.outs[0]]) * per_position


def product(tape: Tape, node: Node) -> int:
    """mm(a, b), linear(x, weight)..."""
    return math.prod(tape.shape[node.outs[0]]) * tape.shape[node.reads[0]][-1]


def added_product(tape: Tape, node: Node) -> int:
    """addmm(bias, a, b)..."""
    return math.prod(tape.shape[node.outs[0]]) * tape.shape[node.reads[1]][-1]


def attention(tape: Tape, node: Node) -> int:
    query, key, value = (tape.shape[ref] for ref in node.reads[:3])  # (..., L, E), (..., S, E), (..., S, V)
    return math.prod(query) * key[-2] + math.prod(query[:-1]) * key[-2] * value[-1]
