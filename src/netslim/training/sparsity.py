"""Where a penalty meets a Trainer: the term of equation 1 in the gradients, once per optimiser step."""

from __future__ import annotations

import math

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from netslim.method import penalties, scales
from netslim.method.threshold import is_number


class Sparsity(Callback):
    """Add the subgradient λ·sign(γ) of every BatchNorm layer in ``on_after_backward`` (equation 1).

    Args:
        strength: λ; the paper tries 1e-3, 1e-4 and 1e-5.

    >>> Sparsity(-1e-4)
    Traceback (most recent call last):
    ValueError: λ is -0.0001; it must be positive, such as 1e-4
    """

    def __init__(self, strength: float) -> None:
        if not (is_number(strength) and 0 < strength < math.inf):
            raise ValueError(f"λ is {strength}; it must be positive, such as 1e-4")
        self.strength = strength
        self._scales: list[nn.Parameter] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._scales = scales.bn_scales(pl_module)
        if not self._scales:
            raise ValueError(f"{type(pl_module).__name__} has no trainable BatchNorm scales to penalise")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        penalties.add_l1_subgradient(self._scales, penalty_weight(trainer, self.strength, like=self._scales[0]))


def penalty_weight(trainer: Trainer, strength: float, *, like: Tensor) -> float | Tensor:
    """What to multiply sign(γ) with in ``on_after_backward``, so that a step equals one with λ·Σ|γ| in the loss.

    The hook runs after every micro-batch, where Lightning has divided the loss by ``accumulate_grad_batches``; the
    penalty is divided likewise. Under fp16 the gradients are still multiplied by the GradScaler's scale; so is the
    penalty, on the device, without synchronisation. Under DDP the gradients have been averaged over the processes, and
    every process adds the same term to them. Clipping comes later and sees the sum, as with the term in the loss.
    """
    weight = strength / trainer.accumulate_grad_batches
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None:
        return weight
    return scaler.scale(torch.full((), weight, dtype=like.dtype, device=like.device))
