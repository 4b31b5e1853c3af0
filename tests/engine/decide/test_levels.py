"""Kept counts in levels. Oracle: a slow greedy search that steps one layer down to its next level at a time."""

import pytest
import torch
import torchvision
from torch import nn

import netslim
from netslim.nets import VGG


def levels(width, round_to="auto"):
    steps = {n: (16 if n > 32 else 8) if round_to == "auto" else round_to for n in range(width, 0, -1)}
    return [n for n, step in steps.items() if n == width or n % step == 0]


def lively(model):
    torch.manual_seed(3)
    for layer in netslim.bn_layers(model).values():
        layer.weight.data = torch.rand_like(layer.weight)
    return model.eval()


def greedy(model, ratio, round_to):
    """Widths after steps of the least mean |γ|, until the next one would remove more channels than the ratio allows."""
    sizes = {name: sorted(bn.weight.abs().tolist()) for name, bn in netslim.bn_layers(model).items()}
    kept = {name: len(values) for name, values in sizes.items()}
    budget = int(ratio * sum(kept.values()))
    while True:
        steps = []
        for name, values in sizes.items():
            lower = [n for n in levels(len(values), round_to) if n < kept[name]]
            if lower:
                lost = values[len(values) - kept[name] : len(values) - lower[0]]
                steps.append((sum(lost) / len(lost), name, lower[0]))
        if not steps:
            return kept
        _, name, width = min(steps)
        if kept[name] - width > budget:
            return kept
        budget -= kept[name] - width
        kept[name] = width


@pytest.mark.parametrize(
    ("ratio", "round_to"), [(0.1, "auto"), (0.3, "auto"), (0.5, "auto"), (0.7, "auto"), (0.3, 8), (0.5, 8), (0.7, 12)]
)
def test_the_cheapest_level_is_left_first(ratio, round_to):
    model = lively(VGG([16, 20, "M", 36, 50, "M", 64, 128], num_classes=4))
    keep = netslim.select_channels(model, ratio, torch.randn(1, 3, 16, 16), round_to=round_to)
    assert {name: int(kept.sum()) for name, kept in keep.items()} == greedy(model, ratio, round_to)


def test_a_target_is_met_in_levels(images):
    model, x = lively(VGG([16, 16, "M", 32, 32, "M", 64, 64], num_classes=4)), images(16, 1).float()
    keep = netslim.select_channels(model, target_macs=0.5, example_input=x, round_to="auto")
    assert all(int(kept.sum()) in levels(len(kept)) for kept in keep.values())
    small = netslim.slim(model, keep, x)
    assert 0.3 < netslim.count(small, x).macs / netslim.count(model, x).macs <= 0.5


@pytest.mark.parametrize("coupling", ["keep", "group", "scatter"])
def test_coupled_layers_keep_levels_and_the_network_computes_the_same(coupling, images):
    x = images(32)
    model = lively(torchvision.models.resnet18(num_classes=10)).double()
    last = 0
    for ratio in (0.3, 0.5, 0.6):
        keep = netslim.select_channels(model, ratio, x, coupling=coupling, round_to="auto")
        assert all(int(kept.sum()) in levels(len(kept)) for kept in keep.values())
        assert ratio * keep.prunable - 16 * 5 < keep.removed <= ratio * keep.prunable  # up to 5 writers lose 16 each
        assert keep.removed >= last
        last = keep.removed
    expected = netslim.mask(model, keep)(x)
    torch.testing.assert_close(netslim.slim(model, keep, x)(x), expected, rtol=1e-9, atol=1e-9)


def test_grouped_convolutions_stay_whole_numbers_of_groups(images):
    block = [nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=4), nn.BatchNorm2d(32)]
    model, x = lively(nn.Sequential(*block, nn.ReLU(), nn.Conv2d(32, 2, 1))).double(), images(16)
    keep = netslim.select_channels(model, 0.5, x, round_to="auto")
    small = netslim.slim(model, keep, x)
    assert {len(layer.weight) for layer in netslim.bn_layers(small).values()} <= {8, 16, 24, 32}
    torch.testing.assert_close(small(x), netslim.mask(model, keep)(x), rtol=1e-9, atol=1e-9)


def test_what_is_no_number_of_channels_is_refused(images):
    with pytest.raises(ValueError, match="round_to must be 1 or more channels, got 'best'"):
        netslim.select_channels(lively(VGG([16, 16])), 0.5, images(16, 1).float(), round_to="best")
