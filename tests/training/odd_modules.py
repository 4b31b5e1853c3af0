"""Modules that are less ordinary: odd attributes, optional arguments, prints."""

from __future__ import annotations

import queue

from lightning.pytorch.callbacks import (
    EarlyStopping,
)
from torch.nn import functional as F

from tests.training.modules_of_lightning import Outputs, Plain


class Odd(Outputs):
    """Attributes that refer to the module itself or that cannot be copied, one by one and in containers."""

    def __init__(self):
        super().__init__()
        self.step, self.queue = self.validation_step, queue.SimpleQueue()
        self.numbers, self.things = (i for i in range(3)), {"lock": self.lock, "count": [0]}

    def predict_step(self, batch, batch_idx):
        return self.step(batch, batch_idx)


class OnlyOptional(Plain):
    """forward may also compute the loss."""

    def forward(self, x, y=None):
        y_hat = self.net(x)
        return y_hat if y is None else F.cross_entropy(y_hat, y)


class Prints(Plain):
    """Asks its trainer this and that."""

    def validation_step(self, batch, batch_idx):
        assert self.trainer.checkpoint_callback is None
        stopping = self.trainer.early_stopping_callback
        assert stopping is None or (isinstance(stopping, EarlyStopping) and stopping.monitor == "val/loss")
        assert self.trainer.max_epochs in (1, 2)
        assert self.logger is None
        assert not self.training
        self.print("validating", self.current_epoch, self.global_step)
        super().validation_step(batch, batch_idx)
