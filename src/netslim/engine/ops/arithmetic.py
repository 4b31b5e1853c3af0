"""Rules of operations that compute element by element, of those that make tensors, and of those that nobody knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from netslim.engine.ops.channel_ids import Weight, shrink
from netslim.engine.ops.context import Context, Syms, adopt, known
from netslim.engine.trace.tape import Node, Ref


def barrier(g: Context, node: Node) -> Syms:
    """All that it reads is demanded, nothing is known of what it makes."""
    for ref in node.reads:
        ids = known(g, ref)
        if ids is not None:
            g.demand(node.name, ids)
    return []


def pointwise(g: Context, node: Node, zero: str = "", besides: Collection[int] = ()) -> Syms:
    """Position on position, so the channels of all operands must match.

    zero: as in flows.PerChannel; found by trying, if not given. besides: tensors that do not decide that.
    """
    shape = g.tape.shape[node.outs[0]]
    seen = _operands(g, node, len(shape))
    if not seen:
        return []
    varying = {d for ids in seen.values() for d in range(len(shape)) if ids.size(d) > 1}
    small = seen | _parameters(g, node, seen, varying)
    unseen = [ref for ref in node.reads if ref not in small]
    own = {ref: {d for d in varying if ids.size(d) > 1} for ref, ids in small.items()}
    stretched = any(_stretches(g, ref, seen) for ref in unseen)
    if stretched or any(dims and dims != varying for dims in own.values()):
        return barrier(g, node)
    for ref in unseen:
        known(g, ref)  # of a parameter: it is used whole
        if _dims(g, ref, varying, len(shape)):
            for ids in small.values():
                g.pin(node.name, ids)
    blind = any(ref not in besides and g.tape.numbers.get(ref) != 0 for ref in unseen)
    zero = _when_zero(g, node, zero, blind, node.reads[0] in small)
    refs = [ref for ref in node.reads if ref in small]
    width = [n if d in varying else 1 for d, n in enumerate(shape)]
    out = g.per_channel([small[r].expand(width).flatten() for r in refs], zero, [own[r] == varying for r in refs])
    return [out.reshape(width).expand(shape)]


def _operands(g: Context, node: Node, dims: int) -> dict[int, Tensor]:
    """The operands whose channels are known; of a function of parameters alone, the parameters."""
    syms = {ref: g.sym.get(ref) for ref in node.reads}
    seen = {ref: _aligned(sym, dims) for ref, sym in syms.items() if isinstance(sym, Tensor)}
    if not seen:
        seen = {ref: _aligned(ids, dims) for ref in node.reads if (ids := known(g, ref)) is not None}
    return seen


def _parameters(g: Context, node: Node, seen: dict[int, Tensor], varying: set[int]) -> dict[int, Tensor]:
    """Parameters that lie along the one dimension that holds channels get ids there."""
    total, found = len(g.tape.shape[node.outs[0]]), {}
    for ref in node.reads:
        dims = _dims(g, ref, varying, total)
        if ref not in seen and isinstance(g.sym.get(ref), Weight) and len(dims) == 1:
            found[ref] = _aligned(adopt(g, ref, dims[0] - total + len(g.tape.shape[ref])), total)
    return found


def _dims(g: Context, ref: int, varying: Iterable[int], total: int) -> list[int]:
    """Along which of the dimensions that hold channels a tensor is longer than 1."""
    size = g.tape.shape[ref]
    return [d for d in varying if d - total >= -len(size) and size[d - total] > 1]


def _stretches(g: Context, ref: int, seen: Iterable[int]) -> bool:
    """Is a tensor longer somewhere than all operands with channels? These repeat there, and do not stay the same."""
    lengths = [dict(enumerate(reversed(g.tape.shape[other]), 1)) for other in seen]
    size = g.tape.shape[ref]
    return any(size[-d] > max(own.get(d, 1) for own in lengths) for d in range(1, len(size) + 1))


def _aligned(ids: Tensor, dims: int) -> Tensor:
    """Ids without repetition, with leading dimensions of length 1 as in broadcasting."""
    ids = shrink(ids)
    return ids.reshape((1,) * (dims - ids.dim()) + tuple(ids.shape))


def _when_zero(g: Context, node: Node, zero: str, blind: bool, first_seen: bool) -> str:
    """blind: there is an operand of which nothing is known, so it need not be zero where the others are."""
    if not zero:
        zero = "any" if node.name == "mul" else "all" if zero_at_zero(g, node) else "never"
    return "never" if blind and (zero == "all" or (zero == "first" and not first_seen)) else zero


def zero_at_zero(g: Context, node: Node) -> bool:
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
def _zero_at_zero(op: Any, args: Any, kwargs: Any, dtypes: tuple[torch.dtype, ...]) -> bool:
    args, kwargs = tree_map_only(Ref, lambda ref: torch.zeros((), dtype=dtypes[ref.index]), (args, dict(kwargs)))
    try:
        result = op(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError):
        return False
    return isinstance(result, Tensor) and not result.is_complex() and float(result) == 0


def follows_first(g: Context, node: Node) -> Syms:
    """x / y, prelu(x, slope): zero where x is."""
    return pointwise(g, node, zero="first")


def filled(g: Context, node: Node) -> Syms:
    """ones_like, bernoulli_...: the shape of x, but not its values."""
    return pointwise(g, node, zero="never")


def zeros(g: Context, node: Node) -> Syms:
    """zeros_like, zero_: zero in any case."""
    outs = filled(g, node)
    for out in outs:
        if isinstance(out, Tensor):
            g.zeros(shrink(out).flatten())
    return outs


def choice(g: Context, node: Node) -> Syms:
    """where(condition, a, b): zero where a and b are."""
    return pointwise(g, node, zero="all", besides=node.reads[:1])


def masked_fill(g: Context, node: Node) -> Syms:
    """masked_fill(x, mask, value): zero where x is, if the value is."""
    value = node.args[2]
    number = g.tape.numbers.get(value.index) if isinstance(value, Ref) else value
    return pointwise(g, node, zero="first" if number == 0 else "never")


def untouched(g: Context, node: Node) -> Syms:
    """detach, contiguous, dropout in eval mode...: the first input itself."""
    return [g.sym.get(node.args[0].index)]


def new_tensor(g: Context, node: Node) -> Syms:
    """zeros, arange, x.new_ones(size): depends on no channel."""
    return []
