"""Oracle: the same module with λ·Σ|γ| in its loss and no callback, in float64, whatever a step looks like."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, Callback
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch.optim import optimizer as optimizers
from torch.utils.data import DataLoader, TensorDataset

import netslim
from netslim import Sparsity
from netslim.method.penalties import L1, Penalty
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


def train(module: Module, *, callbacks: tuple[Callback, ...] = (), batches: int = 7, bad: int | None = None, **options):
    data = torch.randn(6 * batches, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    if bad is not None:
        data[6 * bad] = torch.inf
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", callbacks=list(callbacks), num_sanity_val_steps=0, **QUIET, **options
    )
    trainer.fit(module, DataLoader(TensorDataset(data), 6))
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


MODULES = [
    PlainBackward, RawOptimizer, ManyBackwards, Clipped, ClippedInTheHook, WithClosure, Adversarial, AdversarialLast,
    AdversarialUntoggled, BothClippedThenBothStep, Shared, Frozen, Unfrozen, ByHandInTheBackground,
]  # fmt: skip
MEANS: dict[str, Callable[..., Any]] = {
    "sgd": SGD,
    "fused": partial(SGD, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=0.01, foreach=True),
}


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("kind", MODULES)
def test_a_step_equals_one_with_the_term_in_the_loss(kind, means):
    if kind is Frozen and means == "fused":
        pytest.skip("torch's fused SGD fails where a parameter joins later")
    ours = train(kind(MEANS[means]), callbacks=(Sparsity(STRENGTH),))
    oracle = train(kind(MEANS[means], in_loss=True))
    assert (ours - oracle).abs().max() < 1e-12 * (1 + oracle.abs().max())
    assert (ours - train(kind(MEANS[means]))).abs().max() > 1e-4


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("plugins", [None, Scaled])
def test_automatic_optimisation(accumulate, clip, plugins):
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": clip}
    ours = train(Module(), callbacks=(Sparsity(STRENGTH),), plugins=plugins and [plugins()], **options)
    oracle = train(Module(in_loss=True), plugins=plugins and [plugins()], **options)
    assert (ours - oracle).abs().max() < 1e-12


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [Module, PlainBackward, ManyBackwards, Adversarial, AdversarialLast, Clipped])
def test_a_step_that_the_scaler_skips_has_none_and_the_next_has_it_once(kind, fused):
    if fused and kind is Clipped:
        pytest.skip("Lightning does not clip for fused optimisers")
    if kind is PlainBackward:  # its loss must be scaled
        kind = type("Scaling", (RawStep,), {})
    make = partial(SGD, fused=fused)
    ours = train(kind(make), callbacks=(Sparsity(STRENGTH),), plugins=[Scaled()], bad=2)
    oracle = train(kind(make, in_loss=True), plugins=[Scaled()], bad=2)
    finite = oracle.isfinite()
    assert torch.equal(finite, ours.isfinite())
    assert (ours - oracle)[finite].abs().max() < 1e-12


class RawStep(Manual):
    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        self.manual_backward(self.loss(batch, self.one))
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("kind", [Module, WithClosure])
def test_lbfgs_calls_its_closure_many_times_and_compares_losses(kind, search):
    make = partial(torch.optim.LBFGS, lr=0.5, max_iter=4, line_search_fn=search)
    ours = train(kind(make), callbacks=(Sparsity(STRENGTH),), batches=2)
    oracle = train(kind(make, in_loss=True), batches=2)
    assert (ours - oracle).abs().max() < 1e-8


def test_under_bfloat16_and_compiled_the_step_is_the_same():
    def run(**options: Any) -> torch.Tensor:
        module = Module(**options).float()
        module.one.compile(backend="eager")
        torch.manual_seed(0)
        data = DataLoader(TensorDataset(torch.randn(24, 4)), 6)
        callbacks = [] if options else [Sparsity(STRENGTH)]
        Trainer(max_epochs=1, accelerator="cpu", precision="bf16-mixed", callbacks=callbacks, **QUIET).fit(module, data)
        return torch.cat([gamma.detach() for gamma in bn_scales(module.one)])

    assert (run() - run(in_loss=True)).abs().max() < 1e-6


class Proximal(Penalty):
    """Soft threshold after the step, in place of a gradient; by hand: every step takes lr·λ off |γ|."""

    def value(self, scales):
        return L1().value(scales)

    def add_gradient(self, scales, weight):
        for gamma in scales:
            gamma.grad = gamma.grad if gamma.grad is not None else torch.zeros_like(gamma)

    def after_step(self, scales, step):
        for gamma in scales:
            gamma.copy_(gamma.sign() * (gamma.abs() - step).clamp(min=0))


@pytest.mark.parametrize("kind", [Module, PlainBackward])
def test_a_penalty_that_acts_after_the_step(kind):
    class Still(kind):
        def loss(self, batch, net, **_):
            return 0 * net(batch[0]).sum()

    module = Still(partial(torch.optim.SGD, lr=0.1))
    before = module.one[1].weight.detach().clone()
    train(module, callbacks=(Sparsity(0.2, Proximal()),))
    expected = before.sign() * (before.abs() - 14 * 0.1 * 0.2).clamp(min=0)
    assert (module.one[1].weight - expected).abs().max() < 1e-12


def test_nothing_is_left_behind():
    module = Manual()
    with pytest.raises(ValueError, match="never reached"):
        train(module, callbacks=(Sparsity(STRENGTH),))
    assert "clip_gradients" not in vars(module)
    assert not optimizers._global_optimizer_pre_hooks
    assert not optimizers._global_optimizer_post_hooks

    class Broken(Clipped):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        train(module := Broken(), callbacks=(Sparsity(STRENGTH),))
    assert "clip_gradients" not in vars(module)
    assert not optimizers._global_optimizer_pre_hooks


# What is refused


class StepsNothing(Manual):
    def training_step(self, batch, batch_idx):
        self.loss(batch, self.one).backward()


class OwnsNoScale(Module):
    def configure_optimizers(self):
        return SGD([self.one[0].weight])


class AllFrozen(Module):
    def on_fit_start(self):
        for gamma in bn_scales(self.one):
            gamma.requires_grad_(False)

    def configure_optimizers(self):
        return SGD(self.one.parameters())


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (StepsNothing, "no optimiser that owns γ took a step"),
        (OwnsNoScale, "the optimisers own none of the 4 BatchNorm scales"),
        (AllFrozen, "every γ was frozen"),
    ],
)
def test_a_fit_without_any_penalty_ends_with_the_reason(kind, why):
    with pytest.raises(ValueError, match=f"λ = 0.05 never reached a γ: {why}"):
        train(kind(), callbacks=(Sparsity(STRENGTH),))


class InPieces(SingleDeviceStrategy):
    pass


class NoRate(Module):
    def configure_optimizers(self):
        return torch.optim.SGD(self.one.parameters(), lr=0.0)


class Penalised(Module):
    def configure_optimizers(self):
        optimizer = SGD(self.one.parameters())
        netslim.penalize(optimizer, self.one, 0.01)
        return optimizer


class Counting(Callback):
    batches = 0

    def on_train_batch_end(self, *_):
        self.batches += 1


@pytest.mark.parametrize(
    ("module", "more", "why"),
    [
        (Module, (Sparsity(0.01),), "two callbacks Sparsity"),
        (NoRate, (), "the learning rate is 0"),
        (Penalised, (), "this optimiser is penalised already"),
        (partial(netslim.SlimmingTask, network(), optimizer=SGD, strength=0.01), (), "SlimmingTask adds λ itself"),
    ],
)
def test_what_cannot_be_served_is_refused_before_the_first_step(module, more, why):
    counting = Counting()
    with pytest.raises(ValueError, match=why):
        train(module(), callbacks=(Sparsity(STRENGTH), counting, *more))
    assert counting.batches == 0


def test_strategies_that_keep_parameters_in_pieces_are_refused(monkeypatch):
    monkeypatch.setattr("netslim.training.sparsity.SingleDeviceStrategy", InPieces)
    with pytest.raises(ValueError, match="SingleDeviceStrategy keeps parameters in pieces"):
        train(Module(), callbacks=(Sparsity(STRENGTH),))


def test_a_task_without_its_own_penalty_may_have_the_callbacks():
    def task(strength: float) -> netslim.SlimmingTask:
        torch.manual_seed(1)
        return netslim.SlimmingTask(network()[:5], optimizer=SGD, strength=strength, channels_last=False)

    def run(module: netslim.SlimmingTask, *callbacks: Callback) -> torch.Tensor:
        data = TensorDataset(torch.randn(12, 4).double(), torch.arange(12) % 5)
        Trainer(max_epochs=1, accelerator="cpu", callbacks=list(callbacks), **QUIET).fit(module, DataLoader(data, 6))
        return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])

    torch.manual_seed(3)
    ours = run(task(STRENGTH))
    torch.manual_seed(3)
    assert torch.equal(run(task(0), Sparsity(STRENGTH)), ours)
