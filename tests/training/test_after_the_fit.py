"""What Slimming leaves behind when the fit has ended: trainer, loggers and generators as they were."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import netslim
from tests.training.conftest import QUIET, loader
from tests.training.modules_of_lightning import Metric, Plain
from tests.training.test_end_of_fit import fit


class Snapshot(Callback):
    """What the trainer holds when the training ends."""

    def take(self, trainer: Trainer) -> list:
        loop = trainer.fit_loop.epoch_loop.val_loop
        kept = [trainer.loggers, trainer.callbacks, trainer.limit_val_batches, trainer.num_sanity_val_steps]
        return [*kept, dict(trainer.callback_metrics), dict(trainer.logged_metrics), loop.batch_progress.state_dict()]

    def on_train_end(self, trainer, pl_module):
        self.before = copy.deepcopy(self.take(trainer)[4:]), self.take(trainer)[:4]


def test_the_trainer_is_left_as_it_was(tmp_path):
    snapshot, module = Snapshot(), Metric()
    logger = CSVLogger(tmp_path)
    trainer = fit(
        module, netslim.Slimming(0.5), logger=logger, log_every_n_steps=1, callbacks=[netslim.Slimming(0.5), snapshot]
    )
    values, objects = snapshot.before
    now = snapshot.take(trainer)
    assert now[4:] == values
    assert all(a is b or a == b for a, b in zip(now[:4], objects, strict=True))
    assert trainer.loggers[0] is logger
    assert trainer.model is trainer.lightning_module is module
    assert trainer.validate(module, loader(seed=2), verbose=False) == [
        {"val/accuracy": pytest.approx(values[0]["val/accuracy"].item())}
    ]


class Shuffled(Plain):
    """Everything that draws numbers."""

    def __init__(self):
        super().__init__()
        self.net.insert(3, nn.Dropout(0.3))

    def validation_step(self, batch, batch_idx):
        super().validation_step((batch[0] + torch.randn(6), batch[1]), batch_idx)


@pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling enabled")  # on purpose
@pytest.mark.parametrize("options", [{}, {"generator": 3}, {"num_workers": 1, "persistent_workers": True}])
def test_the_training_is_the_same_without_slimming(options):
    states = []
    for callbacks in ([], [netslim.Slimming(0.5)]):
        given = {**options, "generator": torch.Generator().manual_seed(3)} if "generator" in options else options
        torch.manual_seed(0)
        module = Shuffled()
        fit(module, None, loader(shuffle=True, **given), loader(seed=2, shuffle=True, **given), callbacks=callbacks)
        states.append(module.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


class Writes(Metric):
    """Writes through the logger itself, and asks which it is."""

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        assert isinstance(self.logger, TensorBoardLogger)
        assert self.logger.log_dir.endswith("run")
        self.logger.experiment.add_scalar("own", 1.0, self.global_step)
        self.logger.log_metrics({"own too": 1.0})


def test_nothing_is_written_twice(tmp_path):
    written = []
    for name, callbacks in (("without", []), ("with", [netslim.Slimming(0.5)])):
        torch.manual_seed(0)
        logger = TensorBoardLogger(tmp_path / name, name="", version="run")
        fit(Writes(), None, logger=logger, callbacks=callbacks, log_every_n_steps=1)
        events = EventAccumulator(str(tmp_path / name / "run")).Reload()
        tags = events.Tags()["scalars"]
        written.append({tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags})
    assert written[0] == written[1]
    assert len(written[0]["own"]) == 6  # two batches: before the training, and after each of two epochs


def test_one_callback_in_several_fits(tmp_path):
    slimming, module = netslim.Slimming(0.5), Plain()
    trainer = fit(module, slimming)
    first = slimming.slimmed
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = Plain()
    longer = Trainer(**{**QUIET, "max_epochs": 4, "accelerator": "cpu", "callbacks": [slimming]})
    longer.fit(again, loader(), loader(seed=2), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert longer.global_step == 8
    assert slimming.slimmed is not first
    assert slimming.result["errors"] == {}
    smaller = netslim.Slimming(0.5)
    fit(slimming.slimmed, smaller)  # the slim module once more
    assert [each.net[0].out_features for each in (module, first, smaller.slimmed)] == [16, 8, 4]


def test_a_fit_that_had_been_finished(tmp_path):
    slimming = netslim.Slimming(0.5)
    trainer = fit(Plain(), slimming)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    slimming = netslim.Slimming(0.5)
    done = Trainer(**{**QUIET, "max_epochs": 2, "accelerator": "cpu", "callbacks": [slimming]})
    done.fit(Plain(), loader(), loader(seed=2), ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert done.global_step == 4
    assert slimming.result["errors"] == {}
    assert slimming.slimmed.net[0].out_features == 8
