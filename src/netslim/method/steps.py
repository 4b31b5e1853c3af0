"""The penalty in any training loop: an optimiser's gradients hold λ·∂R/∂γ while it steps, and at no other time.

So every real step has the term once, whatever the loop does around it: any number of backward calls, several optimisers
with γ in common, a GradScaler that skips a step, gradients that are cleared before, after or never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from netslim.method.penalties import L1, Penalty
from netslim.method.scales import all_scales
from netslim.method.threshold import is_number

Groups = list[tuple[dict[str, Any], list[nn.Parameter]]]


def penalize(optimizer: Optimizer, model: nn.Module, strength: float, penalty: Penalty | None = None) -> PenalizedSteps:
    """Add λ·R(γ) to the loss of any training loop, through the hooks of its optimiser (equation 1).

    Every step that the optimiser takes has the penalty's gradient once, for the γ of ``model`` that it owns and that
    require gradients at that moment; a step that a GradScaler skips has none. Gradients that the loop clips itself are
    clipped before the term is added. In a Lightning Trainer use the callback ``Sparsity``, which clips after it.

    Args:
        optimizer: any torch optimiser, or what Accelerate or Fabric make of it.
        model: its BatchNorm layers are penalised.
        strength: λ; 0 adds nothing.
        penalty: default L1, the paper's.

    Returns:
        What adds the term; its ``remove()`` ends that.

    Raises:
        ValueError: λ is not a number of at least 0, the model has no γ or the optimiser none of them (call it after
            ``add_param_group``), or the optimiser is penalised already.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> steps = penalize(sgd, model, strength=0.01)
    >>> (0 * model(torch.randn(4, 2))).sum().backward()
    >>> sgd.step(); model[1].weight.data
    tensor([0.9990, 0.9990])
    """
    optimizer = unwrapped(optimizer)
    steps = PenalizedSteps(all_scales(model), checked_strength(strength), penalty or L1())
    if not steps.scales:
        raise ValueError(f"{type(model).__name__} has no BatchNorm scales to penalise")
    if is_penalized(optimizer):
        raise ValueError("this optimiser is penalised already; λ would count twice (remove() the first penalty)")
    if not any(gammas for _, gammas in steps.owned(optimizer)):
        raise ValueError(
            f"the {type(optimizer).__name__} owns none of the {len(steps.scales)} BatchNorm scales of "
            f"{type(model).__name__}; give it the optimiser that trains them"
        )
    if strength:
        steps.attach(optimizer)
    return steps


def checked_strength(strength: float) -> float:
    """λ, or a ValueError if it is none.

    >>> checked_strength("1e-4")
    Traceback (most recent call last):
    ValueError: λ is 1e-4; it must be 0 (no penalty) or positive, such as 1e-4
    """
    if not (is_number(strength) and 0 <= strength < float("inf")):
        raise ValueError(f"λ is {strength}; it must be 0 (no penalty) or positive, such as 1e-4")
    return strength


def unwrapped(optimizer: Any) -> Optimizer:
    """The torch optimiser in the wrappers of Lightning, Fabric and Accelerate."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    return optimizer


def is_penalized(optimizer: Optimizer) -> bool:
    hooks = optimizer._optimizer_step_pre_hooks.values()
    return any(isinstance(getattr(hook, "__self__", None), PenalizedSteps) for hook in hooks)


