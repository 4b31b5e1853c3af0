"""Networks of Ultralytics, segmentation_models_pytorch and Transformers, and a RetinaNet's backbone, without weights of
others. Oracle: the masked network, in evaluation and through training steps; ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import netslim
from netslim.measure.export import export

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("coupling", ["keep", "group", "scatter"])
@pytest.mark.parametrize("name", NETWORKS)
def test_slim_is_masked(name, coupling, oracle, images):
    x = images(64, n=8 if name == "MobileNetV2" else 2)  # its statistics are of very few pixels
    torch.manual_seed(0)
    model = oracle.lively(NETWORKS[name](), x)
    model(x)  # a detector keeps its anchors
    keep = netslim.select_channels(model, 0.5, x, coupling=coupling)
    assert keep.proof.on_meta, "the analysis computed the network"
    oracle.prove(model, keep, x, train=coupling == "scatter")


@pytest.mark.filterwarnings("ignore:The tensor attribute")  # the anchors that a detector keeps
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx(name, tmp_path):
    torch.manual_seed(0)
    model, x = NETWORKS[name]().eval(), torch.randn(1, 3, 64, 64)
    for layer in netslim.bn_layers(model).values():
        nn.init.uniform_(layer.weight, 0.5, 1.5)
    small = netslim.slim(model, netslim.select_channels(model, 0.5, x, coupling="scatter"), x)
    (file,) = export(small, x, tmp_path, ["onnx"], tolerance=1e-3)
    assert file.path.exists()
