"""A scan before the cut. Oracle: each step by hand, with masks instead of slim networks."""

import copy
import math

import pytest
import torch
from torch import nn

import netslim
from netslim.nets import VGG


@pytest.fixture
def trained():
    torch.manual_seed(0)
    model = VGG([8, "M", 8], num_classes=3).eval()
    for layer in netslim.bn_layers(model).values():
        layer.weight.data = torch.tensor([0.9, 0.001, 0.8, 0.002, 0.7, 0.6, 0.5, 0.4])
    batches = [[torch.randn(16, 3, 8, 8), torch.randint(3, (16,))] for _ in range(3)]
    return model, batches


def right(model, batches):
    with torch.no_grad():
        found = [(model.eval()(x).argmax(1) == y).sum() for x, y in batches]
    return float(sum(found)) / 48


def recalibrated(model, batches):
    netslim.recalibrate(model, [x for x, _ in batches])
    return model


def test_every_ratio_and_layer_is_what_a_mask_makes_of_it(trained):
    model, batches = trained
    x = batches[0][0][:1]
    before = copy.deepcopy(model.state_dict())
    found = netslim.scan(model, x, batches, ratios=(0.25, 0.5))
    assert found.accuracy == right(model, batches)
    assert found.dead == 0.25
    for point in found.points:
        keep = netslim.select_channels(model, point.ratio, x)
        small = netslim.count(netslim.slim(model, keep, x), x)
        dense = netslim.count(model, x)
        assert (point.params, point.macs) == (small.params / dense.params, small.macs / dense.macs)
        assert point.accuracy == right(recalibrated(netslim.mask(model, keep), batches), batches)
    weakest = torch.tensor([True, False, True, False, True, True, False, False])
    for name in netslim.bn_layers(model):
        halved = recalibrated(netslim.mask(model, {name: weakest}), batches)
        assert found.layers[name] == right(halved, batches)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    lines = str(found).splitlines()
    assert "from here live γ are removed: 25.0% are dead" in lines[3]
    assert len(lines) == 7


def test_ratios_that_the_floor_stops_are_left_out(trained):
    model, batches = trained
    found = netslim.scan(
        model, batches[0][0][:1], batches, ratios=(0.5, 0.8, 0.9), floor=4, evaluate=lambda *_: math.pi
    )
    assert [point.ratio for point in found.points] == [0.5]
    assert found.points[0].accuracy == math.pi


def test_without_batches_it_is_refused(trained):
    model, batches = trained
    with pytest.raises(ValueError, match="scan needs at least one batch of validation data, got none"):
        netslim.scan(model, batches[0][0][:1], [])
    with pytest.raises(ValueError, match="scan needs a list of batches or a data loader, got one Tensor"):
        netslim.scan(model, batches[0][0][:1], batches[0][0])
    assert isinstance(model, nn.Module)
