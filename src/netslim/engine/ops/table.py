"""What is known of each ATen operation: one row of one table.

There are few kinds of rules, because the question is only which input channels an output channel depends on:

    convolution, linear    all output channels on all input channels (of the group): new ids, AllToAll
    batch_norm             channel on channel, and zero where γ and β were removed: new ids, PerChannel
    pointwise              position on position; the inputs' channels must match: new ids, tied, PerChannel
    per_channel            pooling, interpolation, mean over space: the same for one tensor
    move                   view, cat, transpose, chunk...: run the operation itself on the ids
    barrier                everything else: all inputs are demanded in full, nothing is known of the output

So an operation without a row can only cost compression, never correctness. ``register`` adds one from outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from netslim.engine.ops import arithmetic, layers, layout, macs, reductions, sizes
from netslim.engine.ops.context import Follow
from netslim.engine.ops.macs import Macs
from netslim.engine.trace import meta_kernels
from netslim.engine.trace.tape import ALIASED, OUT, Node, Tape


@dataclass(frozen=True)
class OpRule:
    """All that the engine knows of one operation.

    follow: (Context, Node) -> the ids of its outputs: on which channels of what it reads they depend.
    sizes_from_inputs: it takes its sizes from what it reads. Then, in the slim network, fed with what it should be, it
        returns what it should, and the proof need not run its rule again.
    keeps_numbers: it computes with the numbers among its arguments, so they must be the same in the slim network; all
        of them, or those of a slice of its arguments (a convolution's stride, padding, dilation).
    on_one_dimension: it does that only where the channels lie along one dimension of the output (cat).
    moves: it moves channels to places that numbers in the code name, and these may hold a size fast.
    picks: and which of them, so that in the slim network they must be the same ones.
    makes: it makes a tensor whose size may be written in the code.
    homogeneous: what it reads times c > 0 gives its result times c (recovery/factors.py). Of all operands together, of
        each alone or of the first alone, as the flow says when the result is zero.
    counts: which sizes are among its arguments, and what they count.
    macs: its multiply-adds; None if they are unknown, and ``netslim.count`` lists it as uncounted.
    meta: a faster way to the shape of its result than PyTorch's own (trace/meta_kernels.py).
    """

    follow: Follow
    sizes_from_inputs: bool = False
    keeps_numbers: bool | slice = False
    on_one_dimension: bool = False
    moves: bool = False
    picks: bool = False
    makes: bool = False
    homogeneous: bool = False
    counts: sizes.Counts | None = None
    macs: Macs | None = macs.free
    meta: meta_kernels.Shortcut | None = None


def computes(follow: Follow, meta: meta_kernels.Shortcut | None = None, homogeneous: bool = False) -> OpRule:
    """The row of an operation that computes channel by channel, with the numbers among its arguments."""
    return OpRule(follow, sizes_from_inputs=True, keeps_numbers=True, meta=meta, homogeneous=homogeneous)


def scales(follow: Follow, meta: meta_kernels.Shortcut | None = None) -> OpRule:
    """The same, and twice as much in is twice as much out."""
    return computes(follow, meta, homogeneous=True)


def moves(follow: Follow, counts: sizes.Counts | None = None) -> OpRule:
    """The row of an operation that moves data."""
    return OpRule(follow, moves=True, counts=counts)


def unknown(count: macs.Macs | None = None) -> OpRule:
    """The row of an operation that is a barrier."""
    return OpRule(arithmetic.barrier, sizes_from_inputs=True, keeps_numbers=True, macs=count)


BARRIER = unknown()
POINTWISE = computes(arithmetic.pointwise)
NORM = computes(layers.batch_norm, meta_kernels.batch_norm)
TRANSPOSE = OpRule(layout.transpose, sizes_from_inputs=True)
MAKES = OpRule(arithmetic.new_tensor, makes=True)
FILLED = computes(arithmetic.filled)
UNTOUCHED = OpRule(arithmetic.untouched, sizes_from_inputs=True)
POOL = scales(reductions.per_channel)


def _linear(count: macs.Macs, meta: meta_kernels.Shortcut | None = None) -> OpRule:
    return OpRule(layers.linear, sizes_from_inputs=True, keeps_numbers=True, macs=count, meta=meta)


# fmt: off
TABLE: dict[str, OpRule] = {
    ALIASED: unknown(macs.free),
    "convolution": OpRule(layers.convolution, sizes_from_inputs=True, keeps_numbers=slice(3, 8), counts=sizes.groups,
                          macs=macs.convolution, meta=meta_kernels.convolution),
    "native_batch_norm": NORM,
    **dict.fromkeys(("cudnn_batch_norm", "miopen_batch_norm"), computes(layers.batch_norm)),
    "addmm": _linear(macs.added_product, meta_kernels.linear),
    **dict.fromkeys(("mm", "linear"), _linear(macs.product)),
    "bmm": OpRule(layers.matrix_product, macs=macs.product),
    **dict.fromkeys(("mv", "dot"), unknown(macs.product)),
    **dict.fromkeys(("baddbmm", "addmv", "addbmm"), unknown(macs.added_product)),
    **dict.fromkeys((
        "_scaled_dot_product_attention_math", "_scaled_dot_product_attention_math_for_mps",
        "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable",
    ), unknown(macs.attention)),
    **dict.fromkeys((
        "hardtanh", "elu", "silu", "gelu", "mish", "sigmoid", "tanh", "hardswish", "hardsigmoid", "softplus", "clamp",
        "clamp_min",
    ), computes(arithmetic.pointwise, meta_kernels.pointwise)),
    **dict.fromkeys(("relu", "leaky_relu", "add", "sub", "mul"), scales(arithmetic.pointwise, meta_kernels.pointwise)),
    **dict.fromkeys(("native_dropout", "glu_jvp"), POINTWISE),
    "div": scales(arithmetic.follows_first, meta_kernels.pointwise),
    "_prelu_kernel": scales(arithmetic.follows_first),
    "where": computes(arithmetic.choice),
    "masked_fill": computes(arithmetic.masked_fill),
    **dict.fromkeys(("t", "transpose", "permute"), TRANSPOSE),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "expand"), moves(layout.move, sizes.view)),
    **dict.fromkeys(("split", "split_with_sizes"), moves(layout.move, sizes.split)),
    "slice": OpRule(layout.move, moves=True, picks=True, counts=sizes.slice_ends),
    **dict.fromkeys((
        "unsqueeze", "squeeze", "select", "chunk", "unbind", "stack", "flip", "roll", "narrow", "repeat",
        "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle",
    ), moves(layout.move)),
    "cat": OpRule(layout.concatenate, sizes_from_inputs=True, on_one_dimension=True, meta=meta_kernels.concatenate),
    "index_select": OpRule(layout.index_select, sizes_from_inputs=True, moves=True, picks=True),
    "index": OpRule(layout.indexed, sizes_from_inputs=True, moves=True, picks=True),
    "index_copy": OpRule(arithmetic.barrier, sizes_from_inputs=True, meta=meta_kernels.index_copy),
    **dict.fromkeys(("clone", "detach", "alias", "contiguous", "_to_copy", "lift_fresh"), UNTOUCHED),
    "max_pool2d_with_indices": scales(reductions.per_channel, meta_kernels.max_pool),
    "avg_pool2d": scales(reductions.per_channel, meta_kernels.average_pool),
    **dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
                    scales(reductions.per_channel, meta_kernels.adaptive_pool)),
    **dict.fromkeys((
        "max_pool3d_with_indices", "avg_pool1d", "avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d",
        "upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
        "_upsample_bilinear2d_aa", "reflection_pad2d", "replication_pad2d",
        "upsample_linear1d", "upsample_nearest3d", "upsample_trilinear3d", "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "_upsample_bicubic2d_aa", "reflection_pad1d",
        "reflection_pad3d", "replication_pad1d", "replication_pad3d",
    ), POOL),
    "constant_pad_nd": OpRule(reductions.pad, keeps_numbers=slice(2, 3), moves=True, homogeneous=True),
    "mean": scales(reductions.reduction, meta_kernels.mean),
    **dict.fromkeys(("sum", "amax", "amin", "max", "min"), scales(reductions.reduction)),
    **dict.fromkeys(("var", "std", "var_mean"), computes(reductions.reduction)),
    "_softmax": computes(reductions.softmax),
    **dict.fromkeys((
        "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "bernoulli", "uniform", "normal", "fill",
    ), FILLED),
    **dict.fromkeys((
        "empty", "zeros", "ones", "full", "arange", "linspace", "rand", "randn", "new_empty", "new_zeros", "new_ones",
        "new_full", "scalar_tensor", "eye",
    ), MAKES),
    **dict.fromkeys(("zeros_like", "zero"), OpRule(arithmetic.zeros)),
    **dict.fromkeys((  # barriers that multiply nothing
        "copy", "native_layer_norm", "native_group_norm", "max_pool1d", "_adaptive_avg_pool1d", "argmax", "topk",
        "sort", "gather", "scatter", "cumsum", "embedding", "any", "all", "unfold", "im2col", "col2im",
        "view_as_real", "view_as_complex", "as_strided",
    ), unknown(macs.free)),
}
# fmt: on


def register(name: str, rule: OpRule) -> None:
    """Tell the engine what an operation does; from then on it is followed as PyTorch's own are.

    Args:
        name: "library::operation" for one made with torch.library, the plain name for one of ATen. A row that is there
            already gives way.
        rule: its row.

    Raises:
        ValueError: there is no such operation.

    >>> register("aten::celu", computes(arithmetic.pointwise))
    """
    library, _, operation = name.rpartition("::")
    if not hasattr(getattr(torch.ops, library or "aten"), operation):
        raise ValueError(f"there is no operation {name!r}: define it with torch.library before its rule is registered")
    TABLE[name.removeprefix("aten::")] = rule


def rule_for(node: Node) -> OpRule:
    """The row of an operation: from the table, else pointwise if ATen tags it so (also torch.equal, which makes no
    tensor), else a barrier."""
    return TABLE.get(node.name) or (POINTWISE if node.outs and _is_pointwise(node.op, node.name) else BARRIER)


def node_macs(tape: Tape, node: Node) -> int | None:
    """Multiply-adds of one operation, or None if they are unknown."""
    macs = rule_for(node).macs
    return None if macs is None else macs(tape, node)


def shortcut(name: str) -> meta_kernels.Shortcut | None:
    """The faster way to the shape of an operation's result, if there is one."""
    return TABLE[name].meta if name in TABLE else None


@cache
def _is_pointwise(op: Any, name: str) -> bool:
    """Does ATen tag an operation, or its functional form of that name, as pointwise? Before PyTorch 2.9 the tag is
    missing from many that work in place."""
    if name.endswith(OUT):
        return False
    functional = getattr(getattr(torch.ops.aten, name, None), op._overloadname, op)
    return torch.Tag.pointwise in op.tags or torch.Tag.pointwise in functional.tags
