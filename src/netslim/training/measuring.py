"""Measuring a network that no fit is about, with a Trainer that is there: the fit's own, or an idle one.

Lightning's evaluation loop runs the module's own step under the trainer's limits, precision and device; the step sees
this trainer. Its callbacks rest, its loggers write nothing, and afterwards every number in it is what it was.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Literal, Protocol

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils._pytree import tree_structure, tree_unflatten

from netslim.engine import Reconstructed, reconstruct
from netslim.method.recovery import recalibrate
from netslim.modules import bn_layers
from netslim.training.inputs import inputs
from netslim.training.loaders import first_batch, generators_as_they_were, loaders_in, of_all_ranks
from netslim.training.module_copy import copied, unlogged
from netslim.training.quiet import quiet_callback, quiet_logger

Split = Literal["val", "test"]


class Bench(Protocol):
    """Where a module is measured."""

    def metrics(self, module: LightningModule) -> dict[str, float]:
        """What the module logs in the validation (or test) loop."""

    def batch(self, module: LightningModule) -> Any:
        """The first batch of that loop, as the module's step gets it."""

    def recalibrate(self, module: LightningModule, through: nn.Module, batches: int, example: Any) -> None:
        """Re-estimate BatchNorm statistics by calling ``through`` (the module or a part) on so many batches."""

    def reconstruct(self, small: Runnable, dense: Runnable, images: int, example: Any) -> Reconstructed:
        """Fit the layers of the slim module's network to those of the dense one's, on so many images."""


@dataclass(frozen=True)
class Runnable:
    """A module, its network, and which of both is called on a batch."""

    module: LightningModule
    network: nn.Module
    through: nn.Module


class FitBench:
    """The trainer of a fit, which runs or has just ended; the fit is not changed by it."""

    def __init__(self, trainer: Trainer, split: Split) -> None:
        self.trainer, self.split = trainer, split

    def metrics(self, module: LightningModule) -> dict[str, float]:
        with _borrowed(self.trainer, copied(module), self.split) as loop:
            loop.run()
            self.trainer.state.stage = None  # from here on callback_metrics are those that the loop has left
            return _metrics(self.trainer)

    def try_step(self, module: LightningModule) -> None:
        """One batch of that loop, as in Lightning's sanity check."""
        with _borrowed(self.trainer, copied(module), self.split) as loop:
            if self.split == "val":
                self.trainer.state.stage = RunningStage.SANITY_CHECKING
            self.trainer.num_sanity_val_steps = self.trainer.limit_test_batches = 1
            loop.setup_data()
            with generators_as_they_were(loop._combined_loader.flattened):
                loop.run()

    def batch(self, module: LightningModule) -> Any:
        with _borrowed(self.trainer, module, self.split) as loop:
            loop.setup_data()
            return _transferred(self.trainer, module, first_batch(loop._combined_loader.flattened[0]))

    def recalibrate(self, module: LightningModule, through: nn.Module, batches: int, example: Any) -> None:
        loaders = copy.copy(self.trainer.fit_loop._combined_loader)
        assert loaders is not None
        share = min(math.ceil(batches / len(loaders.flattened)), self.trainer.num_training_batches)
        drawn = (batch for batch, *_ in islice(loaders, int(share)))
        _recalibrate(self.trainer, module, through, drawn, loaders.iterables, example)

    def reconstruct(self, small: Runnable, dense: Runnable, images: int, example: Any) -> Reconstructed:
        loaders = copy.copy(self.trainer.fit_loop._combined_loader)
        assert loaders is not None
        drawn = (batch for batch, *_ in islice(loaders, int(self.trainer.num_training_batches)))
        return _reconstruct(self.trainer, small, dense, images, drawn, loaders.iterables, example)

    @cached_property
    def first_training_batch(self) -> Any:
        """With one batch of each training loader, put together as they are."""
        loaders = self.trainer.train_dataloader
        return tree_unflatten([first_batch(loader) for loader in loaders_in(loaders)], tree_structure(loaders))

    def training_batch(self, module: LightningModule) -> Any:
        """The first one, as the module's step gets it; of several loaders that of the first."""
        with _borrowed(self.trainer, module, "val"):
            batch = _transferred(self.trainer, module, self.first_training_batch)
        return tree_structure(self.trainer.train_dataloader).flatten_up_to(batch)[0]

    def try_recalibrate(self, module: LightningModule, through: nn.Module, network: nn.Module, example: Any) -> None:
        """The same with one batch; raises a ValueError if it does not run the network."""
        loaders = self.trainer.train_dataloader
        with layers_run(network) as layers:
            _recalibrate(self.trainer, module, through, [self.first_training_batch], loaders, example)
        if not layers:
            raise ValueError("it runs none of the BatchNorm layers")

    def try_training_step(self, module: LightningModule) -> None:
        """The module's training step on one batch, without a step of an optimiser; it logs nothing."""
        module = copied(module)
        context = self.trainer.precision_plugin.train_step_context()
        with _borrowed(self.trainer, module, "val"), unlogged(module), context:
            self.trainer.state.stage = RunningStage.TRAINING
            batch = _transferred(self.trainer, module, self.first_training_batch)
            module.training_step(*(batch, 0)[: len(inspect.signature(module.training_step).parameters)])


