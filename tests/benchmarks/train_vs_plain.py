"""netslim's sparsity training beside the authors' way of doing it (plain_loop.py), in turns: `make bench-train`.

Each side is a process of its own with the same network, images, batch size, seed and threads. Only one of them runs at
a time: segments of some seconds each, the first step of a segment not timed, median of the segments. netslim is what
the command of that name runs: Lightning, logging, progress, as the configuration has it (and `--set` changes it).

    seconds per epoch   of 50,000 images, from the seconds per step (without the end of the epoch)
    memory              most that the process had: of the GPU's as torch counts it, else resident (without the worker)
    outside             share of a step that is not forward, backward or optimiser: data, penalty, logging, Lightning.
                        From one more segment in which the device is waited for at every part
    end of an epoch     netslim's, in seconds: γ histograms, curves and checkpoint; the first one of the process

Then, in slim_speed.py: a training step and the latency of slim networks beside dense ones.
"""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import os
import resource
import shlex
import statistics
import sys
import tempfile
import time
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import plain_loop
import slim_speed
import torch
import train_tables
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from netslim import __main__ as application
from netslim import command, configuration, pipeline
from netslim.callbacks import GammaHistogram
from netslim.data import Images
from netslim.environment import hardware

EPOCH = 50_000  # images
SEGMENTS = 3  # timed ones
STRENGTH = 1e-4
QUICK = {"networks": "vgg_small", "batches": "64", "seconds": 0.3}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Numbers = dict[str, Any]


class Turn:
    """Counts the steps of one side and hands over to the other after each segment."""

    def __init__(self, pipe: Connection, clock: plain_loop.Clock, batch: int, seconds: float) -> None:
        self.pipe, self.clock, self.seconds = pipe, clock, seconds
        self.most = EPOCH // batch // (SEGMENTS + 1) - 1  # the segments together are less than an epoch
        self.step, self.steps, self.start = 0, 0, 0.0

    def wait(self) -> bool:
        """Wait for one's turn; False when there are no more. The message says whether the parts are to be timed."""
        try:
            message = self.pipe.recv()
        except EOFError:  # the benchmark was stopped
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
    network = configuration.factory(cfg, "net")(num_classes=10).to(DEVICE)
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
    HydraConfig.instance().set_config(cfg)
    GammaHistogram.on_train_epoch_end = turn.clock.wrap(  # type: ignore[method-assign]
        "histograms", GammaHistogram.on_train_epoch_end
    )
    given = configuration.arguments(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))

    def trainer(*, callbacks: list[Callback], **more: Any) -> Trainer:
        return given["trainer"](callbacks=[*callbacks, Turns(turn)], **more)

    data = partial(given["data"], source=lambda: pictures(channels_first=True))
    with tempfile.TemporaryDirectory() as folder:
        pipeline.run(Path(folder), **{**given, "trainer": trainer, "data": data}, command="")


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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def side(name: str, overrides: list[str], threads: int, seconds: float, pipe: Connection) -> None:
    """What a process of its own runs."""
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    application._quiet()
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    with initialize_config_dir(str(command.CONF), version_base="1.3"):
        cfg = compose("config", overrides, return_hydra_config=True)
    SIDES[name](cfg, Turn(pipe, plain_loop.Clock(DEVICE), cfg.data.batch_size, seconds))


