"""Modules that step in every way that Lightning allows: automatic and by hand, closures, turns, clipping, freezing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from netslim.method.scales import bn_scales

STRENGTH = 0.05


SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2)


QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


class Scaled(MixedPrecision):
    """fp16's gradient scaling with float64 arithmetic, so that equality can be exact."""

    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2))

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast("cpu", enabled=False)


def network() -> nn.Sequential:
    first, second = nn.Linear(4, 6, bias=False), nn.Linear(6, 5, bias=False)  # Adam would follow a bias's noise
    net = nn.Sequential(first, nn.BatchNorm1d(6), nn.Tanh(), second, nn.BatchNorm1d(5), nn.Linear(5, 1))
    nn.init.uniform_(net[1].weight, -1, 1)
    return net.double()


class Module(LightningModule):
    """Trains one network or two; ``in_loss``: with the penalty in the loss."""

    automatic_optimization = True

    def __init__(self, make: Callable[..., Any] = SGD, *, in_loss: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.one, self.two = network(), network()
        self.make, self.in_loss = make, in_loss

    def loss(self, batch: list[torch.Tensor], net: nn.Module, *, penalty: bool = True) -> torch.Tensor:
        loss = net(batch[0]).square().mean()
        if self.in_loss and penalty:
            loss = loss + STRENGTH * sum(gamma.abs().sum() for gamma in bn_scales(net))
        return loss

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> Any:
        return self.loss(batch, self.one)

    def configure_optimizers(self) -> Any:
        return self.make(self.one.parameters())


class Manual(Module):
    @property
    def automatic_optimization(self) -> bool:
        return False

    @automatic_optimization.setter
    def automatic_optimization(self, value: bool) -> None: ...


class PlainBackward(Manual):
    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.loss(batch, self.one).backward()
        optimizer.step()


class RawOptimizer(Manual):
    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch, self.one))
        optimizer.step()


class ManyBackwards(Manual):
    """Three backward calls per step, the last without a zero_grad in between; steps at every second batch."""

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        last = batch_idx % 2 == 1
        self.manual_backward(self.loss(batch, self.one, penalty=last))
        self.manual_backward(self.loss(batch, self.one, penalty=False))
        self.loss(batch, self.one, penalty=False).backward()
        if last:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)


class Clipped(Manual):
    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch, self.one))
        self.clip_gradients(optimizer, gradient_clip_val=0.05, gradient_clip_algorithm="norm")
        optimizer.step()


class ClippedInTheHook(Manual):
    def training_step(self, batch, batch_idx):
        PlainBackward.training_step(self, batch, batch_idx)

    def on_before_optimizer_step(self, optimizer):
        self.clip_gradients(optimizer, gradient_clip_val=0.05, gradient_clip_algorithm="norm")


class WithClosure(Manual):
    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()

        def closure():
            optimizer.zero_grad()
            loss = self.loss(batch, self.one)
            self.manual_backward(loss)
            return loss

        optimizer.step(closure=closure)


class Adversarial(Manual):
    """Two networks that take turns, each through the other, as GANs do."""

    first, toggled = True, True

    def training_step(self, batch, batch_idx):
        for optimizer, own, other in zip(self.optimizers(), (self.one, self.two), (self.two, self.one), strict=True):
            if self.toggled:
                self.toggle_optimizer(optimizer)
            if self.first:
                optimizer.zero_grad()
            loss = self.loss(batch, own) + self.loss(batch, other, penalty=False) * self.loss(batch, own, penalty=False)
            self.manual_backward(loss)
            optimizer.step()
            if not self.first:
                for each in self.optimizers():
                    each.zero_grad()
            if self.toggled:
                self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        return [self.make(self.one.parameters()), self.make(self.two.parameters())]


class AdversarialLast(Adversarial):
    first = False


class AdversarialUntoggled(Adversarial):
    toggled = False


class BothClippedThenBothStep(Adversarial):
    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers()
        self.manual_backward(self.loss(batch, self.one) + self.loss(batch, self.two))
        for optimizer in optimizers:
            self.clip_gradients(optimizer, gradient_clip_val=0.05, gradient_clip_algorithm="value")
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


class Shared(Manual):
    """Two optimisers own the same γ and step after one backward; none changes its sign in between."""

    def __init__(self, make, **options):
        super().__init__(make, **options)
        nn.init.constant_(self.one[1].weight, 3.0)

    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers()
        self.manual_backward(self.loss(batch, self.one))
        for optimizer in optimizers:
            optimizer.step()
        optimizers[0].zero_grad()

    def configure_optimizers(self):
        return [self.make(self.one.parameters()), torch.optim.SGD(self.one.parameters(), lr=0.01)]


class Frozen(Module):
    """The first layer is frozen from the second epoch on, the other is not trained before."""

    def on_train_epoch_start(self):
        self.one[1].requires_grad_(self.current_epoch == 0)
        self.one[4].requires_grad_(self.current_epoch > 0)


class Unfreezing(BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.one[:2], train_bn=False)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.one[:2], optimizer, lr=0.1, initial_denom_lr=1)


class Unfrozen(Module):
    def configure_callbacks(self):
        return [Unfreezing()]

    def configure_optimizers(self):
        return self.make([p for p in self.one.parameters() if p.requires_grad])


class ByHandInTheBackground(Module):
    """An optimiser that Lightning does not know, beside its own."""

    def on_train_start(self):
        self.mine = torch.optim.SGD(self.two.parameters(), lr=0.1)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.mine.zero_grad()
        self.loss(batch, self.two).backward()
        self.mine.step()
