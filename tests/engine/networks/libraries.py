"""Networks of Ultralytics, segmentation_models_pytorch and Transformers, and a RetinaNet's backbone, without weights of
others; and what src/netslim/engine/README.md#networks says of each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import netslim
from netslim.engine.selection import Selection

README = Path(netslim.__file__).parent / "engine" / "README.md"
HEAD = (
    "| network | coupling | prunable channels | parameters removed | MACs removed | held back |\n"
    "| --- | --- | ---: | ---: | ---: | --- |\n"
)


class Tensors(nn.Module):
    """The first tensor, or the tensors, of what a network returns."""

    def __init__(self, network: nn.Module, pick: Callable) -> None:
        super().__init__()
        self.network, self.pick = network, pick

    def forward(self, x: Tensor) -> Tensor:
        return self.pick(self.network(x))


def yolo(name: str) -> nn.Module:
    """In evaluation the decoded boxes, in training the maps of three strides."""
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(f"{name}.yaml", verbose=False)


def segmentation(kind: str) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, kind)("resnet18", encoder_weights=None, classes=3)


def transformer(kind: str, **settings) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{kind}Config")(num_labels=5, **settings)
    return Tensors(getattr(transformers, f"{kind}ForImageClassification")(config), lambda out: out.logits)


def retinanet() -> nn.Module:
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5, returned_layers=[2, 3, 4]
    )
    return Tensors(backbone, lambda maps: tuple(maps.values()))


SMALL = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 2, 1, 1]}
NETWORKS = {
    "yolov8n": lambda: yolo("yolov8n"),
    "yolo11n": lambda: yolo("yolo11n"),
    "Unet": lambda: segmentation("Unet"),
    "DeepLabV3Plus": lambda: segmentation("DeepLabV3Plus"),
    "ResNet": lambda: transformer("ResNet", embedding_size=16, **SMALL),
    "RegNet": lambda: transformer("RegNet", embedding_size=16, groups_width=8, **SMALL),
    "MobileNetV2": lambda: transformer("MobileNetV2", depth_multiplier=0.35),
    "RetinaNet": retinanet,
}
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


def random(name: str, lively: Callable[[nn.Module, Tensor], nn.Module], x: Tensor) -> nn.Module:
    """The network with numbers that depend on its architecture alone, not on how its library draws them."""
    network = NETWORKS[name]()
    torch.manual_seed(0)
    return lively(network, x)


def row(name: str, coupling: str, keep: Selection) -> list[str]:
    """A row of the README's table: what ``select_channels(ratio=0.5)`` removes, and what holds the rest."""
    channels = keep.prunable + sum(keep.held_back.values())
    shares = [f"{keep.delivered[what]:.0%}" for what in ("parameters", "macs")]
    held = ", ".join(f"{n} {why}" for why, n in keep.held_back.items()) or "nothing"
    return [TITLES[name], coupling, f"{keep.prunable} of {channels}", *shares, held]


def published() -> dict[tuple[str, str], list[str]]:
    """(title, coupling) -> that row of the README."""
    lines = README.read_text().partition(HEAD)[2].partition("\n\n")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines]
    return {(cells[0], cells[1]): cells for cells in rows}
