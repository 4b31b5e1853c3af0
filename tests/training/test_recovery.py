"""Reconstruction and rescaling in ``Slimming``, against the library's functions on the same batches by hand."""

import copy

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from torch import nn

import netslim
from netslim.training.measuring import IdleBench
from netslim.training.slim_module import slim_module
from tests.training.conftest import QUIET, loader, samples
from tests.training.modules_of_lightning import INPUTS, Metric
from tests.training.test_slim_module import Data, correct, trained


def by_hand(dense: nn.Module, batches: list[torch.Tensor]) -> list[nn.Module]:
    """Recalibrated, reconstructed, rescaled."""
    small = netslim.slim(dense, netslim.select_channels(dense, 0.5, batches[0]), batches[0])
    netslim.recalibrate(small, batches)
    found = [copy.deepcopy(small)]
    netslim.reconstruct(small, dense, batches, images=32)
    netslim.recalibrate(small, batches)
    found.append(copy.deepcopy(small))
    netslim.rescale(small, batches[0])
    return [*found, small]


@pytest.mark.parametrize("network", ["", "net"])
def test_each_is_measured_and_the_last_is_kept(network):
    module = trained()
    expected = by_hand(module.net, [2 * x for x in INPUTS])  # the data module's hook, as in validation
    bench = IdleBench(Trainer(accelerator="cpu", **QUIET), Data(), "test")
    options = {"recalibration_batches": 2, "reconstruct": 32, "rescale": True}
    small, result = slim_module(module, bench, network=network, ratio=0.5, **options)
    x, y = samples(seed=3).tensors
    steps = ("recalibrated", "reconstructed", "rescaled")
    assert [result[key]["metrics"]["test/correct"] for key in steps] == [correct(net, 2 * x, y) for net in expected]
    for name, tensor in small.net.state_dict().items():
        torch.testing.assert_close(tensor, expected[-1].state_dict()[name])
    (before, after), name = result["reconstructed"]["layers"].popitem()[1], "net.1" if network == "" else "1"
    assert 0 <= after < before
    assert result["reconstructed"]["images"] == 32
    assert result["rescaled"]["factors"] == {name: pytest.approx(1 / expected[1][1].weight.abs().mean().item())}
    assert result["rescaled"]["left"] == {}


def test_the_callback_does_the_same():
    slimming = netslim.Slimming(ratio=0.5, reconstruct=32, rescale=True, recalibration_batches=2)
    module = Metric()
    trainer = Trainer(accelerator="cpu", max_epochs=2, callbacks=[slimming], **QUIET)
    trainer.fit(module, loader(), loader(seed=2))
    assert slimming.result["errors"] == {}
    expected = by_hand(module.net.eval(), INPUTS)[-1]
    for name, tensor in slimming.slimmed.net.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name])
    plain = netslim.Slimming(ratio=0.5)
    Trainer(accelerator="cpu", max_epochs=1, callbacks=[plain], **QUIET).fit(Metric(), loader(), loader(seed=2))
    assert not {"reconstructed", "rescaled"} & plain.result.keys()


def test_what_cannot_be_rescaled_is_said_before_the_training():
    module = Metric()
    module.net[2] = nn.SiLU()
    said = []
    look = LambdaCallback(on_train_epoch_start=lambda *_: said.append(len(seen.list)))
    callbacks = [netslim.Slimming(ratio=0.5, rescale=True), look]
    with pytest.warns(UserWarning, match=r"rescaled 0 of 1 BatchNorm layers \(1 held by silu\)") as seen:
        Trainer(accelerator="cpu", max_epochs=1, callbacks=callbacks, **QUIET).fit(module, loader(), loader(seed=2))
    assert any("rescaled 0" in str(warning.message) for warning in seen.list[: said[0]])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"reconstruct": -1}, "reconstruct is -1; give a number of images, such as 500, or 0 for none"),
        ({"reconstruct": True}, "reconstruct is True; give a number of images"),
        ({"rescale": 1}, "rescale is 1, neither true nor false"),
    ],
)
def test_refusals(options, why):
    with pytest.raises(ValueError, match=why):
        netslim.Slimming(ratio=0.5, **options)
