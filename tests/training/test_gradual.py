"""A network that gets smaller while it trains. Oracles: the ramp by hand, the uninterrupted training, the masked one
(tests/engine/cut/test_in_place.py)."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

import netslim
from netslim import GradualSlimming, SlimmingTask, Sparsity
from netslim.data import InMemoryData, synthetic
from netslim.engine.cut.plan import rows_of
from netslim.nets import VGG, PreResNet
from netslim.training.sparsity import terms
from tests.training.conftest import Killed

QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}  # fmt: skip
EPOCHS = 8


def data() -> InMemoryData:
    source = partial(synthetic, train=64, test=16, classes=4, size=8)
    return InMemoryData(source, title="s", mean=[0.5] * 3, std=[0.25] * 3, batch_size=16, val_size=16)


def module(strength: float = 1e-2, network: Any = None, **options: Any) -> SlimmingTask:
    seed_everything(3, verbose=False)
    made = network() if network else VGG([8, "M", 12, 16], num_classes=4)
    sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    return SlimmingTask(made, optimizer=sgd, strength=strength, channels_last=False, **options)


class Widths(Callback):
    """Channels at the start of every epoch, and whether γ's gradient holds λ then."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(sum(len(layer.weight) for layer in netslim.bn_layers(pl_module).values()))


def fit(task: LightningModule, *callbacks: Callback, folder: Path | None = None, **settings: Any) -> Trainer:
    more = {"enable_checkpointing": folder is not None, "default_root_dir": folder, "max_epochs": EPOCHS, **settings}
    ckpt = more.pop("ckpt_path", None)
    trainer = Trainer(callbacks=list(callbacks), **QUIET, **more)
    trainer.fit(task, data(), ckpt_path=ckpt, weights_only=True)
    return trainer


def test_channels_are_removed_along_the_ramp() -> None:
    widths, task = Widths(), module()
    gradual = GradualSlimming(0.75, start=0.0, end=0.5, network="network")
    parameters = list(task.parameters())
    trainer = fit(task, gradual, widths)
    shares = [1 - (1 - min(1, epoch / 4)) ** 3 for epoch in range(EPOCHS)]  # by hand, at the start of each epoch
    assert widths.seen == [36 - math.floor(0.75 * share * 36 + 1e-9) for share in shares]
    assert all(a is b for a, b in zip(task.parameters(), parameters, strict=True))
    state = trainer.optimizers[0].state
    assert all(state[p]["momentum_buffer"].shape == p.shape for p in task.parameters())
    assert float(trainer.callback_metrics["width/features.1"]) == len(task.network.features[1].weight)


def test_floors_and_the_largest_share_of_a_cut_hold() -> None:
    task, widths = module(), Widths()
    task.network.features[1].weight.data.mul_(1e-3)  # the ranking would empty this layer at once
    fit(task, GradualSlimming(0.5, start=0.0, end=0.25, floor=0.3, network="network"), widths)
    assert widths.seen[1] >= 36 - 4 - 6 - 8  # at most half of each layer per cut
    assert len(task.network.features[1].weight) == 3  # ceil(0.3 * 8)
    assert widths.seen[-1] == 18


@pytest.mark.parametrize("callback", [True, False])
def test_the_penalty_ends_with_the_ramp(callback: bool) -> None:
    """Without a loss λ alone moves γ; λ = 0.01 at rate 0.05 moves it for as long as there is a ramp."""
    task = module(strength=0.0 if callback else 1e-2)
    task.training_step = lambda batch, batch_idx: 0 * task(batch[0]).sum()  # type: ignore[method-assign]
    task._make_optimizer = partial(torch.optim.SGD, lr=0.05)
    more = [Sparsity(1e-2)] if callback else []
    fit(task, *more, GradualSlimming(0.5, start=0.0, end=0.5, network="network"))
    steps = 3 * 4  # 48 images in batches of 16, four of eight epochs
    for layer in netslim.bn_layers(task).values():
        torch.testing.assert_close(layer.weight.data, torch.full_like(layer.weight, 0.5 - steps * 0.05 * 1e-2))


