"""A network that gets smaller while it trains, and λ=auto: resumed within an epoch, in a second fit, tested from any
checkpoint, after a search of the learning rate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader

from netslim import AutoSparsity, GradualSlimming, Sparsity
from tests.training.conftest import QUIET, Killed, loader, samples
from tests.training.modules_of_lightning import Plain
from tests.training.test_gradual_in_lightning import fit, gradual, width

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def resumed(folder: Path, callbacks: Any, at: tuple[int, int], seen: Callback) -> LightningModule:
    """The training from the checkpoint after the first of four batches of the epoch in which it was killed."""
    save = ModelCheckpoint(folder, filename="c", every_n_train_steps=1, enable_version_counter=False)
    train = DataLoader(samples(64), 16)
    with pytest.raises(RuntimeError, match="killed"):
        fit(Plain(), *callbacks(), save, Killed(*at), train=train, enable_checkpointing=True)
    module = Plain()
    fit(module, *callbacks(), seen, train=train, ckpt_path=folder / "c.ckpt")
    return module


class Term(Callback):
    """λ of the optimiser's last step."""

    def __init__(self, callback: Any = None) -> None:
        self.strengths: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        (sparsity,) = (each for each in trainer.callbacks if isinstance(each, Sparsity))
        self.strengths.append(sparsity.term.steps.strength)


@pytest.mark.parametrize(("epoch", "strengths"), [(1, [0.01] * 3 + [0] * 8), (3, [0] * 3)])
def test_a_training_resumed_within_an_epoch_has_no_penalty_after_the_ramp(epoch, strengths, tmp_path: Path) -> None:
    term = Term()
    module = resumed(tmp_path, lambda: [Sparsity(0.01), gradual()], (epoch, 1), term)
    assert term.strengths == strengths
    assert width(module) == 8


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_lambda_auto_is_resumed_within_an_epoch(epoch: int, tmp_path: Path) -> None:
    module = resumed(tmp_path, lambda: [AutoSparsity(0.5)], (epoch, 1), Term())
    assert int((module.net[1].weight == 0).sum()) == 8


def test_a_second_fit_is_resumed_from_the_dense_network(tmp_path: Path) -> None:
    """Its first checkpoint, before it cuts anything, knows what the first fit has cut."""
    module, late = Plain(), partial(GradualSlimming, 0.5, start=0.5, end=1.0)
    fit(module, gradual())
    save = ModelCheckpoint(tmp_path, filename="c", save_on_train_epoch_end=True)
    with pytest.raises(RuntimeError, match="killed"):
        fit(module, late(), save, Killed(1, 0), enable_checkpointing=True)
    assert width(module) == 8
    again = Plain()
    fit(again, late(), ckpt_path=tmp_path / "c.ckpt")
    assert width(again) == 4


def test_checkpoints_are_tested_in_a_dense_module(tmp_path: Path) -> None:
    module, widths = Plain(), {}
    module.test_step = module.validation_step  # type: ignore[method-assign]
    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer = fit(module, gradual(), save, enable_checkpointing=True)
    for epoch in (0, 3):
        dense, path = Plain(), tmp_path / f"epoch={epoch}.ckpt"
        dense.test_step = dense.validation_step  # type: ignore[method-assign]
        Trainer(**QUIET, accelerator="cpu", callbacks=[gradual()]).test(dense, loader(), str(path), weights_only=False)
        widths[epoch] = width(dense)
        saved = torch.load(path, weights_only=False)["state_dict"]
        torch.testing.assert_close(dict(dense.state_dict()), dict(saved), rtol=0, atol=0)
        assert "on_load_checkpoint" not in vars(dense)
    assert widths[0] > widths[3] == 8
    with pytest.raises(ValueError, match="slimmed another way than in the checkpoint; give the dense network"):
        trainer.test(module, loader(), str(tmp_path / "epoch=0.ckpt"), weights_only=False)


class Rate(Plain):
    lr = 0.1

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@pytest.mark.parametrize("made", [lambda: [Sparsity(1e-3), gradual()], lambda: [AutoSparsity(0.5)]])
def test_the_learning_rate_may_be_searched_first(made: Any, tmp_path: Path) -> None:
    searched = Rate()
    fit(searched, LearningRateFinder(num_training_steps=3), *made(), default_root_dir=tmp_path)
    module, options = Rate(), {**QUIET, "accelerator": "cpu", "default_root_dir": tmp_path}
    trainer = Trainer(**options, max_epochs=4, callbacks=made())
    Tuner(trainer).lr_find(module, loader(), loader(), num_training=3)
    assert "on_load_checkpoint" not in vars(module)
    trainer.fit(module, loader(), loader())
    for each in (searched, module):
        assert min(width(each), int((each.net[1].weight != 0).sum())) == 8
