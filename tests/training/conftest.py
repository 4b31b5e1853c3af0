"""A fit with Slimming, and all that must hold after it. Oracles: the masked network, the fit's numbers, batch means."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import netslim

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def net(inputs: int = 6, outputs: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, outputs))


def samples(count: int = 32, seed: int = 1) -> TensorDataset:
    """Four classes: which of the first four inputs is largest."""
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x[:, :4].argmax(1))


def loader(seed: int = 1, **options: Any) -> DataLoader:
    return DataLoader(samples(seed=seed), 16, **options)


class Weights(Callback):
    """Keeps the module's tensors at the end of the training."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.state = copy.deepcopy(pl_module.state_dict())


class Killed(Callback):
    """Ends the training at a batch of an epoch."""

    def __init__(self, epoch: int, batch: int = 1) -> None:
        self.at = epoch, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.at:
            raise RuntimeError("killed")


@dataclass
class Case:
    """data: what fit gets: loaders, or a data module. network: what is slimmed. oracle: what is compared, default the
    same. x: an input of it. inputs: the training batches that it sees, in order, for the mean of its first BatchNorm
    layer. same_metrics: the last validation of the fit saw the weights that are slimmed."""

    module: LightningModule
    data: tuple[Any, ...]
    network: str = ""
    oracle: str | None = None
    x: Any = None
    inputs: list[Tensor] | None = None
    trainer: dict[str, Any] = field(default_factory=dict)
    slimming: dict[str, Any] = field(default_factory=dict)
    callbacks: list[Callback] = field(default_factory=list)
    same_metrics: bool = True


def run(case: Case) -> tuple[netslim.Slimming, Trainer]:
    """The fit. The callback that keeps the weights is behind those that change them when the training ends."""
    slimming = netslim.Slimming(0.5, network=case.network, **{"recalibration_batches": 2, **case.slimming})
    trainer = Trainer(
        **{
            **QUIET,
            "max_epochs": 2,
            "accelerator": "cpu",
            "log_every_n_steps": 1,
            **case.trainer,
            "callbacks": [netslim.Sparsity(1e-3), slimming, *case.callbacks, Weights()],
        }
    )
    trainer.fit(case.module, *case.data)
    return slimming, trainer


def check(case: Case) -> netslim.Slimming:
    """Fit; compare; fit the slim module once more."""
    slimming, trainer = run(case)
    x = samples().tensors[0] if case.x is None else case.x
    assert slimming.result["errors"] == {}
    _module_is_untouched(case, trainer)
    _slim_equals_masked(case, slimming, x)
    _result_is_complete(case, slimming, trainer)
    if case.inputs is not None:
        _statistics_are_those_of_the_batches(case, slimming)
    _slim_module_can_be_fitted(case, slimming)
    return slimming


def _module_is_untouched(case: Case, trainer: Trainer) -> None:
    (weights,) = (each for each in trainer.callbacks if isinstance(each, Weights))
    now = case.module.state_dict()
    assert now.keys() == weights.state.keys()
    assert all(torch.equal(now[name], tensor.cpu()) for name, tensor in weights.state.items())
    assert case.module.trainer is trainer
    assert trainer.lightning_module is case.module


def _run(network: nn.Module, x: Any) -> Tensor:
    """In training mode, where the running statistics, re-estimated for one of the two, play no role."""
    network = copy.deepcopy(network).train().double()
    x = x.double() if isinstance(x, Tensor) else {name: tensor.double() for name, tensor in x.items()}
    with torch.no_grad():
        return network(**x) if isinstance(x, dict) else network(x)


def _slim_equals_masked(case: Case, slimming: netslim.Slimming, x: Any) -> None:
    path = case.network if case.oracle is None else case.oracle
    dense, small = (each.get_submodule(path) for each in (case.module, slimming.slimmed))
    weight = next(dense.parameters())
    example = x.to(weight.dtype) if isinstance(x, Tensor) else x
    masked = netslim.mask(dense, netslim.select_channels(dense, ratio=0.5, example_input=example))
    torch.testing.assert_close(_run(small, x), _run(masked, x), rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in dense.parameters())


def _result_is_complete(case: Case, slimming: netslim.Slimming, trainer: Trainer) -> None:
    result = slimming.result
    assert {"threshold", "removed", "prunable", "layers", "uncounted", "dense", "slim", "recalibrated"} <= result.keys()
    small = slimming.slimmed.get_submodule(case.network)
    assert result["slim"]["params"] == sum(p.numel() for p in small.parameters())
    assert result["slim"]["macs"] < result["dense"]["macs"]
    names = result["dense"]["metrics"].keys()
    assert names == result["slim"]["metrics"].keys() == result["recalibrated"]["metrics"].keys() != set()
    if case.same_metrics:
        for name, value in result["dense"]["metrics"].items():
            assert value == pytest.approx(trainer.callback_metrics[name].item(), rel=1e-5), name


def _statistics_are_those_of_the_batches(case: Case, slimming: netslim.Slimming) -> None:
    small = slimming.slimmed.get_submodule(case.network)
    first = next(layer for layer in small.modules() if isinstance(layer, nn.Linear))
    norm = next(layer for layer in small.modules() if isinstance(layer, nn.BatchNorm1d))
    with torch.no_grad():
        means = torch.stack([first(x).mean(0) for x in case.inputs])
    torch.testing.assert_close(norm.running_mean, means.mean(0))


def _slim_module_can_be_fitted(case: Case, slimming: netslim.Slimming) -> None:
    small = slimming.slimmed
    shapes = {name: parameter.shape for name, parameter in small.get_submodule(case.network).named_parameters()}
    before = copy.deepcopy(small.state_dict())
    Trainer(**{**QUIET, "accelerator": "cpu", **case.trainer, "max_epochs": 1}).fit(small, *case.data)
    after = dict(small.get_submodule(case.network).named_parameters())
    assert {name: parameter.shape for name, parameter in after.items()} == shapes
    assert all(parameter.isfinite().all() for parameter in after.values())
    assert any(not torch.equal(before[name], tensor) for name, tensor in small.state_dict().items() if "weight" in name)