class Outputs(Callback):
    """What the network computes after every epoch, and its channels then, in the numbers of the dense one."""

    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []
        self.kept: list[dict[str, list[int]]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network: Any = pl_module.network
        self.seen.append(network.eval()(self.images).detach())
        network.train()
        rows, layers = rows_of(network), netslim.bn_layers(network)
        every = {name: torch.arange(len(layer.weight)) for name, layer in layers.items()}
        self.kept.append({name: rows.get(f"{name}.weight", of).tolist() for name, of in every.items()})


class Held(Callback):
    """Holds at 0 the γ and β that a training before has removed, and all that the optimiser knows of them."""

    def __init__(self, kept: list[dict[str, list[int]]], released: int) -> None:
        self.kept, self.released = [{}, *kept], released

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.released:
            next(terms(trainer, pl_module)).release()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.hold(trainer, pl_module, self.kept[trainer.current_epoch])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.hold(trainer, pl_module, self.kept[trainer.current_epoch + 1])

    def hold(self, trainer: Trainer, module: LightningModule, kept: dict[str, list[int]]) -> None:
        layers, (optimizer,) = netslim.bn_layers(module.get_submodule("network")), trainer.optimizers
        for name, channels in kept.items():
            for tensor in (layers[name].weight, layers[name].bias):
                gone = torch.ones(len(tensor), dtype=torch.bool).index_fill(0, torch.tensor(channels), False)
                for value in (tensor.data, optimizer.state[tensor]["momentum_buffer"]):
                    value[gone] = 0.0


def test_a_gradual_training_is_step_for_step_that_of_the_masked_network() -> None:
    """Penalty, momentum, weight decay and running statistics included, after each of four cuts."""
    tasks = [module(strength=1e-2), module(strength=1e-2)]
    for task in tasks:
        task._make_optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-2)
    ours, theirs = Outputs(), Outputs()
    fit(tasks[0], GradualSlimming(0.75, start=0.0, end=0.5, network="network"), ours, precision="64-true")
    fit(tasks[1], Held(ours.kept, released=4), theirs, precision="64-true")
    assert [sum(map(len, kept.values())) for kept in ours.kept] == [21, 13, 10, 9, 9, 9, 9, 9]
    for small, masked in zip(ours.seen, theirs.seen, strict=True):
        torch.testing.assert_close(small, masked, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(("epoch", "goal"), [*((e, {"ratio": 0.75}) for e in (1, 2, 3, 5)), (4, {"target_macs": 0.3})])
def test_a_resumed_training_ends_with_the_same_bits(epoch: int, goal: dict[str, float], tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        gradual = GradualSlimming(**goal, start=0.1, end=0.5, network="network", stable=0.8)
        return [gradual, ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True, save_top_k=1,
                                         enable_version_counter=False)]  # fmt: skip

    whole = module(network=lambda: PreResNet(11, num_classes=4))
    fit(whole, callbacks()[0])
    with pytest.raises(RuntimeError, match="killed"):
        fit(module(network=lambda: PreResNet(11, num_classes=4)), *callbacks(), Killed(epoch), folder=tmp_path)
    resumed = module(network=lambda: PreResNet(11, num_classes=4))
    for parameter in resumed.parameters():
        parameter.data.normal_()
    fit(resumed, *callbacks(), folder=tmp_path, ckpt_path=tmp_path / "last.ckpt")
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_the_small_network_is_saved_and_loaded(tmp_path: Path) -> None:
    task = module()
    fit(task, GradualSlimming(0.5, network="network"))
    netslim.save(task.network, tmp_path / "slim.pt")
    loaded = netslim.load(tmp_path / "slim.pt", VGG([8, "M", 12, 16], num_classes=4)).eval()
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(loaded(x), task.network.eval()(x), rtol=0, atol=0)


def test_a_compiled_network_is_compiled_anew() -> None:
    plain, compiled = module(), module(compile={"backend": "eager", "dynamic": False})
    for task in (plain, compiled):
        fit(task, GradualSlimming(0.5, network="network"), max_epochs=4)
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict())


