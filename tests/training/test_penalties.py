"""Penalties beside L1 in a Trainer. Oracle: the same training with λ·R(γ), written out, in its loss."""

from __future__ import annotations

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import netslim
from netslim import GradualSlimming, Sparsity
from netslim.method.penalties import Penalty
from netslim.method.scales import bn_scales
from netslim.method.shrinking.macs_l1 import MacsL1
from netslim.method.shrinking.polarization import Polarization
from netslim.method.shrinking.proximal import Proximal
from tests.training.modules_to_penalise import QUIET, SGD, STRENGTH, Scaled


def network() -> nn.Sequential:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5),
        nn.Tanh(), nn.Linear(5, 3),
    )  # fmt: skip
    nn.init.uniform_(net[1].weight, -1, 1)
    return net.double()


def polarized(net: nn.Module) -> Tensor:
    sizes = [gamma.abs() for gamma in bn_scales(net)]
    return sum(1.5 * size.sum() - (size - size.mean()).abs().sum() for size in sizes)


def weighed(net: nn.Module) -> Tensor:
    """By hand: a channel of the first layer costs 4 + 5 multiply-adds, one of the second 6 + 3: the same."""
    return sum(gamma.abs().sum() for gamma in bn_scales(net))


def unevenly_weighed(net: nn.Module) -> Tensor:
    """A channel of the first layer costs 4 + 5, one of the second 6 + 30, over the mean of 6·9 + 5·36."""
    first, second = (gamma.abs().sum() for gamma in bn_scales(net))
    return (9 * first + 36 * second) / ((6 * 9 + 5 * 36) / 11)


class Module(LightningModule):
    def __init__(self, term=None, outputs: int = 3) -> None:
        super().__init__()
        self.net, self.term = network(), term
        if outputs != 3:
            self.net[6] = nn.Linear(5, outputs).double()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        return loss if self.term is None else loss + STRENGTH * self.term(self.net)

    def configure_optimizers(self):
        return SGD(self.parameters())


def trained(module: LightningModule, *callbacks: Callback, **options) -> Tensor:
    x = torch.randn(42, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    data = DataLoader(TensorDataset(x, torch.arange(42) % 3), 6)
    torch.manual_seed(3)
    trainer = Trainer(max_epochs=2, accelerator="cpu", callbacks=list(callbacks), **QUIET, **options)
    trainer.fit(module, data)
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


class Falls(Callback):
    """Widths of both layers and how far their γ fall per step, in every epoch; before the channels are removed."""

    def __init__(self) -> None:
        self.seen: list[tuple[list[int], list[float]]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = [gamma.detach().clone() for gamma in bn_scales(pl_module)]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pairs = zip(self.before, bn_scales(pl_module), strict=True)
        falls = [float((old - new.detach()).mean()) / trainer.num_training_batches for old, new in pairs]
        self.seen.append(([len(old) for old in self.before], falls))


def test_costs_follow_the_network_after_every_cut() -> None:
    """Without a loss γ falls by lr·λ·c per step. Of a, b channels one costs 4 + b, or a + 30, over their mean."""
    module, falls = Module(outputs=30), Falls()
    module.training_step = lambda batch, batch_idx: 0 * module(batch[0]).sum()  # type: ignore[method-assign]
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.01)  # type: ignore[method-assign]
    for gamma in bn_scales(module):
        nn.init.uniform_(gamma, 1, 2)
    gradual = GradualSlimming(0.5, start=0.0, end=1.0, floor=1)
    trainer = Trainer(
        max_epochs=4, accelerator="cpu", callbacks=[Sparsity(STRENGTH, MacsL1()), falls, gradual], **QUIET
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(42, 4).double(), torch.arange(42) % 3), 6))
    assert len({tuple(widths) for widths, _ in falls.seen}) > 2
    for (a, b), fell in falls.seen:
        mean = (a * (4 + b) + b * (a + 30)) / (a + b)
        assert fell == pytest.approx([0.01 * STRENGTH * (4 + b) / mean, 0.01 * STRENGTH * (a + 30) / mean])


CASES = [(Polarization(), polarized, 3), (MacsL1(), weighed, 3), (MacsL1(), unevenly_weighed, 30)]


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 3}, {"gradient_clip_val": 0.05}, {"plugins": 1}])
@pytest.mark.parametrize(("penalty", "term", "outputs"), CASES, ids=["polarization", "macs_l1", "macs_l1 uneven"])
def test_a_step_equals_one_with_the_term_in_the_loss(penalty: Penalty, term, outputs, options):
    def plugged():
        return {"plugins": [Scaled()]} if "plugins" in options else options

    torch.manual_seed(0)
    ours = trained(Module(outputs=outputs), netslim.Sparsity(STRENGTH, penalty), **plugged())
    torch.manual_seed(0)
    oracle = trained(Module(term, outputs=outputs), **plugged())
    assert (ours - oracle).abs().max() < 1e-12


class ByHand(Module):
    """The soft threshold after each of the steps that are taken."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            with torch.no_grad():
                for gamma in bn_scales(self.net):
                    gamma.copy_(gamma.sign() * (gamma.abs() - 0.1 * STRENGTH).clamp(min=0))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_proximal_acts_once_per_step_and_leaves_exact_zeros(accumulate):
    module = Module()
    ours = trained(module, netslim.Sparsity(STRENGTH, Proximal()), accumulate_grad_batches=accumulate)
    assert (ours - trained(ByHand(), accumulate_grad_batches=accumulate)).abs().max() < 1e-12
    if accumulate == 1:
        assert any((gamma == 0).any() for gamma in bn_scales(module.net))


@pytest.mark.parametrize("penalty", [Proximal, Polarization, MacsL1])
def test_the_task_has_it_as_the_callback_has(penalty):
    def task(strength: float, one: Penalty | None = None) -> netslim.SlimmingTask:
        return netslim.SlimmingTask(network(), optimizer=SGD, strength=strength, penalty=one, channels_last=False)

    ours = trained(task(STRENGTH, penalty()))
    assert torch.equal(ours, trained(task(0.0), netslim.Sparsity(STRENGTH, penalty())))
    dense = trained(task(0.0, penalty()))  # none of its methods is called at λ = 0
    assert torch.equal(dense, trained(task(0.0)))
    assert (ours - dense).abs().max() > 1e-3
