"""Where a penalty meets a Trainer: one step of it equals one with λ·R(γ) in the loss.

In automatic optimisation the term is added after each backward (``on_after_backward``), as Lightning divides and scales
the loss there; in manual optimisation, and for optimisers that a module steps behind Lightning's back, when an
optimiser steps (netslim.method.steps). SlimmingTask and the callback ``Sparsity`` both have it from here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.amp.grad_scaler import OptState
from torch.optim import Optimizer

from netslim.method.penalties import L1, Penalty, needs_costs
from netslim.method.scales import all_scales, bn_scales
from netslim.method.steps import PenalizedSteps, checked_strength, is_penalized, unwrapped
from netslim.training.channel_costs import costs_teller

log = logging.getLogger("netslim")


class Sparsity(Callback):
    """Add the penalty's gradient λ·∂R/∂γ to those of all BatchNorm layers of a LightningModule (equation 1).

    Every step of every optimiser has it once, in automatic and manual optimisation, for the γ that the optimiser owns
    and that require gradients at that moment: γ that is frozen does not move, γ that is unfrozen later is penalised
    from then on. ``self.clip_gradients`` and the Trainer's clipping see the term. Logs ``penalty/l1``: Σ|γ|, before λ.

    Args:
        strength: λ; the paper tries 1e-3, 1e-4 and 1e-5.
        penalty: R, default L1.

    Raises:
        ValueError: when the fit starts, what cannot be penalised (no BatchNorm, a strategy that keeps γ in pieces, a
            second penalty on the same γ, learning rate 0); when it ends, that no step had the penalty.

    >>> Sparsity(-1e-4)
    Traceback (most recent call last):
    ValueError: λ is -0.0001; it must be positive, such as 1e-4
    """

    def __init__(self, strength: float, penalty: Penalty | None = None) -> None:
        try:
            allowed = checked_strength(strength) > 0
        except ValueError:
            allowed = False
        if not allowed:
            raise ValueError(f"λ is {strength}; it must be positive, such as 1e-4")
        self.term = Term(strength, penalty)
        self._at: dict[Optimizer, int] = {}  # the step in which a manual optimiser got the term

    @property
    def strength(self) -> float:
        return self.term.strength

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if any(isinstance(part, Term) and part.strength for part in vars(pl_module).values()):
            raise ValueError(
                f"{type(pl_module).__name__} adds λ itself (its strength); leave the callback Sparsity out"
            )
        if sum(isinstance(callback, Sparsity) for callback in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise ValueError("two callbacks Sparsity would penalise every γ twice; give one, with the sum of their λ")
        self.term.check(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = self.term.start(trainer, pl_module, pl_module)
        steps.attach_to_all()
        if pl_module.automatic_optimization:
            return
        clip = pl_module.clip_gradients

        def clip_gradients(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            self._begin_step(trainer, unwrapped(optimizer))
            clip(optimizer, *args, **kwargs)

        pl_module.clip_gradients = clip_gradients  # type: ignore[method-assign]  # so that it sees the term

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.automatic_optimization:
            self.term.after_backward(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not pl_module.automatic_optimization:
            self._begin_step(trainer, optimizer)
            self._at[optimizer] = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.term.log(pl_module, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(pl_module)
        self.term.finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end(pl_module)

    def _begin_step(self, trainer: Trainer, optimizer: Optimizer) -> None:
        """Lend the term to a manual optimiser, in ``clip_gradients`` or else just before its step."""
        steps = self.term.steps
        if self._at.pop(optimizer, trainer.global_step) < trainer.global_step:
            steps.forget(optimizer)  # the scaler may have skipped the last step, which then gave nothing back
        scaler = _scaler(trainer)
        scaled = scaler is not None and scaler._per_optimizer_states[id(optimizer)]["stage"] is OptState.READY
        steps.lend(optimizer, scaler.scale(torch.ones((), device=trainer.strategy.root_device)) if scaled else None)

    def _end(self, pl_module: LightningModule) -> None:
        self.term.stop()
        self._at.clear()
        vars(pl_module).pop("clip_gradients", None)


class Term:
    """λ·R(γ) in one fit.

    Args:
        strength: λ; at 0 nothing is ever added.
        penalty: default L1.
    """

    def __init__(self, strength: float, penalty: Penalty | None = None) -> None:
        self.strength, self.penalty = checked_strength(strength), penalty or L1()
        self._steps: PenalizedSteps | None = None
        self._optimizers: list[Optimizer] = []  # which Lightning steps
        self._tell_costs: Callable[[], None] | None = None

    @property
    def steps(self) -> PenalizedSteps:
        assert self._steps is not None, "a fit has started"
        return self._steps

    def check(self, trainer: Trainer, network: nn.Module) -> None:
        """At the start of a fit: refuse what cannot be penalised."""
        if not all_scales(network):
            raise ValueError(f"{type(network).__name__} has no trainable BatchNorm scales to penalise; set λ = 0")
        if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise ValueError(
                f"{type(trainer.strategy).__name__} keeps parameters in pieces, or steps without torch's optimisers: γ "
                "cannot be penalised; train on one device or with strategy='ddp'"
            )

    def start(self, trainer: Trainer, module: LightningModule, network: nn.Module) -> PenalizedSteps:
        """When the training starts: optimisers are there."""
        automatic = module.automatic_optimization
        self._optimizers = list(trainer.optimizers)
        self._check_optimizers(module)
        self._tell_costs = costs_teller(self.penalty, trainer, module, network)
        self.follow()
        self._steps = PenalizedSteps(
            all_scales(network),
            self.strength,
            self.penalty,
            elsewhere=lambda optimizer: automatic and any(optimizer is own for own in self._optimizers),
        )
        if not any(gamma.requires_grad for gamma in self._steps.scales.values()):
            log.warning("every γ of %s is frozen: none is penalised until it is unfrozen", type(network).__name__)
        return self._steps

    def _check_optimizers(self, module: LightningModule) -> None:
        if module.automatic_optimization and not self._optimizers:
            raise ValueError(f"{type(module).__name__}.configure_optimizers gives no optimiser: nothing can shrink γ")
        if any(is_penalized(optimizer) for optimizer in self._optimizers):
            raise ValueError("this optimiser is penalised already (netslim.penalize); λ would count twice")
        rates = [group.get("initial_lr", group["lr"]) for o in self._optimizers for group in o.param_groups]
        if rates and not any(rates):
            raise ValueError("the learning rate is 0: λ cannot shrink any γ; give a positive rate, or set λ = 0")

    def release(self) -> None:
        """From now on the fit has no penalty: what was to become small is removed."""
        self.steps.strength = 0.0

    def follow(self) -> None:
        """Count anew what channels cost: the network is another one now."""
        if self._tell_costs is not None:
            self._tell_costs()

    def after_backward(self, trainer: Trainer) -> None:
        """Add the term to what Lightning's own optimiser will step with, as ``loss.backward()`` would have."""
        if not self.steps.strength:
            return
        for optimizer in self._optimizers:
            scales = self.steps.trained(optimizer)
            if scales:
                self.steps.add(scales, penalty_weight(trainer, self.steps.strength, like=scales[0]))

    def log(self, module: LightningModule, network: nn.Module) -> None:
        """R(γ) of the γ that are trained, before λ, as ``penalty/<name of its class>``."""
        unweighed = needs_costs(self.penalty) and self._steps is None  # at λ = 0
        if (scales := bn_scales(network)) and not unweighed:
            name = type(self.penalty).__name__.lower()
            module.log(f"penalty/{name}", self.penalty.value(scales), sync_dist=True)

    def stop(self) -> None:
        if self._steps is not None:
            self._steps.remove()

    def finish(self, trainer: Trainer) -> None:
        """At the end of a fit.

        Raises:
            ValueError: no step had the penalty, so the network is dense.
        """
        self.stop()
        steps, optimizers = self._steps, self._optimizers
        self._steps, self._optimizers, self._tell_costs = None, [], None
        if steps is None or steps.added or not steps.strength:  # the last: released before the first step
            return
        owned = [gamma for optimizer in optimizers for _, gammas in steps.owned(optimizer) for gamma in gammas]
        if optimizers and not owned:
            reason = f"the optimisers own none of the {len(steps.scales)} BatchNorm scales"
        elif owned and not any(gamma.requires_grad for gamma in owned):
            reason = "every γ was frozen (requires_grad=False)"
        else:
            reason = "no optimiser that owns γ took a step"
        raise ValueError(
            f"λ = {self.strength:g} never reached a γ: {reason}; the network was trained without a penalty"
        )


