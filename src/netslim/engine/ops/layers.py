"""Rules of layers: convolution, BatchNorm, and products of matrices."""

from __future__ import annotations

from torch import Tensor

from netslim.engine.ops.arithmetic import barrier
from netslim.engine.ops.channel_ids import broadcast_ids, shrink
from netslim.engine.ops.context import Context, Syms, known, line, weight_name
from netslim.engine.trace.tape import Node


def convolution(g: Context, node: Node) -> Syms:
    """convolution(x, weight, bias, ...): all output channels of a group on all its input channels."""
    x, weight, bias = node.args[:3]
    name, groups = weight_name(g, weight), node.args[8]
    if not name or not (bias is None or weight_name(g, bias)):
        return barrier(g, node)
    shape = g.tape.shape[node.outs[0]]
    ids = line(g, node, x.index, 1)
    ins = ids.reshape(groups, -1)
    if groups > 1:
        g.groups[name] = ins
    connect = _depthwise if groups > 1 and ins.shape[1] == 1 else _by_groups
    out = connect(g, node, name, ins, shape[1] // groups)
    if bias is not None:
        g.axis(weight_name(g, bias), 0, out)
    return [broadcast_ids(out, shape, 1)]


def _depthwise(g: Context, node: Node, name: str, ins: Tensor, rows: int) -> Tensor:
    """One channel per group: channel on channel."""
    out = g.per_channel([ins.flatten().repeat_interleave(rows)], "never" if node.args[2] else "all")
    g.axis(name, 0, ins.flatten() if node.args[6] else out)
    return out


def _by_groups(g: Context, node: Node, name: str, ins: Tensor, rows: int) -> Tensor:
    out, groups = g.all_to_all(ins, rows, node.args[2] is not None), len(ins)
    out_ids, in_ids = (out.reshape(groups, rows), ins) if groups > 1 else (out, ins.flatten())
    g.axis(name, 0, ins.flatten() if node.args[6] else out)  # the weight of a transposed one has its inputs first
    g.axis(name, 1, out_ids if node.args[6] else in_ids)
    return out


def batch_norm(g: Context, node: Node) -> Syms:
    """native_batch_norm(x, γ, β, mean, variance, ...): channel on channel, and zero where γ and β are removed."""
    x, *state = node.args[:5]
    names = [weight_name(g, s) for s in state if s is not None]
    if not all(names):
        return barrier(g, node)
    ids = line(g, node, x.index, 1)
    norm = g.norms.get(names[0], "") if state[0] is not None else ""
    if norm:
        origin = g.selected.get(x.index)
        g.sources[norm] = ids if origin is None else line(g, node, origin, 1)
    out = g.per_channel([ids], "never", norm=norm)
    for name in names:
        g.axis(name, 0, out)
    shape = g.tape.shape[node.outs[0]]
    if norm and (norm in g.scattering or node.scatter is not None):
        out = g.scatter(out, norm, node.scatter, shape[1])
    return [broadcast_ids(out, shape, 1)]


def linear(g: Context, node: Node) -> Syms:
    """addmm(bias, x, weightᵀ), mm(x, weightᵀ), linear(x, weight, bias); and mm(x, weight), the outputs last."""
    if node.name == "addmm":
        bias, x, weight = node.args[:3]
    else:
        x, weight, bias = (*node.args, None)[:3]
    by_rows = node.name == "linear" or not weight_name(g, weight)
    name = weight_name(g, weight, transposed=by_rows and node.name != "linear")
    if not name or not (bias is None or (weight_name(g, bias) and len(g.tape.shape[bias.index]) == 1)):
        return barrier(g, node)
    shape = g.tape.shape[node.outs[0]]
    ids = line(g, node, x.index, -1)
    out = g.all_to_all(ids[None], shape[-1], bias is not None)
    g.axis(name, 0, out if by_rows else ids)
    g.axis(name, 1, ids if by_rows else out)
    if bias is not None:
        g.axis(weight_name(g, bias), 0, out)
    return [broadcast_ids(out, shape, -1)]


def matrix_product(g: Context, node: Node) -> Syms:
    """bmm of two activations: row on row (column on column), where one has its channels along the rows (columns), the
    other none at all, as in a mean over space with learnt weights."""
    small = [None if ids is None else shrink(ids) for ids in (known(g, ref.index) for ref in node.args)]
    seen = [ids for ids in small if ids is not None]
    if not seen:
        return []
    target = max(seen, key=Tensor.numel)
    summed = [ids is not None and ids.size(dim) > 1 for ids, dim in zip(small, (2, 1), strict=True)]
    if (len(seen) == 2 and min(map(Tensor.numel, seen)) > 1) or target.size(0) > 1 or any(summed):
        return barrier(g, node)
    lines = [ids.expand(target.shape).flatten() for ids in seen]
    out = g.per_channel(lines, "any", [ids.numel() == target.numel() for ids in seen])
    return [out.reshape(target.shape).expand(g.tape.shape[node.outs[0]])]