@pytest.mark.parametrize("target", [{"target_macs": 0.3}, {"target_params": 0.4}, {"target_macs": 20_000}])
def test_the_ramp_is_one_of_the_cost(target: dict[str, float]) -> None:
    """No more is left at the start of an epoch than the ramp allows, and hardly less."""
    costs: list[int] = []

    class Cost(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            found = netslim.count(pl_module.network, torch.zeros(1, 3, 8, 8))  # type: ignore[union-attr, arg-type]
            costs.append(found.params if "target_params" in target else found.macs)

    fit(module(), GradualSlimming(**target, start=0.0, end=0.5, network="network"), Cost())
    (value,) = target.values()
    share = value if value < 1 else value / costs[0]
    allowed = [costs[0] * (1 - (1 - share) * (1 - (1 - min(1, epoch / 4)) ** 3)) for epoch in range(EPOCHS)]
    assert all(cost <= limit for cost, limit in zip(costs, allowed, strict=True))
    assert costs[-1] > 0.8 * allowed[-1]
    assert costs[1] > 1.2 * costs[-1]


def test_a_stable_kept_set_ends_the_ramp() -> None:
    """Without a gradient the ranking never changes, so after four epochs all that is left is removed, half a layer at
    a time."""
    widths, task = Widths(), module(strength=0.0)
    for layer in netslim.bn_layers(task).values():
        layer.weight.data.uniform_(0.1, 1.0)
    task.training_step = lambda batch, batch_idx: 0 * task(batch[0]).sum()  # type: ignore[method-assign]
    gradual = GradualSlimming(0.5, start=0.1, end=1.0, network="network", stable=0.999, most=1.0)
    fit(task, gradual, widths)
    ramp = [36 - math.floor(0.5 * (1 - (1 - max(0, (epoch / 8 - 0.1) / 0.9)) ** 3) * 36 + 1e-9) for epoch in range(4)]
    assert widths.seen == [*ramp, 18, 18, 18, 18]
    assert ramp[-1] > 18
    never = Widths()
    task = module(strength=0.0)
    fit(task, GradualSlimming(0.5, start=0.1, end=1.0, network="network"), never)
    assert never.seen[4] > 18


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ratio": 0.0}, "prune ratio 0.0 is outside 0 < ratio < 1"),
        ({"ratio": 0.5, "start": 0.5, "end": 1.5}, "the ramp runs from 0.5 to 1.5 of the epochs"),
        ({"ratio": 0.5, "most": 0}, "most=0 is no share of a layer"),
        ({"ratio": 0.5, "coupling": "all"}, "coupling must be one of"),
        ({"ratio": 0.5, "target_macs": 0.5}, "give either ratio or target_macs or target_params"),
        ({"ratio": 0.5, "stable": 1.5}, "stable=1.5 is no similarity"),
        (
            {"target_macs": 0.01, "floor": 0.5},
            "target_macs 0.01 is out of reach: at least 0.* of the multiply-adds stay",
        ),
        ({"target_macs": 1.0}, "target_macs 1 removes none of 36 channels; give a smaller one"),
        ({"ratio": 0.95, "floor": 0.2}, "their floors kept per layer only .* can be removed"),
    ],
)
def test_mistakes_are_refused_before_the_training(given: dict[str, Any], message: str) -> None:
    task, widths = module(), Widths()
    with pytest.raises(ValueError, match=message):
        fit(task, GradualSlimming(network="network", **given), widths)
    assert widths.seen == []


def test_one_epoch_is_too_short() -> None:
    with pytest.raises(ValueError, match="max_epochs=1: a network that shrinks at epoch ends needs at least 2"):
        fit(module(), GradualSlimming(0.5, network="network"), max_epochs=1)
