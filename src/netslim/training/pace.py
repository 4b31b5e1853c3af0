"""How long an epoch of a training takes, from a few of its steps."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer

STEPS, SECONDS = 12, 5.0  # so many at most, and so long


class _Clock(Callback):
    """Notes when steps end, and ends the training after a few."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_start(self, *_: Any) -> None:
        self.ends.append(time.monotonic())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if pl_module.device.type != "cpu":
            torch.accelerator.synchronize()
        self.ends.append(time.monotonic())
        trainer.should_stop = len(self.ends) > STEPS or self.ends[-1] - self.ends[0] > SECONDS


def seconds_per_epoch(module: LightningModule, data: LightningDataModule, trainer: Callable[..., Trainer]) -> float:
    """Train a few steps on one device and tell how long an epoch would take there; validation is not in it.

    Args:
        module: is trained by these steps.
        trainer: makes the Trainer.

    Returns:
        seconds; nan where the data do not tell how many batches an epoch has.
    """
    clock = _Clock()
    one: dict[str, Any] = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    runner = trainer(
        max_epochs=1, callbacks=[clock], logger=False, enable_checkpointing=False, limit_val_batches=0, **one
    )
    runner.fit(module, data)
    steps = [end - start for start, end in zip(clock.ends, clock.ends[1:], strict=False)]
    each = statistics.median(steps[2:] or steps)  # the first ones are slower
    return each * runner.num_training_batches if math.isfinite(runner.num_training_batches) else math.nan
