"""Slim beside dense in ONNX Runtime, with kept counts in levels: does the file gain what the multiply-adds promise?

    PYTHONPATH=. python tests/benchmarks/runtime_latency.py --threads 1 --seconds 5

Random γ, batch 1. "gain" is the latency's share of the multiply-adds' ratio: 1 is all of it.
"""

from __future__ import annotations

import argparse

import torch
import torchvision
from torch import nn

import netslim
from netslim.measure.cost import count
from netslim.measure.environment import hardware
from netslim.measure.export import written
from netslim.measure.formats.onnx import ONNX
from netslim.measure.latency import latency_of, set_threads
from netslim.nets import VGG

NETWORKS = {
    "vgg_small": (lambda: VGG([32, 32, "M", 64, 64, "M", 128, 128, "M", 128, 128]), 32),
    **{
        name: (getattr(torchvision.models, name), 224)
        for name in ("resnet18", "resnet50", "mobilenet_v2", "densenet121")
    },
}


def rows(name: str, coupling: str, seconds: float) -> list[str]:
    torch.manual_seed(0)
    build, size = NETWORKS[name]
    model, x = build().eval(), torch.randn(1, 3, size, size)
    for layer in netslim.bn_layers(model).values():
        nn.init.uniform_(layer.weight)
    before = latency_of(ONNX.open(written(model, x, "onnx"), model), x, seconds=seconds).median
    lines = []
    for ratio in (0.3, 0.5, 0.7):
        keep = netslim.select_channels(model, ratio, x, coupling=coupling, round_to="auto")
        small = netslim.slim(model, keep, x)
        after = latency_of(ONNX.open(written(small, x, "onnx"), small), x, seconds=seconds).median
        macs, times = count(model, x).macs / count(small, x).macs, before / after
        lines.append(
            f"| {name} | {ratio:.0%} | {macs:.2f} | {before:.2f} | {after:.2f} | {times:.2f} | {times / macs:.2f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--coupling", default="keep")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each latency")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with set_threads(options.threads):
        print(f"Coupling {options.coupling}; {hardware()}\n")
        print("| network | ratio | MACs ÷ | dense, ms | slim, ms | times as fast | gain |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for name in options.networks.split(","):
            print("\n".join(rows(name, options.coupling, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
