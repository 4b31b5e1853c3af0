"""The checkpoint of the last whole epoch: written so that a crash cannot damage it, checked before it is used."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from netslim import files

log = logging.getLogger("netslim")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's own moves a finished file from the system's temporary folder: across file systems that is a copy,
    which a crash cuts off. This one writes beside the target, forces it to disk and renames.

    Args:
        threaded: a thread does that, from a copy in the processor's memory, while the training goes on. One file at a
            time: the next one waits for it, and raises what it raised.
    """

    def __init__(self, threaded: bool = False) -> None:
        self.threaded = threaded
        self._pending: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if not self.threaded:
            files.write_tensors(Path(path), checkpoint)
            return
        self.finish()
        thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending = thread.submit(files.write_tensors, Path(path), tree_map(_copied, checkpoint))
        thread.shutdown(wait=False)

    def finish(self, wait: bool = True) -> None:
        """Wait until the file is whole, or only look whether it is.

        Raises:
            OSError: it could not be written; the one before it is still there.
        """
        if self._pending is not None and (wait or self._pending.done()):
            pending, self._pending = self._pending, None
            pending.result()

    def teardown(self) -> None:
        """Lightning calls this at the end of everything, after an error too, which must not be covered."""
        try:
            self.finish()
        except OSError as error:
            log.error("the last checkpoint was not written: %s", error)


def _copied(leaf: Any) -> Any:
    return leaf.detach().to("cpu", copy=True) if isinstance(leaf, Tensor) else copy.deepcopy(leaf)


class LastCheckpoint(Checkpoint):
    """Writes a checkpoint at the end of an epoch, over the one before.

    Args:
        path: of the file.
        every_epochs: not before so many epochs have passed, default 1.
        every_seconds: nor before so many seconds have, default 0.

    The last epoch is always written. A training that is resumed repeats the epochs since, and ends with the same bits.
    """

    def __init__(self, path: Path, every_epochs: int = 1, every_seconds: float = 0.0) -> None:
        self.path, self.every_epochs, self.every_seconds = path, every_epochs, every_seconds
        self._written = (0, 0.0)  # epochs done, and when

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._written = (trainer.current_epoch, time.monotonic())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _finish(trainer, wait=False)
        done, (epochs, since) = trainer.current_epoch + 1, self._written
        due = done - epochs >= self.every_epochs and time.monotonic() - since >= self.every_seconds
        last = trainer.should_stop or done == trainer.max_epochs
        if trainer.strategy.broadcast(due or last):  # clocks differ from process to process
            trainer.save_checkpoint(self.path)
            self._written = (done, time.monotonic())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _finish(trainer, wait=True)


def _finish(trainer: Trainer, wait: bool) -> None:
    if isinstance(writer := trainer.strategy.checkpoint_io, AtomicCheckpointIO):
        writer.finish(wait)


def epochs_done(path: Path, module: nn.Module, shrinks: bool = False) -> int:
    """How many epochs a checkpoint for ``module`` has behind it.

    Args:
        shrinks: whether tensors may be smaller than those of ``module``: it got smaller inside the training.

    Raises:
        ValueError: the file is cut off, no checkpoint, or one of another network; the message names what differs.
    """
    content = files.read_tensors(path)
    if not {"epoch", "state_dict", "callbacks", "optimizer_states"} <= set(content):
        raise ValueError(f"{path} is no checkpoint of a training; remove it and run the command again")
    saved = {name: tuple(tensor.shape) for name, tensor in content["state_dict"].items()}
    given = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name in [*saved, *given]:
        if saved.get(name) != given.get(name) and not (shrinks and _smaller(saved.get(name), given.get(name))):
            raise ValueError(
                f"{path} is of another network: {name} is {saved.get(name, 'missing')} there, "
                f"{given.get(name, 'missing')} here; remove it and run the command again"
            )
    return int(content["epoch"]) + 1


def check_state(callback: Callback, saved: Mapping[str, Any]) -> None:
    """Raise ValueError where a checkpoint lacks something of a callback's state: earlier code did not keep it."""
    if lacking := sorted(callback.state_dict().keys() - saved.keys()):
        raise ValueError(
            f"the checkpoint is of an earlier netslim, whose {type(callback).__name__} kept no {', '.join(lacking)}; "
            "remove it and train anew"
        )


def _smaller(saved: tuple[int, ...] | None, given: tuple[int, ...] | None) -> bool:
    known = saved is not None and given is not None and len(saved) == len(given)
    return known and all(a <= b for a, b in zip(saved or (), given or (), strict=True))
