"""Targets for latency. Oracle: made-up times that are multiply-adds, or steps that a search over all ratios knows."""

import math
from collections import Counter

import pytest
import torch
import torchvision
from torch import nn

import netslim
from netslim.engine import LayerShape
from netslim.nets import VGG


def macs(layer):
    """Multiply-adds by the textbook: all weights at each position of the output (of the input, where transposed)."""
    sizes = zip(layer.size, layer.kernel, layer.stride, layer.padding, layer.dilation, strict=True)
    positions = [n if layer.transposed else (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]
    weights = layer.inputs * layer.outputs // layer.groups * math.prod(layer.kernel)
    return layer.rows * math.prod(positions) * weights


def by_macs(model, example_input, layers):
    return lambda layers: sum(map(macs, layers))


def lively(model):
    for layer in netslim.bn_layers(model).values():
        nn.init.uniform_(layer.weight)
    return model.eval()


def upsampling():
    up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(nn.Conv2d(3, 8, 3, dilation=2), nn.BatchNorm2d(8), nn.ReLU(), up, nn.BatchNorm2d(6),
                         nn.Flatten(), nn.Linear(6 * 56 * 56, 5))  # fmt: skip


NETWORKS = {
    "vgg": lambda: VGG([16, 24, "M", 32, 20], num_classes=4),
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=10),
    "resnext50": lambda: torchvision.models.resnext50_32x4d(num_classes=10),
    "upsampling": upsampling,
}


@pytest.mark.parametrize(
    ("name", "coupling"),
    [*((name, "keep") for name in NETWORKS), ("resnet18", "group"), ("resnet18", "scatter"), ("mobilenet_v2", "group")],
)
def test_where_time_is_multiply_adds_the_same_channels_are_kept(name, coupling):
    model, x = lively(NETWORKS[name]()), torch.randn(2, 3, 32, 32)
    expected = netslim.select_channels(model, target_macs=0.7, example_input=x, coupling=coupling)
    keep = netslim.select_channels(model, target_latency=0.7, latency=by_macs, example_input=x, coupling=coupling)
    assert all(torch.equal(kept, expected[name]) for name, kept in keep.items())
    dense, small = netslim.count(model, x), netslim.count(netslim.slim(model, keep, x), x)
    assert keep.predicted == {"dense": dense.macs, "slim": pytest.approx(small.macs)}


def seen(model, x):
    """The layers of a network that is there, as its modules are called."""
    found = []

    def note(module, given, out):
        if isinstance(module, nn.Linear):
            found.append(LayerShape(given[0].shape[:-1].numel(), module.in_features, module.out_features))
            return
        transposed = isinstance(module, nn.ConvTranspose2d)
        numbers = module.kernel_size, module.stride, module.padding, module.dilation, module.output_padding
        sizes = (module.in_channels, module.out_channels, tuple(given[0].shape[2:]))
        found.append(LayerShape(len(x), *sizes, *numbers, groups=module.groups, transposed=transposed))

    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(note)
    with torch.no_grad():
        model(x)
    return Counter(found)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnext50", "upsampling"])
def test_the_layers_are_those_of_the_network_that_is_written(name):
    model, x, asked = lively(NETWORKS[name]()), torch.randn(2, 3, 32, 32), []

    def noting(model, example_input, layers):
        asked.append(layers)
        return lambda layers: asked.append(layers) or 1.0

    keep = netslim.select_channels(model, 0.4, x, latency=noting, coupling="group")
    assert Counter(asked[-1]) == seen(netslim.slim(model, keep, x), x) != Counter(asked[0]) == seen(model, x)


def test_the_first_ratio_that_is_fast_enough_is_taken():
    """Kernels that compute 8 channels at once: time falls in steps, and most channels more save nothing."""
    model, x = lively(VGG([16, 24, "M", 32], num_classes=4)), torch.randn(1, 3, 8, 8)

    def cost(widths):
        return sum(math.ceil(width / 8) for width in widths)

    def steps(model, example_input, layers):
        return lambda layers: float(cost(layer.outputs for layer in layers if layer.size))

    def widths(k):
        keep = netslim.select_channels(model, k / 72, x, strict=False)
        small = netslim.slim(model, keep, x)
        return [module.out_channels for module in small.modules() if isinstance(module, nn.Conv2d)]

    costs = [cost(widths(k)) for k in range(72)]
    for target in (8, 6, 4):
        keep = netslim.select_channels(model, target_latency=target, latency=steps, example_input=x)
        assert keep.asked == next(k for k in range(72) if costs[k] <= target) / 72
        assert keep.predicted == {"dense": 9, "slim": costs[keep.removed]}
    with pytest.raises(ValueError, match="target_latency 2 is out of reach: at least 3 milliseconds stay"):
        netslim.select_channels(model, target_latency=2, latency=steps, example_input=x)
    with pytest.raises(
        ValueError, match=r"target_latency 0.2 is out of reach: at least 0.333 of the milliseconds stay"
    ):
        netslim.select_channels(model, target_latency=0.2, latency=steps, example_input=x)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"target_latency": 0.5}, "target_latency needs what measures it, such as latency=netslim.LatencyTable"),
        (
            {"target_latency": 0.5, "target_macs": 0.5},
            "give either ratio or target_macs or target_params or target_lat",
        ),
        (
            {"target_latency": -1, "latency": by_macs},
            r"target_latency must be in \(0, 1\], got -1; over 1 it means that",
        ),
        ({"target_latency": "2ms", "latency": by_macs}, r"must be in \(0, 1\], got '2ms'"),
    ],
)
def test_what_cannot_be_is_refused(asked, said):
    with pytest.raises(ValueError, match=said):
        netslim.select_channels(VGG([8]), example_input=torch.randn(1, 3, 8, 8), **asked)
