"""What a selection says of itself, and slimming in one call. Oracle: the two-step form, widths counted by hand."""

import pytest
import torch
import torchvision
from torch import nn

import netslim

X = torch.randn(1, 3, 8, 8)


def toy():
    torch.manual_seed(0)
    first, second = (
        (nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU()),
        (nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.ReLU()),
    )
    net = nn.Sequential(*first, *second, nn.Conv2d(4, 2, 1)).eval()
    net[1].weight.data = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.001, 0.002, 0.003, 0.0035])
    net[4].weight.data = torch.tensor([0.5, 0.4, 0.001, 0.002])
    return net


def test_one_call_does_what_two_do():
    model = toy()
    two = netslim.slim(model, netslim.select_channels(model, target_macs=0.4, example_input=X), X)
    one = netslim.slim(model, target_macs=0.4, example_input=X)
    assert [tuple(p.shape) for p in one.parameters()] == [tuple(p.shape) for p in two.parameters()]
    torch.testing.assert_close(one(X), two(X), rtol=0, atol=0)
    with pytest.raises(ValueError, match="give either keep or ratio: the channels of keep are chosen already"):
        netslim.slim(model, {"1": torch.ones(8, dtype=torch.bool)}, X, ratio=0.5)
    with pytest.raises(ValueError, match="give either ratio or target_macs"):
        netslim.slim(model, example_input=X)


def test_a_selection_is_a_table():
    keep = netslim.select_channels(toy(), 0.5, X)
    assert (
        repr(keep) == "Selection(6 of 12 channels removed, 37.5 % of multiply-adds left)"
    )  # 12 + 8 + 4 of 24 + 32 + 8
    assert str(keep).splitlines() == [
        "layer   kept of width",
        "1          4 of 8",
        "4          2 of 4",
        "removed 6 of 12 prunable channels (50 % asked)",
        "left: 43.1 % of the parameters, 37.5 % of the multiply-adds",
    ]


def test_a_selection_of_which_layers_were_taken_out_is_a_table_of_the_others():
    keep = netslim.select_channels(toy(), 0.9, X, strict=False)
    assert keep.at_floor == ["1", "4"]
    del keep["1"]
    assert str(keep).splitlines()[1].split() == ["4", "1", "of", "4"]
    assert [line for line in keep.advice() if line.startswith("at the floor end 4 with 1: ")]


def test_live_scales_and_floors_get_advice():
    model = toy()
    deep = netslim.select_channels(model, 0.8, X)
    assert deep.at_floor == ["4"]
    assert deep.advice() == [
        "80 % are removed, 50 % of the γ are dead (at most 1 % of their layer's mean): train with the penalty first",
        "at the floor end 4 with 1: a higher floor, or a smaller ratio",
    ]
    assert netslim.select_channels(model, 0.55, X).advice() == []


def test_what_coupling_holds_is_said_layer_by_layer():
    model = torchvision.models.resnet18(num_classes=10)
    for layer in netslim.bn_layers(model).values():
        layer.weight.data *= 1e-3
    keep = netslim.select_channels(model, 0.5, torch.randn(1, 3, 32, 32))
    lines = str(keep).splitlines()
    assert len(lines) <= 30
    assert lines[1].split() == ["bn1", "64", "of", "64", "64", "coupled"]
    advice = "coupling='keep' leaves 60 % of the channels out of the ratio: coupling='group' or 'scatter' reaches them"
    assert advice in keep.advice()
    assert {name: sum(why.values()) for name, why in keep.held.items()} == {
        name: len(layer.weight) for name, layer in netslim.bn_layers(model).items() if name not in keep
    }
    group = netslim.select_channels(model, 0.5, torch.randn(1, 3, 32, 32), coupling="group")
    assert not any("coupling" in line for line in group.advice())
