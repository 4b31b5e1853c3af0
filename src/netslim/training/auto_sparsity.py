"""λ that finds itself, as a Lightning callback (method/auto_strength.py has the law).

Trainer(max_epochs=160, callbacks=[AutoSparsity(ratio=0.9), Slimming(ratio=0.9)])
"""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from netslim.method.auto_strength import START, check_auto, has_died, last_to_die, next_strength, to_hold
from netslim.method.penalties import Penalty
from netslim.method.scales import bn_scales
from netslim.method.threshold import Floor
from netslim.training.checkpoint import check_state
from netslim.training.gradual import GradualSlimming
from netslim.training.sparsity import Sparsity


class AutoSparsity(Sparsity):
    """``Sparsity`` whose λ brings a share of all γ to 0 by a set epoch, and is off from then on.

    Instead of a search for the λ at which the share of dead γ covers the prune ratio. After the release the others
    train without a penalty, and those of the share stay at 0: slimming by ``LayerMean`` removes them. A checkpoint
    knows λ and what is held; all ranks see the same γ and decide alike. Logs ``penalty/lambda`` and
    ``dead_gamma/ratio``, the share that is asked for.

    Args:
        ratio: the share of all γ, 0 < ratio < 1: the prune ratio.
        by: after which share of ``max_epochs`` λ is released at the latest, default 0.5.
        floor: γ that every layer keeps at least: a number, or a share of the layer, default 0.05.
        penalty: what λ multiplies, default L1.

    Raises:
        ValueError: when the fit starts, what cannot be done; ``Sparsity`` says more.

    >>> AutoSparsity(ratio=0.0)
    Traceback (most recent call last):
    ValueError: lambda=auto brings a share of the γ to 0, and the ratio is 0.0; give 0 < ratio < 1
    """

    def __init__(self, ratio: float, *, by: float = 0.5, floor: Floor = 0.05, penalty: Penalty | None = None) -> None:
        check_auto(ratio, by)
        super().__init__(START, penalty)
        self.ratio, self.by, self.floor = ratio, by, floor
        self._scales: list[nn.Parameter] = []
        self._low: list[Tensor] = []  # the least and the largest γ of this epoch
        self._high: list[Tensor] = []
        self._start_anew()

    def _start_anew(self) -> None:
        self._now = START  # λ
        self._means: list[float] = []  # of |γ|, by layer, at the start
        self._released: int | None = None  # the first epoch without λ
        self._held: list[Tensor] = []  # which γ are brought to 0 then
        self._from: list[Tensor] = []  # γ at the release

    @property
    def strength(self) -> float:
        """λ of this epoch."""
        return self._now

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if (trainer.max_epochs or 0) < 2 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise ValueError(
                f"max_epochs={trainer.max_epochs}: lambda=auto follows γ from epoch to epoch; give 2 or more"
            )
        if any(isinstance(callback, GradualSlimming) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            raise ValueError("lambda=auto and GradualSlimming both choose what is removed; give a number for λ with it")
        if trainer.ckpt_path is None:
            self._start_anew()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._scales = bn_scales(pl_module)
        if not self._means:
            self._means = [float(gamma.detach().abs().mean()) for gamma in self._scales]
        self.term.steps.strength = self._now
        for known in (self._low, self._high, self._held, self._from):  # a checkpoint has them on the CPU
            known[:] = [tensor.to(gamma.device) for tensor, gamma in zip(known, self._scales, strict=False)]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._released is None:
            self._low = [gamma.detach().clone() for gamma in self._scales]
            self._high = [gamma.detach().clone() for gamma in self._scales]

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        values = [gamma.detach() for gamma in self._scales]
        if self._released is None:
            torch._foreach_minimum_(self._low, values)
            torch._foreach_maximum_(self._high, values)
            return
        fading = trainer.current_epoch == self._released
        left = max(0.0, 1.0 - (batch_idx + 1) / trainer.num_training_batches) if fading else 0.0
        for gamma, held, start in zip(values, self._held, self._from, strict=True):
            gamma.copy_(torch.where(held, start * left, gamma))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        pl_module.log_dict({"penalty/lambda": self._now, "dead_gamma/ratio": self.ratio}, sync_dist=True)
        if self._released is None:
            self._follow(trainer.current_epoch + 1, trainer.max_epochs or 1)

    def _follow(self, done: int, epochs: int) -> None:
        """λ of the next epoch, or the release."""
        approach = min(max(1, math.ceil(self.by * epochs)), epochs - 1)
        crossed = [(low <= 0) & (high >= 0) for low, high in zip(self._low, self._high, strict=True)]
        size = last_to_die(self._scales, self._means, crossed, self.ratio)
        if done < approach and not has_died(size):
            self._now = next_strength(self._now, size, wanted=1 - done / approach)
            self.term.steps.strength = self._now
            return
        self._released, self._now = done, 0.0
        self._held = to_hold(self._scales, self.ratio, self.floor)
        self._from = [gamma.detach().clone() for gamma in self._scales]
        self.term.release()

    def state_dict(self) -> dict[str, Any]:
        state = {"lambda": self._now, "means": self._means, "released": self._released}
        return {**state, "held": self._held, "from": self._from, "low": self._low, "high": self._high}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = {"low": [], "high": [], **state_dict}  # earlier code kept none, and goes on from ends of epochs alone
        check_state(self, state)
        self._now, self._means, self._released = (state[key] for key in ("lambda", "means", "released"))
        self._held, self._from, self._low, self._high = (state[key] for key in ("held", "from", "low", "high"))
