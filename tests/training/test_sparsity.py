"""Oracle: the same module with λ·Σ|γ| in its loss and no callback, in float64, whatever a step looks like."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.optim import optimizer as optimizers
from torch.utils.data import DataLoader, TensorDataset

import netslim
from netslim import Sparsity
from netslim.method.penalties import L1, Penalty
from netslim.method.scales import bn_scales
from tests.training.modules_to_penalise import (
    QUIET,
    SGD,
    STRENGTH,
    Adversarial,
    AdversarialLast,
    AdversarialUntoggled,
    BothClippedThenBothStep,
    ByHandInTheBackground,
    Clipped,
    ClippedInTheHook,
    Frozen,
    Manual,
    ManyBackwards,
    Module,
    PlainBackward,
    RawOptimizer,
    Scaled,
    Shared,
    Unfrozen,
    WithClosure,
    network,
)


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
