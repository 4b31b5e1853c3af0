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
import multiprocessing
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import memory
import slim_speed
import torch
import train_tables
from train_sides import DEVICE, EPOCH, SEGMENTS, SIDES, STRENGTH, side

from netslim.measure.environment import hardware

QUICK = {"networks": "vgg_small", "batches": "64", "seconds": 0.3}
Numbers = dict[str, Any]


class Ended(RuntimeError):
    """A side that ended before it had said everything."""


class Side:
    """One side in a process of its own."""

    def __init__(self, name: str, overrides: list[str], options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=side, args=(name, overrides, options.threads, options.seconds, theirs))
        self.process.start()
        theirs.close()

    def turn(self, message: bool | None) -> Numbers:
        """Its answer. A side that is gone shows as a broken pipe, as the end of it, or, had it not read, as a reset."""
        try:
            self.pipe.send(message)
            return self.pipe.recv()
        except (EOFError, ConnectionResetError, BrokenPipeError):
            self.process.join()
            raise Ended(f"the side {self.name} ended early, exit code {self.process.exitcode}") from None

    def close(self) -> None:
        self.pipe.close()  # if it waits for its turn, it ends
        self.process.join(30)  # the next row needs its memory
        self.process.kill()


def measure(network: str, batch: int, options: argparse.Namespace) -> train_tables.Row:
    """Both sides in turns: three timed segments each, and one in which the parts are timed."""
    overrides = [f"net={network}", "data=cifar10", "data.val_size=0", f"data.batch_size={batch}", f"lambda={STRENGTH}"]
    row: train_tables.Row = {"network": network, "batch": batch}
    sides = [Side(name, [*overrides, *(options.set if name == "netslim" else [])], options) for name in SIDES]
    found: dict[str, list[Numbers]] = {name: [] for name in SIDES}
    try:
        for detailed in [False] * SEGMENTS + [True]:
            for one in sides:
                found[one.name].append(one.turn(detailed))
        for one in sides:
            row[one.name] = summary(found[one.name]) | one.turn(None)
    except Ended as error:
        return {**row, "failed": str(error)}
    finally:
        for one in sides:
            one.close()
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


def too_large(network: str, batch: int, options: argparse.Namespace) -> str | None:
    """Why a batch size is left out on a machine whose memory would not do."""
    free = memory.free()
    if DEVICE.type == "cuda" or free is None:
        return None
    needed = apart(options, memory.needed, network, batch)
    return f"does not fit in memory: needs about {needed:.0f} GB, {free:.0f} GB free" if needed > free else None


def apart(options: argparse.Namespace, work: Callable[..., Any], *arguments: Any) -> Any:
    """Call it in a process of its own, whose memory is free again afterwards."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (options.threads,)) as pool:
        return pool.submit(work, *arguments).result()


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
            start, reason = time.perf_counter(), too_large(network, batch, options)
            rows.append(
                {"network": network, "batch": batch, "failed": reason} if reason else measure(network, batch, options)
            )
            write(rows[-1], start)
        for case in slim_speed.cases(network) if options.only != "training" else ():
            start = time.perf_counter()
            slim_rows.append(apart(options, slim_speed.measure, network, *case, DEVICE, options.seconds))
            write(slim_rows[-1], start)
    print(train_tables.markdown(top, rows, slim_rows, EPOCH), end="")


if __name__ == "__main__":
    main()
