"""Whole detectors of torchvision, with detections: how many there are depends on the numbers, not on the channels."""

import pytest
import torch
from torchvision.models import detection

import netslim
from netslim.method.recovery import recalibrate

PLAIN = {"weights": None, "weights_backbone": None, "num_classes": 5}
SMALL = {**PLAIN, "min_size": 96, "max_size": 96}
DETECTORS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": {**SMALL, "box_score_thresh": 0.0},
    "ssdlite320_mobilenet_v3_large": {**PLAIN, "score_thresh": 0.0},
    "retinanet_resnet50_fpn_v2": {**SMALL, "score_thresh": 0.0},
    "fcos_resnet50_fpn": {**SMALL, "score_thresh": 0.0},
    "fasterrcnn_resnet50_fpn_v2": {**SMALL, "box_score_thresh": 0.0},
}
CASES = [
    (name, coupling) if "mobilenet" in name else pytest.param(name, coupling, marks=pytest.mark.slow)
    for name in DETECTORS
    for coupling in ("keep", "scatter")
]


@pytest.mark.filterwarnings("ignore:.*trainable_backbone_layers")
@pytest.mark.parametrize(("name", "coupling"), CASES)
def test_a_detector_with_detections(name, coupling):
    torch.manual_seed(0)
    model = getattr(detection, name)(**DETECTORS[name]).double()
    for layer in netslim.bn_layers(model).values():
        torch.nn.init.uniform_(layer.weight, 0.3, 1.3)
        torch.nn.init.normal_(layer.bias, std=0.3)
    recalibrate(model.backbone, [torch.rand(4, 3, 96, 96).double()])
    model.eval()
    images = [torch.rand(3, 96, 96).double(), torch.rand(3, 80, 96).double()]
    keep = netslim.select_channels(model, 0.3, (images,), coupling=coupling)
    small, masked = netslim.slim(model, keep, (images,)), netslim.mask(model, keep)
    assert keep.prunable > 7000
    with torch.no_grad():
        other = [torch.rand(3, 96, 70).double()]
        found, expected = small(images) + small(other), masked(images) + masked(other)
    assert sum(len(image["boxes"]) for image in expected) > 5
    for mine, theirs in zip(found, expected, strict=True):
        for key in mine:
            torch.testing.assert_close(mine[key], theirs[key], rtol=1e-6, atol=1e-6)
