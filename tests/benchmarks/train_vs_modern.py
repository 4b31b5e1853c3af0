"""netslim's sparsity training beside a loop as one writes it today (modern_loop.py): `make bench-modern`.

What netslim is asked for here is to add nothing. In one process with one thread, three ways train the same network on
the same images in turns, an epoch or so at a time; a ratio is the median over the turns of processor times, so that it
holds on a machine that does other work, too.

    modern       uint8 in memory, batched augmentation, channels_last, one call for the penalty, and no more
    Lightning    a Trainer without callbacks and loggers, and a module of fifteen lines: what Lightning costs
    netslim      the stage that trains, as the command runs it

Times are of steps; what netslim does at the end of an epoch (curves, histograms of γ, checkpoint) has a column.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import modern_loop
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from plain_loop import Clock
from torch import Tensor, nn
from torch.nn import functional as F

from netslim.data import synthetic
from netslim.experiment import fitting
from netslim.experiment.job import Job
from netslim.launch import command_line, config, quiet
from netslim.training.allocator import keep_freed_memory

BATCH, STRENGTH, CPU = 64, 1e-3, torch.device("cpu")
CASES = {"vgg_small": ("cifar10", 3, 10), "vgg_digits": ("digits", 6, 21)}  # network: data, epochs of a turn, turns
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4)
HEAD = "| network | ms per step: modern | Lightning | netslim | × modern: Lightning | netslim | end of epoch ms |"
Times = dict[str, list[float]]


class Steps(Callback):
    """Processor time of the steps of all epochs but the first, and between them. The last of the callbacks."""

    def __init__(self) -> None:
        self.steps, self.inside, self.ends = 0, 0.0, [0.0]
        self.start = self.last = 0.0

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and trainer.current_epoch > 1:
            self.ends.append(time.process_time() - self.last)
        if batch_idx == 1:
            self.start = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.last = time.process_time()
        if trainer.current_epoch and batch_idx == trainer.num_training_batches - 1:
            self.steps += batch_idx
            self.inside += self.last - self.start


class Bare(LightningModule):
    """The training alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.scales = [module.weight for module in network.modules() if isinstance(module, nn.BatchNorm2d)]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.network(images.contiguous(memory_format=torch.channels_last)), labels)

    def on_after_backward(self) -> None:
        modern_loop.add_l1(self.scales, STRENGTH)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return SGD(self.parameters())


def job_of(network: str, data: str) -> tuple[Job, DictConfig]:
    """As `netslim net=... data=...` has it; noise in place of CIFAR-10: the time does not depend on the pictures."""
    words = [f"net={network}", f"data={data}", "data.val_size=0", f"lambda={STRENGTH}", f"data.batch_size={BATCH}"]
    with initialize_config_dir(str(command_line.CONF), version_base="1.3"):
        cfg = compose("config", words, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    job = config.job(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), command="")
    if data == "cifar10":
        noise = partial(synthetic, train=20 * BATCH, test=BATCH, classes=10, size=32)
        job = dataclasses.replace(job, data=partial(job.data, source=noise))
    return job, cfg


def modern(job: Job, cfg: DictConfig, epochs: int) -> tuple[float, float]:
    """Seconds per step; none at the end of an epoch."""
    images = job.data(seed=0)
    network = job.network(num_classes=images.num_classes).to(memory_format=torch.channels_last)
    cut = {"padding": cfg.data.crop_padding, "flip": cfg.data.flip}
    batches = modern_loop.Batches(images.images, list(cfg.data.mean), list(cfg.data.std), BATCH, CPU, **cut)
    spent: list[float] = []
    for _ in range(epochs):
        marks = [0.0]
        more = {"optimizer": SGD(network.parameters()), "strength": STRENGTH, "clock": Clock(CPU)}
        modern_loop.train(network, batches, after_step=lambda _: marks.append(time.process_time()), **more)  # noqa: B023
        spent.append((marks[-1] - marks[1]) / (len(marks) - 2))
    return statistics.mean(spent[1:]), 0.0


def lightning(job: Job, cfg: DictConfig, epochs: int) -> tuple[float, float]:
    images, steps = job.data(seed=0), Steps()
    still = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[steps], **still)
    trainer.fit(Bare(job.network(num_classes=images.num_classes)), images)
    return steps.inside / steps.steps, statistics.median(steps.ends[1:])


def netslim(job: Job, cfg: DictConfig, epochs: int) -> tuple[float, float]:
    images, steps = job.data(seed=0), Steps()
    task = fitting.make_task(job, job.network(num_classes=images.num_classes), job.optimizer, STRENGTH)
    with tempfile.TemporaryDirectory() as folder:
        timed = dataclasses.replace(job, callbacks=(lambda: steps,))
        fitting.fit_task(timed, Path(folder) / "train", task, images, epochs, STRENGTH)
    return steps.inside / steps.steps, statistics.median(steps.ends[1:])


WAYS: dict[str, Callable[..., tuple[float, float]]] = {"modern": modern, "Lightning": lightning, "netslim": netslim}


def measure(network: str, data: str, epochs: int, turns: int) -> tuple[Times, Times]:
    """Of each way and turn, seconds per step and at the end of an epoch."""
    job, cfg = job_of(network, data)
    steps: Times = {name: [] for name in WAYS}
    ends: Times = {name: [] for name in WAYS}
    for _ in range(turns):
        for name, train in WAYS.items():
            step, end = train(job, cfg, epochs)
            steps[name].append(step)
            ends[name].append(end)
    return steps, ends


def row(network: str, steps: Times, ends: Times) -> str:
    def ratio(name: str) -> float:
        return statistics.median(ours / best for ours, best in zip(steps[name], steps["modern"], strict=True))

    times = [f"{1000 * statistics.median(steps[name]):.2f}" for name in WAYS]
    ratios = [f"{ratio(name):.2f}" for name in ("Lightning", "netslim")]
    end = f"{1000 * statistics.median(ends['netslim']):.1f}"
    return f"| {' | '.join([network, *times, *ratios, end])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="netslim's training beside a modern loop and a bare Trainer")
    parser.add_argument("--networks", default=",".join(CASES), help="of vgg_small, vgg_digits")
    parser.add_argument("--turns", type=int, help="of each way; default by the network")
    parser.add_argument("--epochs", type=int, help="of a turn, 3 or more; default by the network")
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep_freed_memory()
    quiet.quiet()
    logging.disable(logging.WARNING)
    print(HEAD, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |", sep="\n")
    for network in options.networks.split(","):
        data, epochs, turns = CASES[network]
        print(row(network, *measure(network, data, options.epochs or epochs, options.turns or turns)), flush=True)


if __name__ == "__main__":
    main()
