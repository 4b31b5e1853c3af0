"""What can be known is refused before the training; what fails after it loses nothing; nothing is left changed."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import netslim
from tests.training.conftest import QUIET, loader, samples
from tests.training.modules_of_lightning import Gan, Plain


class Counting(Plain):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return super().training_step(batch, batch_idx)


def fit(module, slimming, train=None, val=None, **options):
    trainer = Trainer(**{**QUIET, "max_epochs": 2, "accelerator": "cpu", "callbacks": [slimming], **options})
    trainer.fit(module, train or loader(), val or loader(seed=2))
    return trainer


class Head(Counting):
    """The validation step uses a head that forward does not run."""

    def __init__(self):
        super().__init__()
        self.body, self.head = self.net[:3], nn.Linear(16, 4)

    def forward(self, x):
        return self.net(x)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self.head(self.body(batch[0])), batch[1]))


class Closure(Counting):
    def __init__(self):
        super().__init__()
        network = self.net
        self.predict = lambda x: network(x)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self.predict(batch[0]), batch[1]))


class CountingGan(Gan):
    steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1


@pytest.mark.parametrize(
    ("module", "options", "line"),
    [
        (Head, {}, "forward leaves out a layer that the step uses; run it in forward, or name the part"),
        (Closure, {"network": "net"}, "runs the dense network, through a function or an object that refers to it"),
        (CountingGan, {"network": "generator"}, "not run on a training batch .* or set recalibration_batches=0"),
    ],
)
def test_refused_before_the_training(module, options, line):
    module = module()
    with pytest.raises(ValueError, match=line):
        fit(module, netslim.Slimming(0.5, **options))
    assert module.steps == 0


def test_training_data_that_can_be_looked_at_only_once():
    module = Counting()
    with pytest.raises(ValueError, match="can be iterated over only once"):
        fit(module, netslim.Slimming(0.5), train=iter(list(loader())), max_epochs=1)
    assert module.steps == 0


def test_a_head_outside_of_the_network_is_fine():
    slimming = netslim.Slimming(0.5, network="net")
    module = Plain()
    fit(module, slimming)
    assert slimming.slimmed.net[0].out_features == 8


class Follower(Plain):
    """A second network follows the first, layer by layer."""

    def __init__(self):
        super().__init__()
        self.follower = copy.deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch, batch_idx):
        for slow, fast in zip(self.follower.parameters(), self.net.parameters(), strict=True):
            slow.data.lerp_(fast.data, 0.1)
        return super().training_step(batch, batch_idx)


def test_a_training_step_that_does_not_fit_the_slim_network():
    slimming, module = netslim.Slimming(0.5, network="net"), Follower()
    with pytest.warns(UserWarning, match="training_step does not run on it .RuntimeError: The size of tensor"):
        fit(module, slimming, limit_train_batches=0.5)
    assert slimming.result["errors"] == {}
    assert slimming.slimmed.net[0].out_features == 8


def in_place(module, **options):
    module.compile(**options)
    return module


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of the compiler's
@pytest.mark.parametrize("compiled", [torch.compile, in_place])
@pytest.mark.parametrize("network", ["", "net"])
def test_a_compiled_module_gives_one_that_is_not(network, compiled):
    slimming = netslim.Slimming(0.5, network=network)
    fit(compiled(Plain(), backend="eager"), slimming)
    assert slimming.result["errors"] == {}
    x = samples().tensors[0]
    small, layers = slimming.slimmed.eval(), slimming.slimmed.net
    torch.testing.assert_close(small(x), layers[3](layers[2](layers[1](layers[0](x)))))
    assert (small.forward.__self__, small.net[0].out_features) == (small, 8)


class FailsLate(Counting):
    """Its validation fails when there is something to lose: on a full disk, say."""

    full = False

    def validation_step(self, batch, batch_idx):
        if self.full:
            raise OSError("no space left on device")
        super().validation_step(batch, batch_idx)

    def on_train_end(self):
        self.full = True


def test_a_measurement_that_fails_after_the_training():
    slimming, module = netslim.Slimming(0.5), FailsLate()
    with pytest.warns(UserWarning, match="failed after the training, which is kept: dense: OSError: no space left"):
        fit(module, slimming)
    assert module.steps == 4
    assert slimming.result["errors"] == dict.fromkeys(
        ("dense", "slim", "recalibrated"), "OSError: no space left on device"
    )
    assert slimming.result["slim"]["params"] == sum(p.numel() for p in slimming.slimmed.parameters())
    images = samples().tensors[0]
    with torch.no_grad():  # the statistics are re-estimated all the same
        means = torch.stack([slimming.slimmed.net[0](x).mean(0) for x in images.split(16)])
    torch.testing.assert_close(slimming.slimmed.net[1].running_mean, means.mean(0))


class Breaking(TensorDataset):
    broken = False

    def __getitem__(self, index):
        if self.broken:
            raise ConnectionError("the share is gone")
        return super().__getitem__(index)


def test_training_data_that_fail_after_the_training():
    data = Breaking(*samples().tensors)

    class Module(Counting):
        def on_train_end(self):
            data.broken = True

    slimming, module = netslim.Slimming(0.5), Module()
    with pytest.warns(UserWarning, match="failed after the training, which is kept: recalibrated: ConnectionError"):
        fit(module, slimming, DataLoader(data, 16))
    keep = netslim.select_channels(module, ratio=0.5, example_input=samples().tensors[0])["net.1"]
    assert torch.equal(slimming.slimmed.net[1].running_mean, module.net[1].running_mean[keep])
    assert slimming.result["recalibrated"]["metrics"] == slimming.result["slim"]["metrics"] != {}
    assert list(slimming.result["errors"]) == ["recalibrated"]


class NeedsTraining(Plain):
    """Validates against what the training has seen."""

    def training_step(self, batch, batch_idx):
        self.seen = batch
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.log("val/distance", (self(batch[0]) - self(self.seen[0])).norm())


def test_a_step_that_fails_only_before_the_training():
    slimming = netslim.Slimming(0.5)
    with pytest.warns(UserWarning, match="validation_step fails before the training .AttributeError"):
        fit(NeedsTraining(), slimming, num_sanity_val_steps=0)
    assert slimming.result["errors"] == {}
    assert slimming.result["slim"]["metrics"].keys() == {"val/distance"}


class Diverges(Counting):
    def on_train_end(self):
        with torch.no_grad():
            self.net[1].weight[:] = float("nan")


def test_a_network_that_diverged():
    slimming, module = netslim.Slimming(0.5), Diverges()
    with pytest.warns(UserWarning, match="failed after the training, which is kept: slimmed: ValueError"):
        fit(module, slimming)
    assert slimming.slimmed is None
    assert "slimmed" in slimming.result["errors"]
    assert module.steps == 4
