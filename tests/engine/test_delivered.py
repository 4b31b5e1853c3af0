"""What a selection delivers: counted on the slim network, and never less for a higher ratio."""

import pytest
import torch
import torchvision
from torch import nn

import netslim
from netslim.nets.densenet import DenseNet
from netslim.nets.preresnet import PreResNet
from netslim.nets.vgg import VGG

RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NETWORKS = {
    "vgg": lambda: VGG([16, "M", 32, "M", 48, 48]),
    "preresnet": lambda: PreResNet(20),
    "densenet": lambda: DenseNet(16),
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "resnext": lambda: torchvision.models.resnet.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=10, groups=4, width_per_group=16
    ),
    "mobilenet_v3": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
    "shufflenet": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=10),
}


def _scales(model, small):
    pairs = zip(netslim.bn_layers(model).values(), netslim.bn_layers(small).values(), strict=True)
    return [(dense.weight, slim.weight) for dense, slim in pairs]


@pytest.mark.parametrize("coupling", ["keep", "group"])
@pytest.mark.parametrize("name", NETWORKS)
def test_delivered_is_what_is_gone_and_rises_with_the_ratio(name, coupling, images):
    x = images(32, 1).float()
    model = NETWORKS[name]().eval()
    for layer in netslim.bn_layers(model).values():
        layer.weight.data = torch.randn_like(layer.weight)
    dense = netslim.count(model, x)
    last = {"channels": 0.0, "parameters": 0.0, "macs": 0.0}
    for ratio in RATIOS:
        keep = netslim.select_channels(model, ratio, x, coupling=coupling)
        small = netslim.slim(model, keep, x)
        cost = netslim.count(small, x)
        assert keep.delivered["parameters"] == pytest.approx(1 - cost.params / dense.params, abs=1e-12)
        assert keep.delivered["macs"] == pytest.approx(1 - cost.macs / dense.macs, abs=1e-9)
        gone = sum(p.shape[0] - len(q) for p, q in _scales(model, small))
        assert keep.delivered["channels"] == pytest.approx(gone / keep.prunable)
        assert all(last[what] <= share + 1e-12 for what, share in keep.delivered.items()), ratio
        last = keep.delivered
    assert keep.delivered["channels"] > 0.8


class Dropping(nn.Module):
    """Asks for its mode in the middle: what comes after is recorded in both."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 3))

    def forward(self, x):
        x = nn.functional.dropout(torch.relu(self.first(x)), 0.5, self.training)
        return self.second(x)


def test_a_network_in_two_modes_counts_once(images):
    x = images(12, 1).float()
    model = Dropping().eval()
    for layer in netslim.bn_layers(model).values():
        nn.init.uniform_(layer.weight)
    keep = netslim.select_channels(model, 0.5, x)
    dense, slim = netslim.count(model, x).macs, netslim.count(netslim.slim(model, keep, x), x).macs
    assert keep.delivered["macs"] == pytest.approx(1 - slim / dense, abs=1e-9)