class IdleBench:
    """A trainer that does nothing else, and data. It must measure once before it gives a batch or recalibrates."""

    def __init__(self, trainer: Trainer, data: LightningDataModule, split: Split) -> None:
        self.trainer, self.data, self.split = trainer, data, split

    def metrics(self, module: LightningModule) -> dict[str, float]:
        run = self.trainer.validate if self.split == "val" else self.trainer.test
        run(module, datamodule=self.data, verbose=False)
        return _metrics(self.trainer)

    def batch(self, module: LightningModule) -> Any:
        given = self.data.val_dataloader() if self.split == "val" else self.data.test_dataloader()
        with _borrowed(self.trainer, module, self.split):
            return _transferred(self.trainer, module, next(iter(loaders_in(given)[0])))

    def recalibrate(self, module: LightningModule, through: nn.Module, batches: int, example: Any) -> None:
        loaders = self._training_loaders()
        drawn = (batch for batch, *_ in islice(loaders, math.ceil(batches / len(loaders.flattened))))
        _recalibrate(self.trainer, module, through, drawn, loaders.iterables, example)

    def reconstruct(self, small: Runnable, dense: Runnable, images: int, example: Any) -> Reconstructed:
        loaders = self._training_loaders()
        drawn = (batch for batch, *_ in loaders)
        return _reconstruct(self.trainer, small, dense, images, drawn, loaders.iterables, example)

    def _training_loaders(self) -> CombinedLoader:
        given = self.data.train_dataloader()
        return given if isinstance(given, CombinedLoader) else CombinedLoader(given, "max_size_cycle")


@contextmanager
def layers_run(network: nn.Module) -> Iterator[list[nn.Module]]:
    """The BatchNorm layers of the network that run inside."""
    ran: list[nn.Module] = []
    layers = bn_layers(network).values()
    hooks = [layer.register_forward_pre_hook(lambda layer, _: ran.append(layer)) for layer in layers]
    try:
        yield ran
    finally:
        for hook in hooks:
            hook.remove()


def _metrics(trainer: Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _recalibrate(
    trainer: Trainer, module: LightningModule, through: nn.Module, batches: Iterable[Any], loaders: Any, example: Any
) -> None:
    with _inputs_of(trainer, module, through, batches, loaders, example) as given:
        recalibrate(through, given)


def _reconstruct(
    trainer: Trainer, small: Runnable, dense: Runnable, images: int, batches: Iterable[Any], loaders: Any, example: Any
) -> Reconstructed:
    device = dense.module.device
    with _inputs_of(trainer, small.module, small.through, batches, loaders, example) as given:
        dense.module.to(trainer.strategy.root_device)
        try:
            both = small.through, dense.through
            return reconstruct(small.network, dense.network, given, images=images, through=both)
        finally:
            dense.module.to(device)


@contextmanager
def _inputs_of(
    trainer: Trainer, module: LightningModule, through: nn.Module, batches: Iterable[Any], loaders: Any, example: Any
) -> Iterator[Iterable[Any]]:
    """Each batch is one of every loader, put together as they are; the network sees them one by one."""
    structure = tree_structure(loaders)
    with _borrowed(trainer, module, "val"), unlogged(module), trainer.precision_plugin.forward_context():
        moved = (_transferred(trainer, module, batch) for batch in batches)
        parts = (part for batch in moved for part in structure.flatten_up_to(batch) if part is not None)
        given = (inputs(through, part, example) for part in parts)
        # Rank 0 of a job alone has a trainer of one process, whose batches nobody else waits to share.
        yield of_all_ranks(given) if trainer.world_size > 1 else given


def _transferred(trainer: Trainer, module: LightningModule, batch: Any) -> Any:
    """A batch on the device, after the hooks of the module or the data module, as Lightning's loops do it."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


@contextmanager
def _borrowed(trainer: Trainer, module: LightningModule, split: Split) -> Iterator[Any]:
    """The trainer's validation (or test) loop, for another module than the one that it fits."""
    loop = trainer.fit_loop.epoch_loop.val_loop if split == "val" else trainer.test_loop
    hooks: Any = trainer._data_connector._datahook_selector
    log = trainer._logger_connector
    before, device = module._trainer, module.device
    with _as_they_were(trainer, trainer.strategy, log, hooks, loop):
        trainer.state = copy.copy(trainer.state)
        trainer.state.fn = TrainerFn.FITTING if split == "val" else TrainerFn.TESTING
        trainer.state.stage = RunningStage.VALIDATING if split == "val" else RunningStage.TESTING
        trainer.loggers = [quiet_logger(logger) for logger in trainer.loggers]
        trainer.callbacks = [quiet_callback(each) for each in trainer.callbacks]  # type: ignore[attr-defined]
        log.reset_metrics()
        trainer.strategy.connect(module)
        hooks.model, module.trainer = module, trainer
        loop.verbose, loop._results = False, type(loop._results)(training=False)
        for name in ("batch_progress", "_module_mode", "_seen_batches_per_dataloader"):
            setattr(loop, name, copy.deepcopy(getattr(loop, name)))
        try:
            module.to(trainer.strategy.root_device)
            yield loop
        finally:
            module.to(device)
            module.trainer = before


@contextmanager
def _as_they_were(*objects: Any) -> Iterator[None]:
    """Attributes that are set inside are set back."""
    before = [dict(vars(each)) for each in objects]
    try:
        yield
    finally:
        for each, attributes in zip(objects, before, strict=True):
            vars(each).clear()
            vars(each).update(attributes)
