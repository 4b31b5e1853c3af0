"""Averages of a network's weights that a training keeps (EMA, SWA): they are cut when the network is.

They are in Lightning's callbacks (``WeightAveraging``, ``EMAWeightAveraging``, ``StochasticWeightAveraging``) or in the
module, as ``torch.optim.swa_utils.AveragedModel``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from lightning import LightningModule, Trainer
from torch import nn
from torch.optim.swa_utils import AveragedModel

from netslim.engine.trace.tape import SCATTER, SELECT
from netslim.modules import modules_by_name, state


def averages_of(trainer: Trainer, module: LightningModule, path: str) -> list[nn.Module]:
    """The averages of the module's network at ``path``: networks with tensors of the same names and shapes.

    Raises:
        ValueError: they are inside of the network.
    """
    network = module.get_submodule(path)
    if any(isinstance(part, AveragedModel) for part in network.modules()):
        raise ValueError(
            f"{type(network).__name__} holds averages of its own weights (AveragedModel): name the part of it that "
            "gets smaller, such as network='net'"
        )
    shapes = _shapes(network)
    found = [part for averaged in _averaged(trainer, module) for part in _parts(averaged, path)]
    return [part for part in found if _shapes(part) == shapes]


def _averaged(trainer: Trainer, module: LightningModule) -> Iterator[nn.Module]:
    """Each is like the module, or like a part of it."""
    inside = [part for part in module.modules() if isinstance(part, AveragedModel)]
    for average in [*(getattr(each, "_average_model", None) for each in trainer.callbacks), *inside]:  # type: ignore[attr-defined]
        if isinstance(average, AveragedModel):
            average.update_parameters = partial(_update, average)  # type: ignore[method-assign]
            yield average.module
        elif isinstance(average, nn.Module):
            yield average


def _parts(averaged: nn.Module, path: str) -> list[nn.Module]:
    found = modules_by_name(averaged)
    return [averaged, *([found[path]] if path and path in found else [])]


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state(network).items()}


@torch.no_grad()
def _update(average: AveragedModel, model: nn.Module) -> None:
    """As ever, but the channels that BatchNorm layers of a slim network select are no numbers to average."""
    type(average).update_parameters(average, model)
    for (name, own), theirs in zip(average.module.named_buffers(), model.buffers(), strict=True):
        if name.rpartition(".")[2] in (SELECT, SCATTER):
            own.copy_(theirs)
