"""What a training costs in multiply-adds, whatever becomes of the network's size meanwhile."""

from __future__ import annotations

import logging
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from netslim.measure.cost import count, training_macs
from netslim.modules import bn_layers, tensors_in
from netslim.training.slim_module import example_for

log = logging.getLogger("netslim")


class TrainingCost(Callback):
    """Of every epoch: parameters, MACs for one input, channels of every BatchNorm layer, and how many inputs it trained
    on, over all processes. Kept in the checkpoint, so that a resumed run has those of the whole.

    Where the MACs of the network cannot be counted on a training batch, they are None, and a warning says why.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self._shape: dict[str, Any] = {}
        self._inputs = 0

    @property
    def train_macs(self) -> int | None:
        """Multiply-adds of the training so far: each epoch's network times its inputs."""
        if any(epoch["macs"] is None for epoch in self.epochs):
            return None
        return sum(training_macs(epoch["macs"], epoch["inputs"]) for epoch in self.epochs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A checkpoint of earlier code does not tell what its epochs cost."""
        missing = trainer.current_epoch - len(self.epochs)
        if missing > 0:
            log.warning("the multiply-adds of the first %d epochs are not known", missing)
            self.epochs = [{"macs": None}] * missing

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self._inputs = 0
            network = pl_module.get_submodule("network")
            widths = [len(layer.weight) for layer in bn_layers(network).values()]
            if widths != self._shape.get("widths"):
                self._shape = {"params": sum(p.numel() for p in network.parameters()), "widths": widths}
                self._shape["macs"] = _macs(pl_module, batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._inputs += _size(batch) * trainer.world_size

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epochs.append({**self._shape, "inputs": self._inputs})

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]


def _macs(module: LightningModule, batch: Any) -> int | None:
    try:
        with isolate_rng():  # a look at the network must not change the training
            example = example_for(module, "network", None, lambda: batch)
            return count(module.get_submodule("network"), example).macs
    except ValueError as error:
        log.warning("the multiply-adds of the training are not known: %s", error)
        return None


def _size(batch: Any) -> int:
    """How many inputs: the length of the first tensor."""
    return next((len(tensor) for tensor in tensors_in(batch) if tensor.ndim), 0)
