"""slim == masked on the paper's three families and the first torchvision networks."""

import pytest
import torch
import torchvision
from torch import nn

import netslim
from netslim.method.recovery import recalibrate
from netslim.nets import densenet, preresnet
from netslim.nets.vgg import LAYERS, VGG


def build_paper(name):
    return {
        "vgg": lambda: VGG([16, "M", 32, "M", 48, 48, "M", 64, 64]),
        "preresnet": lambda: preresnet.PreResNet(29),
        "densenet": lambda: densenet.DenseNet(22),
    }[name]()


def tie(model):
    """|γ| of 21 values only: so many that a run of equal ones is spread over all layers, and shorter than a tenth."""
    for layer in netslim.bn_layers(model).values():
        gamma = layer.weight.data
        gamma.copy_(gamma.sign() * (0.3 + torch.randint(21, gamma.shape) / 20))


def settle(model, keep, x):
    """Statistics of the masked network. With those of the dense one the signal of the tenth that is left would fade."""
    masked = netslim.mask(model, keep)
    recalibrate(masked, [x])
    model.load_state_dict({name: t for name, t in masked.state_dict().items() if "running" in name}, strict=False)


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("name", ["vgg", "preresnet", "densenet"])
def test_paper_families(name, ratio, ties, oracle, images):
    """γ of both signs; with ties the threshold falls inside a run of equal ones."""
    x = images(16) * torch.tensor([0.2, 0.5, 1.0, 2.0]).double().reshape(4, 1, 1, 1)
    model = oracle.lively(build_paper(name), x)
    if ties:
        tie(model)
    keep = netslim.select_channels(model, ratio=ratio, example_input=x, floor=2)
    assert keep.removed == int(ratio * sum(len(k) for k in keep.values()) + 1e-9)
    gamma = {layer: bn.weight.detach().abs() for layer, bn in netslim.bn_layers(model).items()}
    stay, leave = ({g for layer, k in keep.items() for g in gamma[layer][k == s].tolist()} for s in (True, False))
    assert bool(stay & leave) == ties
    settle(model, keep, x)
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
