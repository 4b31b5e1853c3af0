"""A network that gets smaller while it trains, in the fits of Lightning's documentation: optimisers, data, what ends a
training early, steps that run more than forward."""

from __future__ import annotations

import copy
import re
from functools import partial
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    EarlyStopping,
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
)
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from netslim import GradualSlimming, Sparsity
from netslim.method.schedules import OneShot
from netslim.modules import bn_layers
from tests.training.conftest import QUIET, loader, net, samples
from tests.training.modules_of_lightning import (
    Aliases,
    Backbone,
    BuiltInConfigureModel,
    BuiltInSetup,
    Gan,
    Hyperparameters,
    Manual,
    Metric,
    NoForward,
    Plain,
    Plateau,
    Teacher,
)
from tests.training.test_data_of_lightning import SeveralTrain, SeveralVal

gradual = partial(GradualSlimming, 0.5, start=0.0, end=0.5)


def fit(module: LightningModule, *callbacks: Callback, train: Any = None, **options: Any) -> Trainer:
    ckpt, val = options.pop("ckpt_path", None), options.pop("val", None)
    trainer = Trainer(**{**QUIET, "accelerator": "cpu", "max_epochs": 4, "callbacks": list(callbacks), **options})
    train = loader() if train is None else train
    trainer.fit(module, train, val or loader(seed=2), ckpt_path=ckpt, weights_only=False if ckpt else None)
    return trainer


def width(module: nn.Module) -> int:
    return len(next(iter(bn_layers(module).values())).weight)


class Counting(Callback):
    batches = 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.batches += 1


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(samples())


def stream() -> DataLoader:
    return DataLoader(Stream(), 16)


class KeepsLoss(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.loss = super().training_step(batch, batch_idx)
        return self.loss


MODULES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {  # the module, GradualSlimming's, and those of fit
    "keeps its loss": (KeepsLoss, {}, {}),
    "metric": (Metric, {}, {}),
    "manual": (Manual, {}, {}),
    "gan": (Gan, {"network": "generator"}, {}),
    "built in setup": (BuiltInSetup, {}, {}),
    "built in configure_model": (BuiltInConfigureModel, {"network": "net"}, {}),
    "hyper-parameters": (lambda: Hyperparameters(net()), {"network": "net"}, {}),
    "no forward": (NoForward, {"network": "net"}, {}),
    "teacher": (Teacher, {"network": "net"}, {}),
    "aliases": (Aliases, {"network": "net"}, {}),
    "plateau": (Plateau, {}, {}),
    "several loaders": (SeveralTrain, {}, {"train": CombinedLoader({"a": loader(), "b": loader()}, "min_size")}),
    "several validation loaders": (SeveralVal, {}, {"val": [loader(), loader(seed=2)]}),
    "stream": (Plain, {}, {"train": stream()}),
    "bf16": (Plain, {}, {"precision": "bf16-mixed"}),
    "accumulation": (Plain, {}, {"callbacks": GradientAccumulationScheduler({0: 1, 1: 2})}),
    "fast_dev_run": (Plain, {}, {"fast_dev_run": True}),
    "weight averaging": (Plain, {}, {"callbacks": StochasticWeightAveraging(0.05, swa_epoch_start=1)}),
    "backbone fine-tuning": (Backbone, {}, {"callbacks": BackboneFinetuning(1, lambda epoch: 1.0, train_bn=False)}),
}


@pytest.mark.filterwarnings("ignore:Attribute 'backbone' is an instance of")
@pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training")
@pytest.mark.parametrize("name", MODULES)
def test_half_of_the_channels_are_removed_and_the_training_goes_on(name: str) -> None:
    build, given, options = MODULES[name]
    module, more = build(), copy.copy(options)
    fit(module, Sparsity(1e-3), gradual(**given), *([more.pop("callbacks")] if "callbacks" in more else []), **more)
    network = module.get_submodule(given.get("network", ""))
    assert width(network) == 8
    assert all(parameter.isfinite().all() for parameter in module.parameters())


class History(torch.optim.SGD):
    """Keeps the weights of two steps ago in a list, and steps towards them."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            known = self.state[parameter].setdefault("old", [])
            known[:] = [*known[-1:], parameter.clone()]
            parameter.add_(known[0] - parameter, alpha=0.1)
        return loss


class With(Plain):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def configure_optimizers(self) -> Any:
        return self.make(self.parameters())


def test_lists_in_the_state_of_an_optimiser_are_cut() -> None:
    module = With(partial(History, lr=0.1))
    trainer = fit(module, gradual())
    for parameter, known in trainer.optimizers[0].state.items():
        assert [old.shape for old in known["old"]] == [parameter.shape] * 2


@pytest.mark.parametrize(
    ("make", "batches", "line"),
    [
        (
            lambda p: torch.optim.LBFGS(list(p)[::-1]),
            0,
            "LBFGS keeps one vector of all parameters: its state cannot be",
        ),
        (torch.optim.Adafactor, 1, "Adafactor keeps 'row_var' of shape .* its state cannot be cut; train with SGD"),
    ],
)
def test_an_optimiser_whose_state_cannot_be_cut_is_refused_at_its_first_step(make, batches, line) -> None:
    counting = Counting()
    with pytest.raises(ValueError, match=line):
        fit(With(make), gradual(), counting)
    assert counting.batches == batches


class Features(Plain):
    """Uses what a layer inside the network computes."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Linear(16, 4)

    def inside(self, batch: Any) -> torch.Tensor:
        return F.cross_entropy(self.adapter(self.net[:3](batch[0])), batch[1])


class InTraining(Features):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.inside(batch)


class InValidation(Features):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.inside(batch))


