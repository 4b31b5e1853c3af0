"""Rules of operations that pool, sum, normalise or pad along dimensions of one tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from netslim.engine.ops.arithmetic import barrier, pointwise
from netslim.engine.ops.channel_ids import broadcast_ids, shrink
from netslim.engine.ops.context import Context, Syms, known, padding
from netslim.engine.trace.tape import Node


def per_channel(g: Context, node: Node) -> Syms:
    """Pooling, interpolation, padding: channel on channel, if ids do not vary along the dimensions they work on.

    Those are the last ones, as many as the name says. That a dimension keeps its length does not mean that it is left
    alone: windows of three may overlap, and what padding adds on one side it may cut off on the other.
    """
    spatial = int(re.findall(r"[123](?=d)", node.name)[0])
    return along_others(g, node, range(-spatial, 0))


def along_others(g: Context, node: Node, touched: Iterable[int]) -> Syms:
    sym, shape = known(g, node.args[0].index), g.tape.shape[node.outs[0]]
    if sym is None:
        return []
    small = shrink(sym)
    if small.dim() != len(shape) or any(small.size(d) > 1 for d in touched):
        return barrier(g, node)
    return [renewed(g, small).expand(shape)]


def renewed(g: Context, small: Tensor) -> Tensor:
    """New ids, tied one by one to these and zero where these are: other values in the same channels."""
    return g.per_channel([small.flatten()], "all").reshape(small.shape)


def reduction(g: Context, node: Node) -> Syms:
    """mean, max, var... over dimensions along which ids do not vary. Where a maximum is, nothing is known of."""
    x = node.args[0].index
    sym, shape = known(g, x), g.tape.shape[node.outs[0]]
    if sym is None:
        return []
    dims, small = _reduced_dims(node, sym.dim()), shrink(sym)
    summed = [d for d in dims if small.size(d) > 1]
    if len(summed) > 1:
        return barrier(g, node)
    if summed:  # a sum over stacked branches: position on position
        parts = [part.unsqueeze(summed[0]) for part in small.unbind(summed[0])]
        small = g.per_channel([part.flatten() for part in parts], "all").reshape(parts[0].shape)
    else:
        small = renewed(g, small)
    if len(shape) < sym.dim():
        small = small.reshape([n for d, n in enumerate(small.shape) if d not in dims])
    return [small.expand(shape)] * (2 if node.name == "var_mean" else 1)


def _reduced_dims(node: Node, total: int) -> list[int]:
    dims = node.args[1] if len(node.args) > 1 else None
    dims = [dims] if isinstance(dims, int) else dims or range(total)
    return [d % total for d in dims]


def softmax(g: Context, node: Node) -> Syms:
    """Each output depends on all inputs along `dim`."""
    sym, dim = known(g, node.args[0].index), node.args[1]
    if sym is None:
        return []
    small = shrink(sym)
    if small.size(dim) == 1:
        return pointwise(g, node, zero="never")
    others = [part.unsqueeze(dim).expand(small.shape).flatten() for part in small.unbind(dim)]
    out = g.per_channel([small.flatten(), *others], "never", [True] + [False] * len(others))
    g.balance(small.movedim(dim, 0).reshape(small.size(dim), -1))
    return [out.reshape(small.shape).expand(sym.shape)]


def pad(g: Context, node: Node) -> Syms:
    """constant_pad_nd(x, widths, value): the new channels, if any, are constants."""
    x, widths, value = (*node.args, 0)[:3]
    sym, shape = known(g, x.index), g.tape.shape[node.outs[0]]
    if sym is None:
        return []
    small = shrink(sym)
    own = g.tape.shape[x.index]
    moved = [small.dim() - 1 - axis for axis in range(len(widths) // 2) if any(widths[2 * axis : 2 * axis + 2])]
    grown = [d for d in moved if small.size(d) == own[d]]
    if not grown and value == 0:
        return along_others(g, node, moved)
    if not grown:
        out = g.per_channel([small.flatten()], "never")
        return [out.reshape(small.shape).expand(shape)]
    axis = small.dim() - 1 - grown[0]
    before, after = widths[2 * axis : 2 * axis + 2]
    if len(grown) > 1 or value != 0 or before < 0 or after < 0 or sum(n > 1 for n in small.shape) > 1:
        return barrier(g, node)
    return [_widened(g, node.outs[0], small.flatten(), grown[0], (before, after))]


def _widened(g: Context, out: int, line: Tensor, dim: int, widths: tuple[int, int]) -> Tensor:
    """Zeros before and after the channels."""
    before, after = (padding(g, out, side, n) for side, n in enumerate(widths))
    return broadcast_ids(torch.cat([before, line, after]), g.tape.shape[out], dim)
