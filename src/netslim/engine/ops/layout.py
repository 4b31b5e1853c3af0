"""Rules of operations that only move data: views, slices, chunks, concatenation, shuffles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from netslim.engine.ops.arithmetic import Syms, barrier, weight_name
from netslim.engine.ops.channel_ids import Weight, shrink, spread
from netslim.engine.trace.tape import Node, Ref, is_own_selection

if TYPE_CHECKING:
    from netslim.engine.graph.graph import Graph


def transpose(g: Graph, node: Node) -> Syms:
    """w.t() and w.T of a weight matrix are what the matrix product wants; of anything else it moves data."""
    name = weight_name(g, node.args[0])
    stays = node.name == "permute" and [dim % 2 for dim in node.args[1]] != [1, 0]
    if name and len(g.tape.shape[node.args[0].index]) == 2 and not stays:
        return [Weight(name, transposed=True)]
    return move(g, node)


def move(g: Graph, node: Node) -> Syms:
    """Run the operation itself on the ids."""
    reads = {ref: moved_ids(g, ref) for ref in node.reads}
    if all(g.known(ref) is None for ref in node.reads):  # the numbers in an index are no ids
        return []
    if any(ids is None for ids in reads.values()):
        return barrier(g, node)
    args, kwargs = tree_map_only(Ref, lambda r: reads[r.index], (node.args, node.kwargs))
    if node.name in ("view", "_unsafe_view", "reshape"):
        outs = [args[0].reshape(args[1])]
    else:
        result = node.op(*args, **kwargs)
        outs = [result] if isinstance(result, Tensor) else list(result)
    outs = [shrink(out).expand(out.shape) for out in outs]
    if isinstance(args[0], Tensor):
        equal_shares(g, node, args[0], outs)
    return list(outs)


def moved_ids(g: Graph, ref: int) -> Tensor | None:
    ids = g.known(ref)
    if ids is None and ref in g.tape.integers:
        return g.tape.integers[ref]
    return ids


def equal_shares(g: Graph, node: Node, x: Tensor, outs: list[Tensor]) -> None:
    """Channels that are cut into equal shares (chunk, half a slice, a view as groups) must keep equally many in each.

    That holds if the code derives its sizes from the shape; if they are written in it, the replay finds out.
    """
    small = shrink(x)
    if sum(n > 1 for n in small.shape) != 1 or not outs:
        return None
    line, shares = small.flatten(), [shrink(out) for out in outs]
    if node.name.endswith("channel_shuffle"):
        return g.balance(line.reshape(node.args[1], -1))
    if all(len(s.unique()) == 1 and s.numel() == 1 for s in shares) and len(line) == len(shares):  # unbind
        g.pins.append((node.name, line))
    elif any(sum(n > 1 for n in s.shape) > 1 for s in shares):  # a view as (groups, channels)
        share = next(s for s in shares if sum(n > 1 for n in s.shape) > 1)
        g.balance(share.reshape(-1, [n for n in share.shape if n > 1][-1]))
    else:
        sizes = {s.numel() for s in shares}
        size = min(sizes)
        if len(sizes) == 1 and 0 < size < len(line) and len(line) % size == 0:
            g.balance(line.reshape(-1, size))
        else:
            g.balance(*(share.reshape(1, -1) for share in shares if share.numel()))  # none may become empty
    return None


def concatenate(g: Graph, node: Node) -> Syms:
    """cat(tensors, dim), on ids without repetition."""
    refs, dim = [r.index for r in node.args[0]], (*node.args, 0)[1]
    shape = g.tape.shape[node.outs[0]]
    refs = [r for r in refs if g.tape.shape[r] != (0,)]
    if all(g.known(r) is None for r in refs):
        return []
    parts = []
    for ref in refs:
        sym = g.known(ref)
        parts.append(shrink(sym) if sym is not None else shrink(spread(g.line(ref, dim), g.tape.shape[ref], dim)))
    dims = range(len(shape))
    target = [max(p.size(d) for p in parts) for d in dims]
    parts = [
        part.expand([g.tape.shape[ref][d] if d == dim % len(shape) else target[d] for d in dims])
        for part, ref in zip(parts, refs, strict=True)
    ]
    return [torch.cat(parts, dim).expand(shape)]


def index_select(g: Graph, node: Node) -> Syms:
    """Moves data; that of a BN's own selection is remembered, so that the BN can choose anew."""
    if not is_own_selection(g.tape, node):
        return move(g, node)
    x, dim, index = node.args
    g.selected[node.outs[0]] = x.index
    line = g.line(x.index, dim)[g.tape.integers[index.index]]
    return [spread(line, g.tape.shape[node.outs[0]], dim)]
