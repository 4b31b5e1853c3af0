"""Rules of operations that only move data: views, slices, chunks, concatenation, shuffles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from netslim.engine.ops.arithmetic import barrier
from netslim.engine.ops.channel_ids import Weight, broadcast_ids, shrink
from netslim.engine.ops.context import Context, Syms, known, line, weight_name
from netslim.engine.trace.tape import Node, Ref, is_own_selection


def transpose(g: Context, node: Node) -> Syms:
    """w.t() and w.T of a weight matrix are what the matrix product wants; of anything else it moves data."""
    name = weight_name(g, node.args[0])
    stays = node.name == "permute" and [dim % 2 for dim in node.args[1]] != [1, 0]
    if name and len(g.tape.shape[node.args[0].index]) == 2 and not stays:
        return [Weight(name, transposed=True)]
    return move(g, node)


def move(g: Context, node: Node) -> Syms:
    """Run the operation itself on the ids."""
    reads = {ref: known(g, ref) for ref in node.reads}
    if all(ids is None for ids in reads.values()):
        return []
    if any(ids is None for ids in reads.values()) or _counts_data(g, node):
        return barrier(g, node)
    return _moved(g, node, reads)


def _counts_data(g: Context, node: Node) -> bool:
    """Does a view join channels with a dimension whose length depends on the data, as in boxes.view(-1, 4)?"""
    x = node.reads[0]
    if x not in g.tape.sized_by_data or node.name not in ("view", "_unsafe_view", "reshape"):
        return False
    rows = g.tape.shape[x][:1]
    return g.tape.shape[node.outs[0]][:1] != rows


def _moved(g: Context, node: Node, reads: Mapping[int, Tensor | None]) -> Syms:
    args, kwargs = _filled_in(node.args, reads), {key: _filled_in(value, reads) for key, value in node.kwargs.items()}
    if node.name in ("view", "_unsafe_view", "reshape"):
        outs = [args[0].reshape(args[1])]
    else:
        result = node.op(*args, **kwargs)
        outs = [result] if isinstance(result, Tensor) else list(result)
    outs = [shrink(out).expand(out.shape) for out in outs]
    if isinstance(args[0], Tensor):
        _equal_shares(g, node, args[0], outs)
    return list(outs)


def _filled_in(value: Any, reads: Mapping[int, Tensor | None]) -> Any:
    """Arguments with tensors in place of their numbers."""
    if isinstance(value, Ref):
        return reads[value.index]
    return type(value)([_filled_in(item, reads) for item in value]) if type(value) in (list, tuple) else value


def _equal_shares(g: Context, node: Node, x: Tensor, outs: list[Tensor]) -> None:
    """Channels that are cut into equal shares (chunk, half a slice, a view as groups) must keep equally many in each.

    That holds if the code derives its sizes from the shape; if they are written in it, the replay finds out.
    """
    small = shrink(x)
    if sum(n > 1 for n in small.shape) != 1 or not outs:
        return
    ids, shares = small.flatten(), [shrink(out) for out in outs]
    if node.name.endswith("channel_shuffle"):
        g.balance(ids.reshape(node.args[1], -1))
    elif len(ids) == len(shares) and all(share.numel() == 1 for share in shares):  # unbind
        g.pin(node.name, ids)
    elif grouped := [share for share in shares if sum(n > 1 for n in share.shape) > 1]:  # a view as (groups, channels)
        g.balance(grouped[0].reshape(-1, [n for n in grouped[0].shape if n > 1][-1]))
    else:
        _cut_off(g, ids, shares)


def _cut_off(g: Context, ids: Tensor, shares: list[Tensor]) -> None:
    """Slices and chunks of a line of channels: equal ones stay equal, of others none may become empty."""
    sizes = {share.numel() for share in shares}
    size = min(sizes)
    if len(sizes) == 1 and 0 < size < len(ids) and len(ids) % size == 0:
        g.balance(ids.reshape(-1, size))
    else:
        g.balance(*(share.reshape(1, -1) for share in shares if share.numel()))


def concatenate(g: Context, node: Node) -> Syms:
    """cat(tensors, dim), on ids without repetition."""
    dim, shape = (*node.args, 0)[1], g.tape.shape[node.outs[0]]
    refs = [r.index for r in node.args[0] if g.tape.shape[r.index] != (0,)]
    if all(known(g, r) is None for r in refs):
        return []
    parts = []
    for ref in refs:
        ids = known(g, ref)
        parts.append(shrink(broadcast_ids(line(g, node, ref, dim), g.tape.shape[ref], dim) if ids is None else ids))
    target = [max(part.size(d) for part in parts) for d in range(len(shape))]
    for i, ref in enumerate(refs):
        target[dim] = g.tape.shape[ref][dim]
        parts[i] = parts[i].expand(target)
    return [torch.cat(parts, dim).expand(shape)]


def indexed(g: Context, node: Node) -> Syms:
    """index_select(x, dim, index), index(x, [None, index]): moves data where the index is computed from sizes alone, as
    in x[:, torch.arange(x.shape[1]).flip(0)]. Others name the channels of the dense network, and hold them all."""
    x, *indices = node.reads
    ids, tape = known(g, x), g.tape
    if ids is None:
        return []
    if len(indices) != 1 or indices[0] not in tape.integers.keys() & tape.constants:
        return barrier(g, node)
    return _moved(g, node, {x: ids, indices[0]: tape.integers[indices[0]]})


def index_select(g: Context, node: Node) -> Syms:
    """That of a BN's own selection is remembered, so that the BN can choose anew."""
    if not is_own_selection(g.tape, node):
        return indexed(g, node)
    x, dim, index = node.args
    g.selected[node.outs[0]] = x.index
    ids = line(g, node, x.index, dim)[g.tape.integers[index.index]]
    return [broadcast_ids(ids, g.tape.shape[node.outs[0]], dim)]
