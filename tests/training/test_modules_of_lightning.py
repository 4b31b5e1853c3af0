"""The LightningModules of Lightning's documentation: what they log, keep, build and how they optimise."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)

from tests.training.conftest import Case, check, loader, net
from tests.training.modules_of_lightning import (
    INPUTS,
    Aliases,
    Backbone,
    Beside,
    BuiltInConfigureModel,
    BuiltInSetup,
    BuiltOnce,
    Gan,
    Hyperparameters,
    Manual,
    Metric,
    Metrics,
    Nested,
    NoForward,
    Outputs,
    Plain,
    Plateau,
    Teacher,
)
from tests.training.odd_modules import Odd, OnlyOptional, Prints


def data():
    return loader(), loader(seed=2)


def case(module, **settings):
    return lambda tmp_path: Case(module(), data(), **{"inputs": INPUTS, **settings})


CASES = {
    "plain": case(Plain),
    "network named": case(Plain, network="net"),
    "metric": case(Metric),
    "metrics": case(Metrics),
    "manual optimisation": case(Manual),
    "gan": case(Gan, network="generator", x=torch.randn(8, 3), inputs=None, slimming={"recalibration_batches": 0}),
    "forward beside the network": case(Beside, network="net"),
    "built in setup": case(BuiltInSetup),
    "built in setup, network named": case(BuiltInSetup, network="net"),
    "built in configure_model": case(BuiltInConfigureModel),
    "built once": case(BuiltOnce, network="net"),
    "hyper-parameters": case(lambda: Hyperparameters(net()), network="net"),
    "outputs": case(Outputs, oracle="net"),
    "outputs, network named": case(Outputs, network="net"),
    "odd attributes": case(Odd, oracle="net"),
    "odd attributes, network named": case(Odd, network="net"),
    "no forward": case(NoForward, network="net"),
    "teacher": case(Teacher, network="net"),
    "aliases": case(Aliases, network="net"),
    "plateau": case(Plateau),
    "nested": case(Nested, network="net"),
    "nested, inner network named": case(Nested, network="net.net"),
    "optional arguments": case(OnlyOptional),
    "asks its trainer": lambda tmp_path: Case(Prints(), data(), callbacks=[EarlyStopping("val/loss")]),
    "no sanity check": case(Metric, trainer={"num_sanity_val_steps": 0, "check_val_every_n_epoch": 2}),
    "accumulation and clipping": case(Plain, trainer={"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}),
    "bf16": case(Plain, trainer={"precision": "bf16-mixed"}, inputs=None),
    "float64": case(Plain, trainer={"precision": "64-true"}, inputs=None),
    "barebones limits": case(Plain, trainer={"limit_train_batches": 1, "limit_val_batches": 1}, inputs=INPUTS[:1]),
    "max_steps": case(Plain, trainer={"max_steps": 3, "max_epochs": -1}, same_metrics=False),
    "fast_dev_run": case(Plain, trainer={"fast_dev_run": True}, inputs=INPUTS[:1]),
    "early stopping": lambda tmp_path: Case(
        Metric(), data(), callbacks=[EarlyStopping("val/accuracy", mode="min", patience=1)], inputs=INPUTS
    ),
    "best checkpoint": lambda tmp_path: Case(
        Metric(),
        data(),
        callbacks=[ModelCheckpoint(tmp_path, monitor="val/accuracy", save_top_k=1)],
        trainer={"enable_checkpointing": True, "default_root_dir": tmp_path},
        inputs=INPUTS,
    ),
    "stochastic weight averaging": lambda tmp_path: Case(
        Plain(),
        data(),
        callbacks=[StochasticWeightAveraging(0.05, swa_epoch_start=1)],
        trainer={"max_epochs": 3},
        same_metrics=False,
    ),
    "moving average of the weights": lambda tmp_path: Case(
        Plain(), data(), callbacks=[EMAWeightAveraging()], same_metrics=False
    ),
    "backbone fine-tuning": lambda tmp_path: Case(
        Backbone(), data(), callbacks=[BackboneFinetuning(1, lambda epoch: 1.0, train_bn=False)]
    ),
}


@pytest.mark.filterwarnings("ignore:Attribute 'backbone' is an instance of")  # saved as a hyper-parameter, too
@pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training")  # a frozen teacher
@pytest.mark.parametrize("name", CASES)
def test_slimming_at_the_end_of_the_fit(name, tmp_path):
    check(CASES[name](tmp_path))


@pytest.mark.parametrize("network", ["", "net"])
def test_a_module_that_was_built_in_setup_is_fitted_from_the_slim_weights(network):
    small = check(case(BuiltInSetup, network=network)(None)).slimmed
    again = copy.deepcopy(small)
    before = copy.deepcopy(again.net.state_dict())
    again.setup("fit")
    assert all(torch.equal(before[name], tensor) for name, tensor in again.net.state_dict().items())
    smaller = check(Case(small, data(), network=network)).slimmed
    assert [each.net[0].out_features for each in (small, smaller)] == [8, 4]
