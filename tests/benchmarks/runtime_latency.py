"""Slim beside dense in ONNX Runtime, with kept counts in levels: does the file gain what the multiply-adds promise?

    python tests/benchmarks/runtime_latency.py --out outputs/published/benchmark/runtime_latency.md
    python tests/benchmarks/published.py

Random γ, batch 1, round_to="auto". The files of a network run in turns; a ratio is the median of its turns. About four
minutes on a machine that does nothing else: these are wall-clock times.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn

import netslim
from netslim import files
from netslim.measure.cost import count
from netslim.measure.environment import hardware, versions
from netslim.measure.export import written
from netslim.measure.formats.format import Run
from netslim.measure.formats.onnx import ONNX
from netslim.measure.latency import latency_of, set_threads
from netslim.nets import VGG

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vgg_small": (lambda: VGG([32, 32, "M", 64, 64, "M", 128, 128, "M", 128, 128]), 32),
    **{
        name: (getattr(torchvision.models, name), 224)
        for name in ("resnet18", "resnet50", "mobilenet_v2", "densenet121")
    },
}
RATIOS = (0.3, 0.5, 0.7)
HEAD = """| network | ratio | MACs ÷ | dense, ms | slim, ms | times as fast | gain |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""
LEGEND = """
- ratio: share of the prunable channels that is removed, kept counts in levels (`round_to="auto"`). ÷: dense over slim.
- times as fast: one image in ONNX Runtime, the median of the turns. gain: times as fast over MACs ÷; 1 is all of it.
"""


class Measured(NamedTuple):
    """A slim network beside its dense one: how many times fewer multiply-adds; milliseconds in each turn."""

    network: str
    ratio: float
    macs: float
    dense: list[float]
    slim: list[float]

    @property
    def faster(self) -> float:
        return statistics.median(before / after for before, after in zip(self.dense, self.slim, strict=True))

    @property
    def gain(self) -> float:
        return self.faster / self.macs

    def row(self) -> str:
        times = [f"{statistics.median(ms):.2f}" for ms in (self.dense, self.slim)]
        cells = [
            self.network,
            f"{self.ratio:.0%}",
            f"{self.macs:.2f}",
            *times,
            f"{self.faster:.2f}",
            f"{self.gain:.2f}",
        ]
        return f"| {' | '.join(cells)} |\n"


def measured(name: str, coupling: str, seconds: float, turns: int) -> list[Measured]:
    torch.manual_seed(0)
    build, size = NETWORKS[name]
    model, x = build().eval(), torch.randn(1, 3, size, size)
    for layer in netslim.bn_layers(model).values():
        nn.init.uniform_(layer.weight)
    small = [netslim.slim(model, ratio=r, example_input=x, coupling=coupling, round_to="auto") for r in RATIOS]
    macs, *less = (count(network, x).macs for network in (model, *small))
    dense, *slim = in_turns([in_runtime(network, x) for network in (model, *small)], x, seconds, turns)
    return [Measured(name, r, macs / m, dense, ms) for r, m, ms in zip(RATIOS, less, slim, strict=True)]


def in_runtime(network: nn.Module, x: torch.Tensor) -> Run:
    return ONNX.open(written(network, x, "onnx"), network)


def in_turns(runs: list[Run], x: Any, seconds: float, turns: int) -> list[list[float]]:
    """Of each: milliseconds in each turn, its share of the seconds long."""
    times = [[latency_of(run, x, seconds=seconds / turns).median for run in runs] for _ in range(turns)]
    return [list(of_one) for of_one in zip(*times, strict=True)]


def verdict(found: list[Measured]) -> str:
    """Whether every file is faster than its dense network, and which gains least."""
    slower = ", ".join(f"{one.network} {one.ratio:.0%}" for one in found if one.faster < 1) or "none"
    least = min(found, key=lambda one: one.gain)
    return f"\nSlower than dense: {slower}. Least gain: {least.gain:.2f}, {least.network} {least.ratio:.0%}.\n"


def top(coupling: str) -> str:
    """The command, when, with what and where."""
    now = datetime.now(timezone.utc).isoformat(timespec="minutes")
    made = ", ".join(
        f"{name} {number}" for name, number in {**versions(), "onnxruntime": version("onnxruntime")}.items()
    )
    where = f"{hardware()}; load average {os.getloadavg()[0]:.1f} at the start; coupling {coupling}"
    return f"`python {' '.join(sys.argv)}`, {now}\n\n{made}; {where}\n\n"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="some of them, with commas between; default all")
    parser.add_argument("--coupling", default="keep", choices=["keep", "group", "scatter"])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each file, over all turns; default 4")
    parser.add_argument("--turns", type=int, default=4, help="of each file, default 4")
    parser.add_argument("--threads", type=int, default=1, help="default 1")
    parser.add_argument("--out", type=Path, help="the record, a Markdown file")
    asked = parser.parse_args()
    if unknown := set(asked.networks.split(",")) - NETWORKS.keys():
        parser.error(f"no network {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    return asked


def main() -> None:
    asked, found = options(), list[Measured]()
    with set_threads(asked.threads):
        text = top(asked.coupling) + HEAD
        print(text, end="")
        for name in asked.networks.split(","):
            found += measured(name, asked.coupling, asked.seconds, asked.turns)
            print(*(one.row() for one in found if one.network == name), sep="", end="", flush=True)
        text += "".join(one.row() for one in found) + verdict(found) + LEGEND
        print(verdict(found))
    if asked.out:
        files.write_text(asked.out, text)


if __name__ == "__main__":
    main()
