"""The rules: what each ATen operation does to channels. One table.

A rule reads the ids of its node's inputs and returns those of its outputs (graph.py says what it may call). There are
few kinds, because the question is only which input channels an output channel depends on:

    convolution, linear    all output channels on all input channels (of the group): new ids, Mix
    batch_norm             channel on channel, and zero where γ and β were removed: new ids, Each
    pointwise              position on position; the inputs' channels must match: new ids, tied, Each
    per_channel            pooling, interpolation, mean over space: the same for one tensor
    move                   view, cat, transpose, chunk...: run the operation itself on the ids
    barrier                everything else: all inputs are demanded in full, nothing is known of the output

So an operation without a rule can only cost compression, never correctness. The rules that compute are in computing.py
and pooling.py, those that only move data in moving.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from netslim.engine.ops.arithmetic import (
    Rule,
    barrier,
    batch_norm,
    choice,
    convolution,
    filled,
    follows_first,
    linear,
    masked_fill,
    matrix_product,
    new_tensor,
    pointwise,
    untouched,
    zeros,
)
from netslim.engine.ops.layout import concatenate, index_select, move, transpose
from netslim.engine.ops.reductions import pad, per_channel, reduction, softmax
from netslim.engine.trace.tape import ALIASED, Node

# fmt: off
RULES: dict[str, Rule] = {
    ALIASED: barrier,
    "convolution": convolution,
    **dict.fromkeys(("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"), batch_norm),
    **dict.fromkeys(("addmm", "mm", "linear"), linear),
    "bmm": matrix_product,
    "where": choice,
    "masked_fill": masked_fill,
    **dict.fromkeys(("t", "transpose", "permute"), transpose),
    **dict.fromkeys((
        "view", "_unsafe_view", "reshape", "expand", "unsqueeze", "squeeze", "slice", "select", "split",
        "split_with_sizes", "chunk", "unbind", "stack", "flip", "roll", "narrow", "repeat", "pixel_shuffle",
        "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle",
    ), move),
    "cat": concatenate,
    "index_select": index_select,
    **dict.fromkeys(("clone", "detach", "alias", "contiguous", "_to_copy", "lift_fresh"), untouched),
    **dict.fromkeys((
        "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d",
        "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d",
        "upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
        "_upsample_bilinear2d_aa", "reflection_pad2d", "replication_pad2d",
        "upsample_linear1d", "upsample_nearest3d", "upsample_trilinear3d", "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "_upsample_bicubic2d_aa", "reflection_pad1d",
        "reflection_pad3d", "replication_pad1d", "replication_pad3d",
    ), per_channel),
    "constant_pad_nd": pad,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean"), reduction),
    "_softmax": softmax,
    **dict.fromkeys(("hardswish", "softplus", "elu", "native_dropout", "glu_jvp"), pointwise),
    **dict.fromkeys(("div", "_prelu_kernel"), follows_first),
    **dict.fromkeys((
        "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "bernoulli", "uniform",
        "normal", "fill",
    ), filled),
    **dict.fromkeys((
        "empty", "zeros", "ones", "full", "arange", "linspace", "rand", "randn", "new_empty", "new_zeros", "new_ones",
        "new_full", "scalar_tensor", "eye",
    ), new_tensor),
    **dict.fromkeys(("zeros_like", "zero"), zeros),
    "copy": barrier,
}
# fmt: on


def rule_for(node: Node) -> Rule:
    """The rule of an operation: from the table, else pointwise if ATen tags it so, else a barrier."""
    return RULES.get(node.name) or (pointwise if is_pointwise(node.op, node.name) else barrier)


@cache
def is_pointwise(op: Any, name: str) -> bool:
    """Does ATen tag an operation, or its functional form of that name, as pointwise? Before PyTorch 2.9 the tag is
    missing from many that work in place."""
    functional = getattr(getattr(torch.ops.aten, name, None), op._overloadname, op)
    return torch.Tag.pointwise in op.tags or torch.Tag.pointwise in functional.tags
