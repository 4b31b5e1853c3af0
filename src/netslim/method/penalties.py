"""Penalties on the BatchNorm scales γ: the door ``Penalty``, and L1 (Liu et al. 2017, section 3, equation 1).

Others are in method/shrinking/.

The loss of the paper is  L = Σ l(f(x, W), y) + λ·Σ|γ|.  Like the authors' code we do not add the second term to the
loss that is shown; we add its subgradient  λ·sign(γ)  to the gradients of γ between `backward` and `step`. Every
function here is small, knows neither Lightning nor the network, and touches all γ at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from netslim.method.scales import l1_norm


class Penalty(Protocol):
    """R(γ) in the loss  Σ l(f(x, W), y) + λ·R(γ). Another sparsity penalty is a class with these methods.

    Inherit from it, and only ``value`` and ``add_gradient`` must be written. ``scales`` are the γ that are trained now:
    parameters of shape (C_i,) on one device. λ is not the penalty's: at λ = 0 none of its methods is called.

    >>> class Squares(Penalty):  # R(γ) = Σ γ²
    ...     def value(self, scales):
    ...         return sum(gamma.square().sum() for gamma in scales)
    ...     def add_gradient(self, scales, weight):
    ...         for gamma in scales:
    ...             gamma.grad = 2 * weight * gamma.detach() + (0 if gamma.grad is None else gamma.grad)
    >>> gamma = nn.Parameter(torch.tensor([0.5, -0.2])); Squares().add_gradient([gamma], 0.1); gamma.grad
    tensor([ 0.1000, -0.0400])

    needs_costs: whether ``weigh`` is to be called before a training; default no.
    """

    needs_costs: bool = False

    def weigh(self, network: nn.Module, costs: Mapping[str, Tensor]) -> None:
        """Remember what channels cost: BN name -> the multiply-adds saved with each channel, shape (C,)."""
        return

    def value(self, scales: Sequence[Tensor]) -> Tensor:
        """R(γ), before λ: a 0-d tensor. It is logged, and counted where an optimiser compares losses (LBFGS)."""
        ...

    def add_gradient(self, scales: Sequence[nn.Parameter], weight: float | Tensor) -> None:
        """Add ``weight · ∂R/∂γ`` to ``γ.grad`` (which may be None), after backward and before clipping.

        Args:
            weight: λ, times what else multiplies the loss: the scale of fp16 training, 1/accumulation. A float, or a
                0-d tensor on the device of the scales.
        """
        ...

    def after_step(self, scales: Sequence[nn.Parameter], step: float | Tensor) -> None:
        """Change γ in place after the optimiser's step, e.g. a proximal step; nothing by default.

        Args:
            step: lr · λ, how far the step just taken may move them; 0 where the step was skipped.
        """
        return

    def budget(self, strength: float, rates: Iterable[float], momentum: float) -> float | None:
        """How far λ = ``strength`` alone can move a γ over steps at these learning rates; None (default): unknown."""
        return None


class L1(Penalty):
    """R(γ) = Σ|γ|, by its subgradient sign(γ): the penalty of the paper.

    >>> L1().value([torch.tensor([0.5, -0.25])])
    tensor(0.7500)
    """

    def value(self, scales: Sequence[Tensor]) -> Tensor:
        return l1_norm(scales)

    def add_gradient(self, scales: Sequence[nn.Parameter], weight: float | Tensor) -> None:
        add_l1_subgradient(scales, weight)

    def budget(self, strength: float, rates: Iterable[float], momentum: float) -> float | None:
        return shrinkage_budget(strength, rates, momentum)


def needs_costs(penalty: Penalty) -> bool:
    """Whether a penalty, which need not inherit from ``Penalty``, is to be told what channels cost."""
    return bool(getattr(penalty, "needs_costs", False))


@torch.no_grad()
def add_l1_subgradient(scales: Sequence[nn.Parameter], strength: float | Tensor) -> None:
    """Add ``strength · sign(γ)`` to the gradient of every γ, in three fused passes over all of them.

    The subgradient at γ = 0 is taken as 0, as in the authors' code. A γ without a gradient gets one, as it would if the
    term stood in the loss.

    Args:
        scales: parameters γ of shape (C_i,), on one device.
        strength: λ, times what else multiplies the loss (the scale of fp16 training, 1/accumulation). A 0-d tensor on
            the parameters' device costs no synchronisation.

    Source: equation 1; section 3, "Scaling Factors and Sparsity-induced Penalty".

    >>> gamma = nn.Parameter(torch.tensor([0.5, -0.2, 0.0])); gamma.grad = torch.zeros(3)
    >>> add_l1_subgradient([gamma], 0.1); gamma.grad
    tensor([ 0.1000, -0.1000,  0.0000])
    """
    if scales:
        add_terms(scales, torch._foreach_sign([gamma.detach() for gamma in scales]), strength)


@torch.no_grad()
def add_terms(scales: Sequence[nn.Parameter], terms: list[Tensor] | tuple[Tensor, ...], weight: float | Tensor) -> None:
    """Add ``weight · term`` to the gradient of every γ, which may be None; the terms are used up.

    >>> gamma = nn.Parameter(torch.ones(2)); add_terms([gamma], [torch.tensor([1.0, -1.0])], 0.5); gamma.grad
    tensor([ 0.5000, -0.5000])
    """
    for gamma in scales:
        if gamma.grad is None:
            gamma.grad = torch.zeros_like(gamma)
    gradients = [gamma.grad for gamma in scales if gamma.grad is not None]
    torch._foreach_mul_(terms, weight)
    torch._foreach_add_(gradients, terms)


def shrinkage_budget(strength: float, learning_rates: Iterable[float], momentum: float) -> float:
    """How far the penalty alone can move a γ over a whole training: λ · Σ_steps lr / (1 − momentum).

    λ alone says little: the same λ on a schedule a hundred times shorter shrinks a hundred times less. Runs with equal
    budgets compare. The recipe of the paper (160 epochs of 782 steps, lr 0.1 / 0.01 / 0.001) at λ = 1e-4:

    >>> steps = 782
    >>> rates = [0.1] * (80 * steps) + [0.01] * (40 * steps) + [0.001] * (40 * steps)
    >>> round(shrinkage_budget(1e-4, rates, momentum=0.9), 1)
    6.6
    """
    return strength * sum(learning_rates) / (1.0 - momentum)
