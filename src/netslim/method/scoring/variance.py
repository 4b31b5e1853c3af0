"""How much of what the next layers compute varies with a channel, in closed form, without data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netslim.method.scores import Connected, Connections, Magnitude, Scores
from netslim.modules import bn_layers


@dataclass(frozen=True)
class Variance:
    """s_j = Σ over readers, Σ over their outputs i of  ‖W_ij‖² · v_j / (variance_i + eps).

    Behind BatchNorm a channel is about N(β, γ²), and v_j is its variance after ReLU; the fraction is the share of the
    variance of output i that comes from channel j. Where a reader has no BatchNorm, variance_i is the sum of ‖W_ij‖²
    v_j over these channels. So a layer may be multiplied by c > 0 without a change of the scores, and a channel that
    nobody weighs counts little however large its γ. Where nothing reads a layer, its v_j alone are compared.

    Source: netslim's own; the moments are those of a rectified normal variable. Other activations are taken for ReLU.
    """

    needs_data = False
    needs_connections = True

    def __call__(self, network: nn.Module, batches: Iterable[Any], seed: int, connections: Connected) -> Scores:
        layers = bn_layers(network)
        value = {
            name: share_of_outputs(rectified_variance(layer.weight.detach(), layer.bias), connections[name])
            for name, layer in layers.items()
        }
        return Scores(value, Magnitude()(network).dead, "share of variance")


def rectified_variance(gamma: Tensor, beta: Tensor | None) -> Tensor:
    """The variance of max(0, z), z ~ N(β, γ²), shape (C,), float64 on the CPU.

    With t = β/|γ|: mean μ = βΦ(t) + |γ|φ(t), variance (β² + γ²)Φ(t) + β|γ|φ(t) − μ².

    >>> rectified_variance(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 9.0, 1.0])).round(decimals=4)
    tensor([0.3408, 1.0000, 0.0000], dtype=torch.float64)
    """
    size = gamma.detach().double().cpu().abs()
    shift = torch.zeros_like(size) if beta is None else beta.detach().double().cpu()
    t = shift / size.clamp_min(1e-300)
    below, density = torch.special.ndtr(t), (-t.square() / 2).exp() / math.sqrt(2 * math.pi)
    mean = shift * below + size * density
    return ((shift.square() + size.square()) * below + shift * size * density - mean.square()).clamp_min(0.0)


def share_of_outputs(variance: Tensor, around: Connections) -> Tensor:
    """s_j from v_j, shape (C,)."""
    if not around.readers:
        return variance
    score = torch.zeros_like(variance)
    for reader in around.readers:
        given = reader.energy * variance  # (O, C)
        every = given.sum(1) if reader.variance is None else reader.variance
        score += (given / every.clamp_min(1e-300)[:, None]).sum(0)
    return score
