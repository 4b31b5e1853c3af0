"""Σ|γ| by its proximal step: the γ of what is not needed become exactly 0."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from netslim.method.penalties import Penalty
from netslim.method.scales import l1_norm


class Proximal(Penalty):
    """R(γ) = Σ|γ|, by a soft threshold after the optimiser's step in place of a gradient.

    γ ← sign(γ) · max(0, |γ| − lr·λ). The subgradient of ``L1`` lets γ swing about 0; this step sets it to 0. It
    does not go through momentum, so it takes lr·λ off |γ| per step where L1 takes lr·λ / (1 − momentum): the same
    budget needs a larger λ.

    Source: Ye et al. 2018, "Rethinking the Smaller-Norm-Less-Informative Assumption" (ISTA on γ).

    >>> gamma = nn.Parameter(torch.tensor([0.5, -0.2, 0.05])); Proximal().after_step([gamma], 0.1); gamma.data
    tensor([ 0.4000, -0.1000,  0.0000])
    """

    def value(self, scales: Sequence[Tensor]) -> Tensor:
        return l1_norm(scales)

    def add_gradient(self, scales: Sequence[nn.Parameter], weight: float | Tensor) -> None:
        """Nothing: the term acts after the step."""

    def after_step(self, scales: Sequence[nn.Parameter], step: float | Tensor) -> None:
        soft_threshold(scales, step)

    def budget(self, strength: float, rates: Iterable[float], momentum: float) -> float | None:
        """λ · Σ lr: no momentum."""
        return strength * sum(rates)


@torch.no_grad()
def soft_threshold(scales: Sequence[Tensor], step: float | Tensor) -> None:
    """Take ``step`` off every |γ| in place, down to 0."""
    values = [gamma.detach() for gamma in scales]
    sizes = torch._foreach_abs(values)
    torch._foreach_add_(sizes, -step)
    torch._foreach_clamp_min_(sizes, 0.0)
    torch._foreach_mul_(sizes, torch._foreach_sign(values))
    torch._foreach_copy_(values, sizes)