class PenalizedSteps:
    """Lends the gradients of an optimiser the penalty's for the time of its step.

    Args:
        scales: γ; those that the optimiser owns and that require gradients are penalised.
        strength: λ.
        penalty: R.
        elsewhere: whether an optimiser's gradients get the term by other means, so that none is lent.
    """

    def __init__(
        self,
        scales: Sequence[nn.Parameter],
        strength: float,
        penalty: Penalty,
        elsewhere: Callable[[Optimizer], bool] = lambda optimizer: False,
    ) -> None:
        self.scales = {id(gamma): gamma for gamma in scales}
        self.strength, self.penalty, self.elsewhere = strength, penalty, elsewhere
        self.added = 0  # how often
        self._lent: dict[int, tuple[Tensor | None, Tensor | None]] = {}  # the gradient without and with the term
        self._owned: WeakKeyDictionary[Optimizer, tuple[int, Groups]] = WeakKeyDictionary()
        self._handles: list[RemovableHandle] = []

    def attach(self, optimizer: Optimizer) -> None:
        self._handles += [
            optimizer.register_step_pre_hook(self.before_step),
            optimizer.register_step_post_hook(self.after_step),
        ]

    def attach_to_all(self) -> None:
        """To every optimiser that steps in this process: those that own none of the γ are left alone."""
        self._handles += [
            register_optimizer_step_pre_hook(self.before_step),
            register_optimizer_step_post_hook(self.after_step),
        ]

    def remove(self) -> None:
        """Take the hooks away: no further step is penalised."""
        while self._handles:
            self._handles.pop().remove()

    def owned(self, optimizer: Optimizer) -> Groups:
        """The optimiser's parameter groups with the γ in each, frozen ones too."""
        count = sum(len(group["params"]) for group in optimizer.param_groups)  # add_param_group makes it more
        known = self._owned.get(optimizer)
        if known is None or known[0] != count:
            groups = [
                (group, [self.scales[id(p)] for p in group["params"] if id(p) in self.scales])
                for group in optimizer.param_groups
            ]
            known = self._owned[optimizer] = count, groups
        return known[1]

    def trained(self, optimizer: Optimizer) -> list[nn.Parameter]:
        """The γ that a step of the optimiser may change now."""
        return [gamma for _, gammas in self.owned(optimizer) for gamma in gammas if gamma.requires_grad]

    @torch.no_grad()
    def add(self, scales: Sequence[nn.Parameter], weight: float | Tensor) -> None:
        """Add ``weight`` · ∂R/∂γ to the gradients."""
        self.penalty.add_gradient(scales, weight)
        self.added += 1

    def lend(self, optimizer: Optimizer, scale: Tensor | None = None) -> None:
        """Give the optimiser gradients with the term, unless they have it. scale: what multiplies them, under fp16."""
        scales = [gamma for gamma in self.trained(optimizer) if not self._has_term(gamma)]
        if not scales or not self.strength:
            return
        plain = [gamma.grad for gamma in scales]
        for gamma in scales:
            gamma.grad = None if gamma.grad is None else gamma.grad.clone()
        self.add(scales, self.strength if scale is None else self.strength * scale.to(scales[0].dtype))
        self._lent |= {id(gamma): (grad, gamma.grad) for gamma, grad in zip(scales, plain, strict=True)}

    def take_back(self, optimizer: Optimizer) -> None:
        """Give the gradients back as they were without the term."""
        for gamma in self._all(optimizer):
            if self._has_term(gamma):
                gamma.grad = self._lent[id(gamma)][0]
        self.forget(optimizer)

    def forget(self, optimizer: Optimizer) -> None:
        """Take the gradients to be without the term: they were cleared."""
        for gamma in self._all(optimizer):
            self._lent.pop(id(gamma), None)

    def before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """torch's step_pre_hook; ``args`` begins with the optimiser."""
        if not self.trained(optimizer):
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            if not self.elsewhere(optimizer):
                # A fused optimiser unscales the gradients itself.
                self.lend(optimizer, getattr(optimizer, "grad_scale", None))
            return None
        rest = {key: value for key, value in kwargs.items() if key != "closure"}
        return (optimizer, self._with_term(optimizer, closure), *args[2:]), rest

    def after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """torch's step_post_hook."""
        self.take_back(optimizer)
        if type(self.penalty).after_step is Penalty.after_step or not self.strength:
            return
        skipped = getattr(optimizer, "found_inf", None)  # of a fused optimiser: on the device
        share = self.strength if skipped is None else self.strength * (1 - skipped)
        for group, gammas in self.owned(optimizer):
            if scales := [gamma for gamma in gammas if gamma.requires_grad]:
                with torch.no_grad():
                    self.penalty.after_step(scales, group["lr"] * share)

    def _with_term(self, optimizer: Optimizer, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure of a step; an optimiser may call it several times."""
        called = False

        def penalized() -> Any:
            nonlocal called
            if called:
                self.take_back(optimizer)
            called = True
            loss = closure()
            if not self.elsewhere(optimizer):
                self.lend(optimizer)
            return self._counted(loss, optimizer)

        return penalized

    @torch.no_grad()
    def _counted(self, loss: Any, optimizer: Optimizer) -> Any:
        """LBFGS compares losses, so the penalty counts in them; to others the loss is what the user shows."""
        if loss is None or not isinstance(optimizer, LBFGS):
            return loss
        return loss + self.strength * self.penalty.value(self.trained(optimizer)) if self.strength else loss

    def _has_term(self, gamma: nn.Parameter) -> bool:
        lent = self._lent.get(id(gamma))
        return lent is not None and gamma.grad is lent[1]

    def _all(self, optimizer: Optimizer) -> Iterable[nn.Parameter]:
        return (gamma for _, gammas in self.owned(optimizer) for gamma in gammas)