def terms(trainer: Trainer, module: LightningModule) -> Iterator[Term]:
    """The penalties of this fit, whoever adds them: the callback ``Sparsity``, or a task by itself."""
    for owner in [*trainer.callbacks, module]:  # type: ignore[attr-defined]
        yield from (part for part in vars(owner).values() if isinstance(part, Term) and part.strength)


def penalty_weight(trainer: Trainer, strength: float, *, like: Tensor) -> float | Tensor:
    """What to multiply ∂R/∂γ with in ``on_after_backward``, so that a step equals one with λ·R(γ) in the loss.

    The hook runs after every micro-batch, where Lightning has divided the loss by ``accumulate_grad_batches``; the
    penalty is divided likewise. Under fp16 the gradients are still multiplied by the GradScaler's scale; so is the
    penalty, on the device, without synchronisation. Under DDP the gradients have been averaged over the processes, and
    every process adds the same term to them. Clipping comes later and sees the sum, as with the term in the loss.
    """
    weight = strength / trainer.accumulate_grad_batches
    scaler = _scaler(trainer)
    if scaler is None:
        return weight
    return scaler.scale(torch.full((), weight, dtype=like.dtype, device=like.device))


def _scaler(trainer: Trainer) -> Any:
    """The GradScaler of fp16 training, else None."""
    return getattr(trainer.precision_plugin, "scaler", None)
