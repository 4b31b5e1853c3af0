"""The function without a fit. Oracles: the masked network's error counted by hand, the means of the batches."""

from __future__ import annotations

import pytest
import torch
from lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

import netslim
from netslim.training.measuring import IdleBench
from netslim.training.slim_module import slim_module
from tests.training.conftest import QUIET, loader, samples
from tests.training.modules_of_lightning import INPUTS, Metric


class Data(LightningDataModule):
    def train_dataloader(self):
        return loader()

    def val_dataloader(self):
        return loader(seed=2)

    def test_dataloader(self):
        return DataLoader(samples(seed=3), 16)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] * (-1.0 if self.trainer.training else 2.0), batch[1]


class WithTestStep(Metric):
    def test_step(self, batch, batch_idx):
        self.log("test/correct", (self(batch[0]).argmax(1) == batch[1]).float().sum(), reduce_fx="sum", on_epoch=True)


def trained() -> WithTestStep:
    module = WithTestStep()
    with torch.no_grad():
        module.net[1].weight.uniform_(-1, 1)
        module.net[1].bias.uniform_(-1, 1)
    return module


def correct(network: torch.nn.Module, x: Tensor, y: Tensor) -> int:
    with torch.no_grad():
        return int((network.eval()(x).argmax(1) == y).sum())


@pytest.mark.parametrize("network", ["", "net"])
def test_slim_module_measures_on_the_test_set(network):
    module = trained()
    x, y = samples(seed=3).tensors
    bench = IdleBench(Trainer(accelerator="cpu", **QUIET), Data(), "test")
    small, result = slim_module(module, bench, network=network, recalibration_batches=2, ratio=0.5)
    masked = netslim.mask(module.net, netslim.select_channels(module.net, ratio=0.5, example_input=x))
    counts = [result[key]["metrics"]["test/correct"] for key in ("dense", "slim", "recalibrated")]
    assert counts == [correct(each, 2 * x, y) for each in (module.net, masked, small.net)]
    assert (result["removed"], result["prunable"], module.net[0].out_features) == (8, 16, 16)
    with torch.no_grad():  # as in validation, not as in training
        means = torch.stack([small.net[0](2 * part).mean(0) for part in INPUTS])
    torch.testing.assert_close(small.net[1].running_mean, means.mean(0))


def test_without_recalibration_the_statistics_are_those_of_the_dense_network():
    module = trained()
    module.net[1].running_mean.uniform_(-1, 1)
    bench = IdleBench(Trainer(accelerator="cpu", **QUIET), Data(), "val")
    small, result = slim_module(module, bench, network="net", recalibration_batches=0, ratio=0.5)
    x = samples().tensors[0]
    keep = netslim.select_channels(module.net, ratio=0.5, example_input=x)["1"]
    assert torch.equal(small.net[1].running_mean, module.net[1].running_mean[keep])
    assert result["recalibrated"] == {"metrics": result["slim"]["metrics"]}
    assert result["slim"]["metrics"].keys() == {"val/accuracy"}


def test_what_fails_is_raised():
    class Broken(WithTestStep):
        def test_step(self, batch, batch_idx):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        slim_module(Broken(), IdleBench(Trainer(accelerator="cpu", **QUIET), Data(), "test"), ratio=0.5)


def test_two_callbacks_in_one_fit():
    some, more = netslim.Slimming(0.25), netslim.Slimming(0.75, network="net")
    trainer = Trainer(accelerator="cpu", max_epochs=1, callbacks=[some, more], **QUIET)
    trainer.fit(trained(), loader(), loader(seed=2))
    assert [each.slimmed.net[0].out_features for each in (some, more)] == [12, 4]
    assert some.result["dense"] == more.result["dense"]
