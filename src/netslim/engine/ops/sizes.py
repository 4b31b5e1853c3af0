"""The sizes among an operation's arguments, and what they count: (size, ids, the dimension along which it counts them).

Modules remember such sizes as attributes (decide/size_attributes.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from netslim.engine.ops.context import Sym
from netslim.engine.trace.tape import Node, Tape

Count = tuple[int, Tensor, int]


class Shadows(Protocol):
    """As in ``Context``, which is one."""

    tape: Tape
    sym: dict[int, Sym]
    groups: dict[str, Tensor]


Counts = Callable[[Shadows, Node], list[Count]]


def groups(g: Shadows, node: Node) -> list[Count]:
    """convolution(..., groups)"""
    ids = g.groups.get(g.tape.state.get(node.args[1].index, ""))
    return [] if ids is None else [(node.args[8], ids, 0)]


def view(g: Shadows, node: Node) -> list[Count]:
    """view(x, sizes)"""
    sizes, out = node.args[1], g.sym.get(node.outs[0])
    if not isinstance(out, Tensor) or not isinstance(sizes, (list, tuple)) or len(sizes) != out.dim():
        return []
    return [(size, out, d) for d, size in enumerate(sizes)]


def split(g: Shadows, node: Node) -> list[Count]:
    """split(x, size, dim), split_with_sizes(x, sizes, dim)"""
    x, dim = g.sym.get(node.args[0].index), (*node.args[2:], 0)[0]
    outs = node.outs if node.name == "split_with_sizes" else node.outs[:1]
    parts = [part for ref in outs if isinstance(part := g.sym.get(ref), Tensor)]
    return [(part.size(dim), part, dim) for part in [*parts, x]] if isinstance(x, Tensor) else []


def slice_ends(g: Shadows, node: Node) -> list[Count]:
    """slice(x, dim, start, end)"""
    x, dim = g.sym.get(node.args[0].index), (*node.args[1:2], 0)[0]
    if not isinstance(x, Tensor):
        return []
    ends = [end for end in node.args[2:4] if end is not None and 0 < end < x.size(dim)]
    return [(end, x.narrow(dim, 0, end), dim) for end in ends] + [(x.size(dim), x, dim)]
