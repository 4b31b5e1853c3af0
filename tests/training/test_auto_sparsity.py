"""λ=auto in a Trainer. Oracles: γ by hand where there is no loss, the uninterrupted training, the share asked for."""

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
from netslim.data import InMemoryData, digits, synthetic
from netslim.method.auto_strength import START, next_strength
from netslim.method.scales import bn_scales, dead_share
from netslim.method.scoring.layer_mean import LayerMean
from netslim.method.shrinking.proximal import Proximal
from netslim.nets import VGG
from netslim.training.lr_schedules import multistep
from tests.training.conftest import Killed

QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}  # fmt: skip
EPOCHS = 8


def module(**options: Any) -> netslim.SlimmingTask:
    seed_everything(3, verbose=False)
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    network = VGG([8, "M", 12, 16], num_classes=4)
    return netslim.SlimmingTask(network, optimizer=sgd, channels_last=False, **options)


def fit(task: LightningModule, *callbacks: Callback, folder: Path | None = None, **settings: Any) -> Trainer:
    source = partial(synthetic, train=64, test=16, classes=4, size=8)
    data = InMemoryData(source, title="s", mean=[0.5] * 3, std=[0.25] * 3, batch_size=16, val_size=16)
    more = {"enable_checkpointing": folder is not None, "default_root_dir": folder, "max_epochs": EPOCHS, **settings}
    ckpt = more.pop("ckpt_path", None)
    trainer = Trainer(callbacks=list(callbacks), **QUIET, **more)
    trainer.fit(task, data, ckpt_path=ckpt, weights_only=True)
    return trainer


class Seen(Callback):
    """λ of every epoch, and |γ| at its end."""

    def __init__(self, auto: netslim.AutoSparsity) -> None:
        self.auto, self.strengths, self.scales = auto, [], []

    def on_train_epoch_start(self, trainer, pl_module):
        self.strengths.append(self.auto.strength)

    def on_train_epoch_end(self, trainer, pl_module):
        self.scales.append(torch.cat([gamma.detach().abs() for gamma in bn_scales(pl_module)]))


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_share_is_at_zero_and_the_others_are_free(ratio: float) -> None:
    auto = netslim.AutoSparsity(ratio, by=0.5)
    task, seen = module(), Seen(auto)
    trainer = fit(task, seen, auto)
    assert seen.strengths[0] == START
    assert seen.strengths[-3:] == [0.0] * 3
    zeros = [float((sizes == 0).float().mean()) for sizes in seen.scales]
    assert zeros[-1] == math.floor(ratio * 36) / 36
    assert dead_share(bn_scales(task)) == pytest.approx(ratio, abs=0.02)
    assert trainer.callback_metrics["dead_gamma/ratio"] == ratio
    keep = netslim.select_channels(task.network, ratio, torch.zeros(1, 3, 8, 8), score=LayerMean(), floor=0.05)
    assert all((task.network.get_submodule(name).weight[~kept] == 0).all() for name, kept in keep.items())


def test_without_a_loss_lambda_and_the_scales_are_as_by_hand() -> None:
    task, auto = module(), netslim.AutoSparsity(0.5, by=0.5)
    task.training_step = lambda batch, batch_idx: 0 * task(batch[0]).sum()  # type: ignore[method-assign]
    task._make_optimizer = partial(torch.optim.SGD, lr=0.5)
    seen = Seen(auto)
    fit(task, seen, auto)
    strength, gamma, wanted = START, 0.5, []
    for done in range(1, 5):  # three batches per epoch; 4 of 8 epochs are the approach
        wanted.append(strength)
        gamma -= 3 * 0.5 * strength
        strength = next_strength(strength, gamma / 0.5, 1 - done / 4)
        torch.testing.assert_close(seen.scales[done - 1], torch.full((36,), gamma))
    assert seen.strengths == pytest.approx([*wanted, 0.0, 0.0, 0.0, 0.0], rel=1e-5)
    assert float((seen.scales[4] == 0).sum()) == 18  # they have faded within an epoch
    torch.testing.assert_close(seen.scales[7].max(), torch.tensor(gamma))  # the others are as they were


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("epoch", [2, 3, 4, 5])
def test_a_resumed_training_ends_with_the_same_bits(epoch: int, tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        last = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        return [netslim.AutoSparsity(0.5), last]

    whole = module()
    fit(whole, netslim.AutoSparsity(0.5))
    with pytest.raises(RuntimeError, match="killed"):
        fit(module(), *callbacks(), Killed(epoch), folder=tmp_path)
    resumed = module()
    for parameter in resumed.parameters():
        parameter.data.normal_()
    fit(resumed, *callbacks(), folder=tmp_path, ckpt_path=tmp_path / "last.ckpt")
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_a_second_fit_starts_anew() -> None:
    auto, first, second = netslim.AutoSparsity(0.5), module(), module()
    fit(first, auto)
    fit(second, auto)
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


def test_another_penalty_is_followed_too() -> None:
    task = module()
    fit(task, netslim.AutoSparsity(0.5, penalty=Proximal()))
    assert dead_share(bn_scales(task)) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("callbacks", "options", "line"),
    [
        ((), {"max_epochs": 1}, "max_epochs=1: lambda=auto follows γ from epoch to epoch; give 2 or more"),
        ((netslim.GradualSlimming(0.5, network="network"),), {}, "lambda=auto and GradualSlimming both choose"),
        ((netslim.Sparsity(1e-3),), {}, "two callbacks Sparsity"),
    ],
)
def test_what_cannot_be_is_refused_before_the_training(callbacks, options, line) -> None:
    with pytest.raises(ValueError, match=line):
        fit(module(), netslim.AutoSparsity(0.5), *callbacks, **options)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.5, 0.7, 0.9])
def test_on_digits_the_share_is_reached_and_the_network_learns(ratio: float) -> None:
    seed_everything(0, verbose=False)
    data = InMemoryData(digits, title="digits", mean=[0.305], std=[0.375], batch_size=64, seed=0)
    network = VGG([16, 16, "M", 32, 32, "M", 64, 64], num_classes=10, in_channels=1)
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4)
    task = netslim.SlimmingTask(network, optimizer=sgd, scheduler=multistep)
    trainer = Trainer(max_epochs=24, callbacks=[netslim.AutoSparsity(ratio)], enable_checkpointing=False, **QUIET)
    trainer.fit(task, data)
    assert dead_share(bn_scales(task)) == pytest.approx(ratio, abs=0.02)
    assert float(trainer.callback_metrics["accuracy/train"]) > 0.8
