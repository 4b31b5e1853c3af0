"""What is removed at 50 %, per coupling, and what holds the rest: the table of src/netslim/engine/README.md#networks.

    PYTHONPATH=. python tests/benchmarks/networks_table.py

With random γ, so the shares of parameters and multiply-adds are those of no trained network; what can be removed, and
what holds the rest, is that of the architecture.
"""

from __future__ import annotations

import torch
from torch import nn

import netslim
from tests.engine.networks.test_libraries import NETWORKS

TITLES = {
    "yolov8n": "YOLOv8n (Ultralytics)",
    "yolo11n": "YOLO11n (Ultralytics)",
    "Unet": "Unet, ResNet-18 (segmentation_models_pytorch)",
    "DeepLabV3Plus": "DeepLabV3+, ResNet-18 (segmentation_models_pytorch)",
    "ResNet": "ResNet (Transformers)",
    "RegNet": "RegNet (Transformers)",
    "MobileNetV2": "MobileNetV2 (Transformers)",
    "RetinaNet": "RetinaNet's backbone, ResNet-18 (torchvision)",
}


def row(name: str, coupling: str) -> str:
    torch.manual_seed(0)
    model, x = NETWORKS[name]().eval(), torch.randn(1, 3, 64, 64)
    layers = netslim.bn_layers(model).values()
    for layer in layers:
        nn.init.uniform_(layer.weight)
    keep = netslim.select_channels(model, 0.5, x, coupling=coupling)
    channels = sum(len(layer.weight) for layer in layers)
    shares = " | ".join(f"{keep.delivered[what]:.0%}" for what in ("parameters", "macs"))
    held = ", ".join(f"{n} {why}" for why, n in keep.held_back.items()) or "nothing"
    return f"| {TITLES[name]} | {coupling} | {keep.prunable} of {channels} | {shares} | {held} |"


def main() -> None:
    print("| network | coupling | prunable channels | parameters removed | MACs removed | held back |")
    print("| --- | --- | ---: | ---: | ---: | --- |")
    for name in TITLES:
        for coupling in ("keep", "group", "scatter"):
            print(row(name, coupling), flush=True)


if __name__ == "__main__":
    main()
