"""The two sides of train_vs_plain.py, each in a process of its own, taking turns."""

from __future__ import annotations

import logging
import math
import os
import sys
import tempfile
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import memory
import plain_loop
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from netslim.data import Images
from netslim.experiment import pipeline
from netslim.launch import command_line, config, quiet
from netslim.training.allocator import keep_freed_memory
from netslim.training.gamma_histogram import GammaHistogram

EPOCH = 50_000  # images
SEGMENTS = 3  # timed ones
STRENGTH = 1e-4
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Turn:
    """Counts the steps of one side and hands over to the other after each segment."""

    def __init__(self, pipe: Connection, clock: plain_loop.Clock, batch: int, seconds: float) -> None:
        self.pipe, self.clock, self.seconds = pipe, clock, seconds
        self.most = EPOCH // batch // (SEGMENTS + 1) - 1  # the segments together are less than an epoch
        self.step, self.steps, self.start = 0, 0, 0.0

    def wait(self) -> bool:
        """Wait for one's turn; False when there are no more. The message says whether the parts are to be timed."""
        memory.give_back()
        try:
            message = self.pipe.recv()
        except (EOFError, ConnectionResetError):  # the benchmark was stopped; reset: with an answer of ours unread
            raise SystemExit from None
        self.clock.on, self.step, self.start = bool(message), 0, self.clock.now()
        return message is not None

    def __call__(self) -> bool:
        """Call after every step; False when it was the last."""
        self.step += 1
        if self.step == 1:
            now = self.clock.now()
            self.steps = min(self.most, max(1, math.ceil(self.seconds / (now - self.start))))
            self.start = now
            self.clock.spent.clear()
        elif self.step == self.steps + 1:
            spent = (self.clock.now() - self.start) / self.steps
            parts = {part: seconds / self.steps for part, seconds in self.clock.spent.items()}
            self.pipe.send({"seconds": spent, "steps": self.steps, "parts": parts})
            return self.wait()
        return True


class Turns(Callback):
    """Takes turns inside a fit, and times its parts. The last of the callbacks."""

    def __init__(self, turn: Turn) -> None:
        self.turn, self.clock = turn, turn.clock
        self.begun = 0.0

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        for name, part in (("forward", "forward"), ("backward", "backward"), ("on_after_backward", "penalty")):
            setattr(task, name, self.clock.wrap(part, getattr(task, name)))
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(self.stepped)
        self.turn.wait()

    def on_before_optimizer_step(self, *_: Any) -> None:
        if self.clock.on:
            self.begun = self.clock.now()

    def stepped(self, *_: Any) -> None:
        if self.clock.on:
            self.clock.spent["step"] += self.clock.now() - self.begun

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if not self.turn():
            trainer.should_stop = True
            self.clock.on, self.begun = True, self.clock.now()

    def on_train_end(self, *_: Any) -> None:
        end = {"end of epoch": self.clock.now() - self.begun, "histograms": self.clock.spent["histograms"]}
        self.turn.pipe.send({**end, "memory": peak_memory()})
        raise SystemExit


def plain_side(cfg: DictConfig, turn: Turn) -> None:
    """The authors' loop."""
    torch.manual_seed(0)
    network = config.factory(cfg, "net")(num_classes=10).to(DEVICE)
    batches = plain_loop.loader(pictures(), list(cfg.data.mean), list(cfg.data.std), cfg.data.batch_size, DEVICE)
    sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def after_step(_: Tensor) -> None:
        if not turn():
            turn.pipe.send({"memory": peak_memory()})
            raise SystemExit

    turn.wait()
    plain_loop.train(network, batches, optimizer=sgd, strength=STRENGTH, clock=turn.clock, after_step=after_step)


def netslim_side(cfg: DictConfig, turn: Turn) -> None:
    """The stage that trains, as `netslim` runs it."""
    keep_freed_memory()
    HydraConfig.instance().set_config(cfg)
    GammaHistogram.on_train_epoch_end = turn.clock.wrap(  # type: ignore[method-assign]
        "histograms", GammaHistogram.on_train_epoch_end
    )
    job = config.job(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), command="")

    def trainer(*, callbacks: list[Callback], **more: Any) -> Trainer:
        return job.trainer(callbacks=[*callbacks, Turns(turn)], **more)

    data = partial(job.data, source=lambda: pictures(channels_first=True))
    with tempfile.TemporaryDirectory() as folder:
        pipeline.run(Path(folder), replace(job, trainer=trainer, data=data))


SIDES = {"plain": plain_side, "netslim": netslim_side}


def pictures(*, channels_first: bool = False) -> Images:
    """As many as CIFAR-10 has, of noise: the time does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (EPOCH, 32, 32, 3), generator=generator, dtype=torch.uint8).permute(0, 3, 1, 2)
    labels = torch.arange(EPOCH) % 10
    train = noise.contiguous() if channels_first else noise
    return Images(train, labels, train[:10], labels[:10], tuple("abcdefghij"))


def peak_memory() -> float:
    """In GB."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return memory.resident()


def side(name: str, overrides: list[str], threads: int, seconds: float, pipe: Connection) -> None:
    """What a process of its own runs."""
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    quiet.quiet()
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    with initialize_config_dir(str(command_line.CONF), version_base="1.3"):
        cfg = compose("config", overrides, return_hydra_config=True)
    SIDES[name](cfg, Turn(pipe, plain_loop.Clock(DEVICE), cfg.data.batch_size, seconds))
