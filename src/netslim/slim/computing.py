"""Rules of operations that compute: layers, activations, arithmetic, pooling, sums over space."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from netslim.slim.ids import Weight, shrink, spread
from netslim.slim.tape import Node, Ref

if TYPE_CHECKING:
    from netslim.slim.graph import Graph

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
    norm = g.norms.get(names[0], "") if state[0] is not None and state[1] is not None else ""
    if norm:
        origin = g.selected.get(x.index)
        g.sources[norm] = line if origin is None else g.line(origin, 1)
        out = g.each([line], "never", norm=norm)
    else:
        out = g.each([line], "never")
    for name in names:
        g.axis(name, 0, out)
    return [spread(out, g.tape.shape[node.outs[0]], 1)]


def linear(g: Graph, node: Node) -> Syms:
    """addmm(bias, x, weightᵀ), mm(x, weightᵀ), linear(x, weight, bias)."""
    if node.name == "addmm":
        bias, x, weight = node.args[:3]
    else:
        x, weight, bias = (*node.args, None)[:3]
    name = weight_name(g, weight, transposed=node.name != "linear")
    if not name or not (bias is None or (weight_name(g, bias) and len(g.tape.shape[bias.index]) == 1)):
        return barrier(g, node)
    out_shape = g.tape.shape[node.outs[0]]
    line = g.line(x.index, -1)
    out = g.mix(line[None], out_shape[-1], bias is not None)
    g.axis(name, 0, out)
    g.axis(name, 1, line)
    if bias is not None:
        g.axis(weight_name(g, bias), 0, out)
    return [spread(out, out_shape, -1)]


def weight_name(g: Graph, ref: Any, transposed: bool = False) -> str:
    """The name of an untouched parameter or buffer, or ""."""
    sym = g.sym.get(ref.index) if isinstance(ref, Ref) else None
    return sym.name if isinstance(sym, Weight) and sym.transposed == transposed else ""


def pointwise(g: Graph, node: Node, zero: str = "") -> Syms:
    shape = g.tape.shape[node.outs[0]]
    refs = node.reads
    syms = {ref: g.sym.get(ref) for ref in refs}
    small = {ref: aligned(s, len(shape)) for ref, s in syms.items() if isinstance(s, Tensor)}
    if not small:
        for ref in refs:  # a function of parameters alone
            sym = g.known(ref)
            if sym is not None:
                small[ref] = aligned(sym, len(shape))
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
        blind = True
        g.known(ref)  # a parameter: marks it as used whole
        if dims:
            for s in small.values():
                g.pins.append((node.name, s.flatten()))
    if not small:
        return []
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
    """Is the result 0 where all tensors are 0? Simply tried out."""
    args, kwargs = tree_map_only(Ref, lambda r: torch.zeros((), dtype=g.tape.dtype[r.index]), (node.args, node.kwargs))
    try:
        result = node.op(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError):
        return False
    return isinstance(result, Tensor) and not result.is_complex() and float(result) == 0


def follows_first(g: Graph, node: Node) -> Syms:
    """x / y, prelu(x, slope): zero where x is."""
    return pointwise(g, node, zero="first")


def filled(g: Graph, node: Node) -> Syms:
    """zeros_like, bernoulli_...: the shape of x, but not its values."""
    return pointwise(g, node, zero="never")


def untouched(g: Graph, node: Node) -> Syms:
    """detach, contiguous, dropout in eval mode...: the first input itself."""
    return [g.sym.get(node.args[0].index)]


def new_tensor(g: Graph, node: Node) -> Syms:
    """zeros, arange, x.new_ones(size): depends on no channel."""
    return []


def per_channel(g: Graph, node: Node) -> Syms:
    """Pooling, interpolation, padding: channel on channel, if they touch no dimension along which ids vary."""
    x = node.args[0].index
    sym, shape = g.known(x), g.tape.shape[node.outs[0]]
    if sym is None:
        return []
    small = shrink(sym)
    if small.dim() != len(shape) or any(n > 1 and n != m for n, m in zip(small.shape, shape, strict=True)):
        return barrier(g, node)
    return [renewed(g, small).expand(shape)]


def renewed(g: Graph, small: Tensor) -> Tensor:
    """New ids, tied one by one to these and zero where these are: other values in the same channels."""
    return g.each([small.flatten()], "all").reshape(small.shape)


def reduction(g: Graph, node: Node) -> Syms:
    """mean, sum, amax over dimensions along which ids do not vary."""
    x = node.args[0].index
    sym, shape = g.known(x), g.tape.shape[node.outs[0]]
    if sym is None:
        return []
    dims = node.args[1] if len(node.args) > 1 and node.args[1] else range(sym.dim())
    dims = [d % sym.dim() for d in ([dims] if isinstance(dims, int) else dims)]
    small = shrink(sym)
    summed = [d for d in dims if small.size(d) > 1]
    if len(summed) > 1:
        return barrier(g, node)
    if summed:  # a sum over stacked branches: position on position
        parts = [part.unsqueeze(summed[0]) for part in small.unbind(summed[0])]
        small = g.each([part.flatten() for part in parts], "all").reshape(parts[0].shape)
    else:
        small = renewed(g, small)
    if len(shape) < sym.dim():
        small = small.reshape([n for d, n in enumerate(small.shape) if d not in dims])
    return [small.expand(shape)]


def softmax(g: Graph, node: Node) -> Syms:
    """Each output depends on all inputs along `dim`."""
    sym, dim = g.known(node.args[0].index), node.args[1]
    if sym is None:
        return []
    small = shrink(sym)
    if small.size(dim) == 1:
        return pointwise(g, node, zero="never")
    others = [part.unsqueeze(dim).expand(small.shape).flatten() for part in small.unbind(dim)]
    out = g.each([small.flatten(), *others], "never", [True] + [False] * len(others))
    g.balance(small.movedim(dim, 0).reshape(small.size(dim), -1))
    return [out.reshape(small.shape).expand(sym.shape)]


def pad(g: Graph, node: Node) -> Syms:
    """constant_pad_nd(x, widths, value): the new channels, if any, are constants."""
    x, widths, value = (*node.args, 0)[:3]
    sym, shape = g.known(x.index), g.tape.shape[node.outs[0]]
    if sym is None:
        return []
    small = shrink(sym)
    own = g.tape.shape[x.index]
    grown = [d for d in range(small.dim()) if small.size(d) == own[d] != shape[d]]
    if not grown:
        return per_channel(g, node) if value == 0 else pointwise_pad(g, small, shape)
    if len(grown) > 1 or value != 0:
        return barrier(g, node)
    axis = small.dim() - 1 - grown[0]
    before, after = widths[2 * axis], widths[2 * axis + 1]
    if before < 0 or after < 0 or sum(n > 1 for n in small.shape) > 1:
        return barrier(g, node)
    out = node.outs[0]
    line = torch.cat([g.constant_zeros(out, 0, before), small.flatten(), g.constant_zeros(out, 1, after)])
    return [spread(line, shape, grown[0])]


def pointwise_pad(g: Graph, small: Tensor, shape: torch.Size) -> Syms:
    out = g.each([small.flatten()], "never")
    return [out.reshape(small.shape).expand(shape)]
