"""slim == masked on the paper's three families and the first torchvision networks."""

import pytest
import torch
import torchvision
from torch import nn

import netslim
from netslim.nets import densenet, preresnet
from netslim.nets.vgg import LAYERS, VGG


def build_paper(name):
    return {
        "vgg": lambda: VGG([16, "M", 32, "M", 48, 48, "M", 64, 64]),
        "preresnet": lambda: preresnet.PreResNet(29),
        "densenet": lambda: densenet.DenseNet(22),
    }[name]()


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("name", ["vgg", "preresnet", "densenet"])
def test_paper_families(name, ratio, oracle, images):
    x = images(32)
    model = oracle.lively(build_paper(name), x)
    keep = netslim.select_channels(model, ratio=ratio, example_input=x)
    assert sum(int((~k).sum()) for k in keep.values()) == int(ratio * sum(len(k) for k in keep.values()) + 1e-9)
    small = oracle.prove(model, keep, x)
    assert netslim.count(small, x).macs < netslim.count(model, x).macs


@pytest.mark.parametrize(
    ("model", "channels"),
    [
        (lambda: VGG(LAYERS[19]), 5504),
        (lambda: preresnet.PreResNet(164), 12112),
        (lambda: densenet.DenseNet(40), 9360),
    ],
)
def test_every_bn_of_the_paper_is_prunable(model, channels):
    """Numbers of the authors' code, which thresholds all BN layers."""
    model = model()
    keep = netslim.select_channels(model, ratio=0.5, example_input=torch.randn(1, 3, 32, 32))
    assert list(keep) == list(netslim.bn_layers(model))
    assert sum(len(k) for k in keep.values()) == channels
    assert sum(int((~k).sum()) for k in keep.values()) == channels // 2


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["keep", "group"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16_bn"])
def test_first_torchvision_networks(name, coupling, oracle, images):
    x = images(32 if name == "vgg16_bn" else 64)
    model = torchvision.models.get_model(name, num_classes=10)
    if name == "vgg16_bn":  # the two hidden layers of 4096 would only cost time
        model.classifier = nn.Sequential(nn.Linear(25088, 64), nn.ReLU(), nn.Linear(64, 10))
    oracle.lively(model, x)
    keep = netslim.select_channels(model, ratio=0.5, example_input=x, coupling=coupling)
    oracle.prove(model, keep, x)
