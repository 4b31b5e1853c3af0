"""Weight decay of γ alone. Oracle: SGD's own formula, and the uninterrupted training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import netslim
from netslim.method.scales import bn_scales
from tests.training.test_auto_sparsity import Killed, fit, module

SGD = partial(torch.optim.SGD, lr=0.1, weight_decay=0.5)


def test_gamma_has_its_own_decay_and_the_penalty_acts_on_it_too() -> None:
    task = netslim.SlimmingTask(module().network, optimizer=SGD, scale_decay=0.25, strength=1e-2, channels_last=False)
    task.training_step = lambda batch, batch_idx: 0 * task(batch[0]).sum()  # type: ignore[method-assign]
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    fit(task, max_epochs=1)  # three steps
    scales = {id(gamma) for gamma in bn_scales(task)}
    for name, parameter in task.named_parameters():
        expected = before[name]
        for _ in range(3):
            decay, pull = (0.25, 1e-2 * expected.sign()) if id(parameter) in scales else (0.5, 0.0)
            expected = expected - 0.1 * (decay * expected + pull)
        torch.testing.assert_close(parameter.detach(), expected)


def test_the_optimisers_own_decay_given_for_gamma_trains_as_without() -> None:
    plain, apart = (
        netslim.SlimmingTask(module().network, optimizer=SGD, scale_decay=decay, channels_last=False)
        for decay in (None, 0.5)
    )
    fit(plain)
    fit(apart)
    torch.testing.assert_close(apart.state_dict(), plain.state_dict())


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    def last() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)

    whole, resumed = module(scale_decay=0.1), module(scale_decay=0.1)
    fit(whole)
    with pytest.raises(RuntimeError, match="killed"):
        fit(module(scale_decay=0.1), last(), Killed(2), folder=tmp_path)
    fit(resumed, last(), folder=tmp_path, ckpt_path=tmp_path / "last.ckpt")
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="scale_decay=-1: the weight decay of γ must be 0 or more"):
        module(scale_decay=-1)
    task = netslim.SlimmingTask(module().network, optimizer=torch.optim.Rprop, scale_decay=0.0)
    with pytest.raises(ValueError, match=r"scale_decay=0\.0: Rprop knows no weight decay; leave it out"):
        task.configure_optimizers()