def measure(network: str, batch: int, options: argparse.Namespace) -> train_tables.Row:
    """Both sides in turns: three timed segments each, and one in which the parts are timed."""
    context = multiprocessing.get_context("spawn")
    overrides = [f"net={network}", "data=cifar10", "data.val_size=0", f"data.batch_size={batch}", f"lambda={STRENGTH}"]
    pipes: dict[str, Connection] = {}
    for name in SIDES:
        pipes[name], theirs = context.Pipe()
        given = (name, [*overrides, *(options.set if name == "netslim" else [])], options.threads, options.seconds)
        context.Process(target=side, args=(*given, theirs)).start()
        theirs.close()
    found: dict[str, list[Numbers]] = {name: [] for name in SIDES}
    row: train_tables.Row = {"network": network, "batch": batch}
    try:
        for detailed in [False] * SEGMENTS + [True]:
            for name, pipe in pipes.items():
                pipe.send(detailed)
                found[name].append(pipe.recv())
        for name, pipe in pipes.items():
            pipe.send(None)
            row[name] = summary(found[name]) | pipe.recv()
    finally:
        for pipe in pipes.values():  # who still waits for its turn ends
            pipe.close()
    row["faster"] = statistics.median(
        plain["seconds"] / ours["seconds"]
        for plain, ours in zip(found["plain"][:-1], found["netslim"][:-1], strict=True)
    )
    return row


def summary(segments: list[Numbers]) -> Numbers:
    *timed, detailed = segments
    seconds, parts = statistics.median(segment["seconds"] for segment in timed), detailed["parts"]
    inside = sum(parts[part] for part in ("forward", "backward", "step"))
    return {
        "seconds": seconds,
        "steps": sum(segment["steps"] for segment in timed),
        "outside": 1 - inside / detailed["seconds"],
        "penalty": parts["penalty"] / detailed["seconds"],
    }


def too_large(rows: list[train_tables.Row], network: str, batch: int) -> str | None:
    """Why a batch size is left out on a machine whose memory would not do, judging by the one before."""
    last = next((row for row in reversed(rows) if row["network"] == network and "plain" in row), None)
    if last is None or DEVICE.type == "cuda" or not Path("/proc/meminfo").exists():
        return None
    needed = max(last[name]["memory"] for name in SIDES) * batch / last["batch"]
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6
    return f"not run: about {needed:.0f} GB needed, {free:.0f} GB free" if needed > free else None


def header(options: argparse.Namespace) -> str:
    command = shlex.join(["python", "tests/benchmarks/train_vs_plain.py", *sys.argv[1:]])
    packages = ", ".join(f"{name} {version(name)}" for name in ("netslim", "torch", "torchvision", "lightning"))
    now = datetime.now(timezone.utc).isoformat(timespec="minutes")
    load = f"load average {os.getloadavg()[0]:.1f} at the start"
    return f"`{command}`, {now}\n\n{packages}; {hardware()}; {load}; segments of {options.seconds:g} s"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="netslim's training beside the authors' way of doing it")
    parser.add_argument("--networks", default="vgg_small,vgg19,preresnet164,densenet40", help="names in conf/net/")
    parser.add_argument("--batches", default="64,512", help="images per batch")
    parser.add_argument("--seconds", type=float, default=4, help="least length of a segment, at least one step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each side, default all cores")
    parser.add_argument("--set", nargs="*", default=[], help="settings of netslim: trainer.precision=bf16-mixed ...")
    parser.add_argument("--only", choices=["training", "slim"], help="one of the two parts")
    parser.add_argument("--quick", action="store_true", help="a small network, short segments: does it work at all?")
    parser.add_argument("--out", type=Path, help="file for the tables")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    top, rows, slim_rows = header(options), [], []

    def write(row: train_tables.Row, start: float) -> None:  # after every row: a run that is stopped leaves what it has
        print(train_tables.line(row), f"{time.perf_counter() - start:.0f} s", sep=" | ", file=sys.stderr, flush=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(train_tables.markdown(top, rows, slim_rows, EPOCH))

    for network in options.networks.split(","):
        for batch in map(int, options.batches.split(",")) if options.only != "slim" else ():
            start, reason = time.perf_counter(), too_large(rows, network, batch)
            rows.append(
                {"network": network, "batch": batch, "failed": reason} if reason else measure(network, batch, options)
            )
            write(rows[-1], start)
        if options.only != "training":
            start = time.perf_counter()
            slim_rows.append(slim_speed.measure(network, DEVICE, options.seconds))
            write(slim_rows[-1], start)
    print(train_tables.markdown(top, rows, slim_rows, EPOCH), end="")


if __name__ == "__main__":
    main()
