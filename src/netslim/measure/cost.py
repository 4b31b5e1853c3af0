"""What a network costs: parameters and multiply-adds.

Counting convention: one multiply-add of a convolution, a linear layer or a matrix product is one MAC (so FLOPs are
about twice as many). What only moves, compares or scales values (BatchNorm, activations, pooling, additions) is free by
convention, as in the literature that quotes 398 M for VGG-19 on 32x32. Anything else is listed as uncounted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from netslim.engine.cut.emit import Changes, outline
from netslim.engine.ops.table import node_macs
from netslim.engine.trace.recorder import record
from netslim.modules import Network


@dataclass(frozen=True)
class Cost:
    """params: parameters, shared ones once. macs: multiply-adds of one forward pass on the example input, the whole
    batch. uncounted: ATen operation -> times seen, for operations whose multiply-adds are unknown."""

    params: int
    macs: int
    uncounted: dict[str, int]


FORWARD_PASSES = 3  # a training step costs one forward pass and two in gradients, of the inputs and of the weights


def training_macs(macs: int, inputs: int) -> int:
    """Multiply-adds of training on so many inputs: three forward passes of each.

    The backward pass of a convolution or a linear layer is two products of the forward pass's size: its gradient with
    respect to the inputs and with respect to the weights. The optimiser, and what is free in ``count``, is not counted.

    Args:
        macs: of one forward pass on one input.

    >>> training_macs(macs=100, inputs=10)
    3000
    """
    return FORWARD_PASSES * macs * inputs


@torch.inference_mode(False)  # in it operations would come in other forms
def count(model: nn.Module, example_input: Any) -> Cost:
    """Parameters and MACs of a forward pass in eval mode.

    Args:
        model: any module; a copy of it is run once, in eval mode without gradients.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments. Pass a batch of one for the MACs
            per image.

    Raises:
        ValueError: the model does not run on the example input.

    >>> count(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.randn(1, 3, 6, 6))
    Cost(params=224, macs=3456, uncounted={})
    """
    copied = outline(Network(model), Changes(), on_meta=False)
    tape, error = record(copied, example_input)
    if error:
        raise ValueError(f"the network does not run on the example input: {error}")
    macs, uncounted = 0, Counter[str]()
    for node in tape.nodes:
        counted = node_macs(tape, node)
        macs += counted or 0
        uncounted[node.name] += counted is None
    return Cost(sum(p.numel() for p in model.parameters()), macs, dict(+uncounted))
