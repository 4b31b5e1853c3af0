"""A penalty that parts the γ of a layer into small and large ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from netslim.method.penalties import Penalty, add_terms
from netslim.method.threshold import is_number


class Polarization(Penalty):
    """R(γ) = Σ over layers of  t·Σ|γ| − Σ| |γ| − m |,  m the mean |γ| of the layer.

    L1 shrinks all γ alike; the second term is largest where half of them are 0 and half are large, so what is under the
    mean is pushed down harder than what is over it.

    Args:
        t: how much of L1 there is, default 1.5. The larger, the more γ are small.

    Source: Zhuang et al. 2020, "Neuron-level Structured Pruning using Polarization Regularizer" (t = 1.5 for a VGG, 1.4
    for a ResNet-56). Theirs takes the mean over all layers; scales of different layers do not compare, so here each
    layer has its own.

    Raises:
        ValueError: t is not a number of at least 0.

    >>> gamma = nn.Parameter(torch.tensor([0.1, 0.5])); Polarization(t=1.0).value([gamma])
    tensor(0.2000, grad_fn=<SubBackward0>)
    >>> Polarization(t=1.0).add_gradient([gamma], 1.0); gamma.grad
    tensor([2., 0.])
    """

    def __init__(self, t: float = 1.5) -> None:
        if not (is_number(t) and 0 <= t < math.inf):
            raise ValueError(f"t={t}: how much of L1 the polarization has must be 0 or more, such as 1.5")
        self.t = t

    def value(self, scales: Sequence[Tensor]) -> Tensor:
        sizes = [gamma.abs() for gamma in scales]
        spread = torch.stack([(size - size.mean()).abs().sum() for size in sizes]).sum()
        return self.t * torch.stack([size.sum() for size in sizes]).sum() - spread

    @torch.no_grad()
    def add_gradient(self, scales: Sequence[nn.Parameter], weight: float | Tensor) -> None:
        add_terms(scales, [self._term(gamma.detach()) for gamma in scales], weight)

    def _term(self, gamma: Tensor) -> Tensor:
        """∂R/∂γ of a layer: (t − side + mean of all sides) · sign(γ), side = sign(|γ| − m)."""
        size = gamma.abs()
        side = (size - size.mean()).sign()
        return (self.t - side + side.mean()) * gamma.sign()