@pytest.mark.parametrize(("kind", "step"), [(InTraining, "training_step"), (InValidation, "validation_step")])
def test_a_step_that_needs_the_dense_widths_is_refused_before_the_training(kind: type[Plain], step: str) -> None:
    counting = Counting()
    with pytest.raises(ValueError, match=f"{step} runs on the module and not with a smaller network in it .*shapes"):
        fit(kind(), gradual(network="net"), counting)
    assert counting.batches == 0


@pytest.mark.parametrize(
    ("given", "options", "line"),
    [
        ({"network": "nett"}, {}, "network='nett' is no part of Plain: give its attribute path"),
        ({"floor": "a"}, {}, "floor must be 0 or more channels, got 'a'"),
        ({"schedule": OneShot()}, {}, "OneShot.during(0.5, ...) ends with 0 after 4 epochs; it must rise"),
        (
            {},
            {"max_epochs": -1, "max_steps": 4},
            "max_epochs=-1: a network that shrinks at epoch ends needs at least 2",
        ),
    ],
)
def test_what_cannot_be_is_one_line(given: dict[str, Any], options: dict[str, Any], line: str) -> None:
    counting = Counting()
    with pytest.raises(ValueError, match=re.escape(line)):
        fit(Plain(), gradual(**given), counting, **options)
    assert counting.batches == 0


def test_a_schedule_is_no_word() -> None:
    with pytest.raises(ValueError, match="schedule='gradual' does not say what is removed when"):
        gradual(schedule="gradual")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor")  # Dynamo's
def test_a_compiled_module_is_refused_unless_its_network_is_named() -> None:
    with pytest.raises(ValueError, match="the module is compiled: name the part of it that gets smaller"):
        fit(torch.compile(Plain(), backend="eager"), gradual())
    plain, module = Plain(), Plain()
    module.load_state_dict(plain.state_dict())
    fit(plain, gradual(network="net"))
    fit(torch.compile(module, backend="eager"), gradual(network="net"))
    torch.testing.assert_close(module.state_dict(), plain.state_dict())


@pytest.mark.parametrize("how", ["max_steps", "early stopping"])
def test_a_training_that_ends_before_the_ramp_says_so(how: str) -> None:
    more = [EarlyStopping("val/loss", mode="max", patience=1)] if how == "early stopping" else []
    options: dict[str, Any] = {} if more else {"max_steps": 4}
    with pytest.warns(UserWarning, match="the training ended in epoch 2 of 20, before all that was asked for"):
        fit(Plain(), GradualSlimming(0.5, start=0.0, end=0.5), *more, max_epochs=20, **options)
