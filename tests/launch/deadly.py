"""A training that ends its job in the way that is asked for; trying the job out shows nothing of that."""

import os
import signal
import sys
import time
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from netslim.nets import VGG


class Network(VGG):
    """A VGG that says how its training ends, the first time: then there is a mark."""

    def __init__(self, marks: str, how: str, num_classes: int) -> None:
        super().__init__([4, "M", 4], in_channels=1, num_classes=num_classes)
        self.mark, self.how = Path(marks) / how, how


class End(Callback):
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = pl_module.network
        if not network.mark.exists():
            network.mark.touch()
            end(network.how)


def end(how: str) -> None:
    if how == "raise":
        raise RuntimeError("out of luck\nand of words")
    if how == "refuse":
        raise ValueError("not with me")
    if how == "exit":
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "worker":  # the launcher's process, which takes its jobs with it
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
