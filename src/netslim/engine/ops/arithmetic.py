"""Rules of operations that compute: layers, activations, arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from netslim.engine.ops.channel_ids import Weight, shrink, spread
from netslim.engine.trace.tape import Node, Ref

if TYPE_CHECKING:
    from netslim.engine.graph.graph import Graph

Syms = list["Tensor | Any | None"]
Rule = Callable[["Graph", Node], Syms]


def barrier(g: Graph, node: Node) -> Syms:
    for ref in node.reads:
        sym = g.known(ref)
        if sym is not None:
            g.demand(node.name, sym)
    return []


def convolution(g: Graph, node: Node) -> Syms:
    x, weight, bias = node.args[:3]
    transposed, groups = node.args[6], node.args[8]
    name = weight_name(g, weight)
    if not name or not (bias is None or weight_name(g, bias)):
        return barrier(g, node)
    line, out_shape = g.line(x.index, 1), g.tape.shape[node.outs[0]]
    columns, rows = len(line) // groups, out_shape[1] // groups
    ins = line.reshape(groups, columns)
    if groups > 1 and columns == 1:  # depthwise: tied, channel by channel
        out = g.each([line.repeat_interleave(rows)], "never" if bias else "all")
        g.groups[name] = ins
        if transposed:
            g.axis(name, 0, line)
        else:
            g.axis(name, 0, out)
    else:
        out = g.mix(ins, rows, bias is not None)
        if groups > 1:
            g.groups[name] = ins
        out_ids = out.reshape(groups, rows) if groups > 1 else out
        in_ids = ins if groups > 1 else line
        g.axis(name, 0, line if transposed else out)
        g.axis(name, 1, out_ids if transposed else in_ids)
    if bias is not None:
        g.axis(weight_name(g, bias), 0, out)
    return [spread(out, out_shape, 1)]


def batch_norm(g: Graph, node: Node) -> Syms:
    x, *state = node.args[:5]
    names = [weight_name(g, s) for s in state if s is not None]
    if not all(names):
        return barrier(g, node)
    line = g.line(x.index, 1)
    norm = g.norms.get(names[0], "") if state[0] is not None else ""
    if norm:
        origin = g.selected.get(x.index)
        g.sources[norm] = line if origin is None else g.line(origin, 1)
        out = g.each([line], "never", norm=norm)
    else:
        out = g.each([line], "never")
    for name in names:
        g.axis(name, 0, out)
    shape = g.tape.shape[node.outs[0]]
    if norm and (norm in g.scattering or node.scatter is not None):
        out = g.scatter(out, norm, node.scatter, shape[1])
    return [spread(out, shape, 1)]


def linear(g: Graph, node: Node) -> Syms:
    """addmm(bias, x, weightᵀ), mm(x, weightᵀ), linear(x, weight, bias); and mm(x, weight), the outputs last."""
    if node.name == "addmm":
        bias, x, weight = node.args[:3]
    else:
        x, weight, bias = (*node.args, None)[:3]
    by_rows = node.name == "linear" or not weight_name(g, weight)
    name = weight_name(g, weight, transposed=by_rows and node.name != "linear")
    if not name or not (bias is None or (weight_name(g, bias) and len(g.tape.shape[bias.index]) == 1)):
        return barrier(g, node)
    out_shape = g.tape.shape[node.outs[0]]
    line = g.line(x.index, -1)
    out = g.mix(line[None], out_shape[-1], bias is not None)
    g.axis(name, 0, out if by_rows else line)
    g.axis(name, 1, line if by_rows else out)
    if bias is not None:
        g.axis(weight_name(g, bias), 0, out)
    return [spread(out, out_shape, -1)]


def matrix_product(g: Graph, node: Node) -> Syms:
    """bmm of two activations: row on row (column on column), where one has its channels along the rows (columns), the
    other none at all, as in a mean over space with learnt weights."""
    small = [None if ids is None else shrink(ids) for ids in (g.known(ref.index) for ref in node.args)]
    known = [ids for ids in small if ids is not None]
    if not known:
        return []
    target = max(known, key=Tensor.numel)
    summed = [ids is not None and ids.size(dim) > 1 for ids, dim in zip(small, (2, 1), strict=True)]
    if (len(known) == 2 and min(map(Tensor.numel, known)) > 1) or target.size(0) > 1 or any(summed):
        return barrier(g, node)
    lines = [ids.expand(target.shape).flatten() for ids in known]
    out = g.each(lines, "any", [ids.numel() == target.numel() for ids in known])
    return [out.reshape(target.shape).expand(g.tape.shape[node.outs[0]])]


def weight_name(g: Graph, ref: Any, transposed: bool = False) -> str:
    """The name of an untouched parameter or buffer, or ""."""
    sym = g.sym.get(ref.index) if isinstance(ref, Ref) else None
    return sym.name if isinstance(sym, Weight) and sym.transposed == transposed else ""


def pointwise(g: Graph, node: Node, zero: str = "", besides: Sequence[int] = ()) -> Syms:
    """besides: tensors that do not decide whether the result is zero."""
    shape = g.tape.shape[node.outs[0]]
    refs = node.reads
    syms = {ref: g.sym.get(ref) for ref in refs}
    small = {ref: aligned(s, len(shape)) for ref, s in syms.items() if isinstance(s, Tensor)}
    if not small:
        for ref in refs:  # a function of parameters alone
            sym = g.known(ref)
            if sym is not None:
                small[ref] = aligned(sym, len(shape))
    if not small:
        return []
    given = [dict(enumerate(reversed(g.tape.shape[ref]), 1)) for ref in small]
    varying = {d for s in small.values() for d in range(len(shape)) if s.size(d) > 1}
    blind = False
    for ref in refs:
        if ref in small:
            continue
        size = g.tape.shape[ref]
        dims = [d for d in varying if (d - len(shape)) >= -len(size) and size[d - len(shape)] > 1]
        if not isinstance(syms[ref], Tensor) and syms[ref] is not None and len(dims) == 1:
            small[ref] = aligned(g.adopt(ref, dims[0] - len(shape) + len(size)), len(shape))
            continue
        blind |= ref not in besides and g.tape.numbers.get(ref) != 0
        g.known(ref)  # a parameter: marks it as used whole
        if any(size[-d] > max(own.get(d, 1) for own in given) for d in range(1, len(size) + 1)):
            return barrier(g, node)  # what is repeated along d is not the same there any more
        if dims:
            for s in small.values():
                g.pins.append((node.name, s.flatten()))
    if not zero:
        zero = "any" if node.name == "mul" else "all" if zero_at_zero(g, node) else "never"
    if blind and (zero == "all" or (zero == "first" and refs[0] not in small)):
        zero = "never"
    lines, tied = [], []
    vshape = [shape[d] if d in varying else 1 for d in range(len(shape))]
    for ref in refs:
        if ref in small:
            own = {d for d in range(len(shape)) if small[ref].size(d) > 1}
            if own and own != varying:
                return barrier(g, node)
            lines.append(small[ref].expand(vshape).flatten())
            tied.append(own == varying)
    out = g.each(lines, zero, tied)
    return [out.reshape(vshape).expand(shape)]


def aligned(sym: Tensor, dims: int) -> Tensor:
    """Ids without repetition, with leading dimensions of length 1 as in broadcasting."""
    sym = shrink(sym)
    return sym.reshape((1,) * (dims - sym.dim()) + tuple(sym.shape))


def zero_at_zero(g: Graph, node: Node) -> bool:
    """Is the result 0 where all tensors are 0? Simply tried out, once per operation, its numbers and dtypes."""
    dtypes: list[torch.dtype] = []

    def numbered(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(map(numbered, value))
        if not isinstance(value, Ref):
            return value
        dtypes.append(g.tape.dtype[value.index])
        return Ref(len(dtypes) - 1)

    return _zero_at_zero(node.op, numbered(node.args), numbered([*node.kwargs.items()]), tuple(dtypes))


@cache
def _zero_at_zero(op: Any, args: Any, kwargs: Any, dtypes: Sequence[torch.dtype]) -> bool:
    args, kwargs = tree_map_only(Ref, lambda ref: torch.zeros((), dtype=dtypes[ref.index]), (args, dict(kwargs)))
    try:
        result = op(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError):
        return False
    return isinstance(result, Tensor) and not result.is_complex() and float(result) == 0


def follows_first(g: Graph, node: Node) -> Syms:
    """x / y, prelu(x, slope): zero where x is."""
    return pointwise(g, node, zero="first")


def filled(g: Graph, node: Node) -> Syms:
    """ones_like, bernoulli_...: the shape of x, but not its values."""
    return pointwise(g, node, zero="never")


def zeros(g: Graph, node: Node) -> Syms:
    """zeros_like, zero_: zero in any case."""
    outs = filled(g, node)
    g.zeros += [shrink(out).flatten() for out in outs if isinstance(out, Tensor)]
    return outs


def choice(g: Graph, node: Node) -> Syms:
    """where(condition, a, b): zero where a and b are."""
    return pointwise(g, node, zero="all", besides=node.reads[:1])


def masked_fill(g: Graph, node: Node) -> Syms:
    """masked_fill(x, mask, value): zero where x is, if the value is."""
    value = node.args[2]
    number = g.tape.numbers.get(value.index) if isinstance(value, Ref) else value
    return pointwise(g, node, zero="first" if number == 0 else "never")


def untouched(g: Graph, node: Node) -> Syms:
    """detach, contiguous, dropout in eval mode...: the first input itself."""
    return [g.sym.get(node.args[0].index)]


def new_tensor(g: Graph, node: Node) -> Syms:
    """zeros, arange, x.new_ones(size): depends on no channel."""
    return []
