"""Branches that the example input does not take: each computes what the masked network computes, or nothing is cut."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netslim


def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())


class Net(nn.Module):
    """One stage in front of a branch, one behind it. choose(self, y, x) -> what the branch makes of y."""

    def __init__(self, choose):
        super().__init__()
        self.choose = choose
        self.first, self.day, self.night, self.last = block(3, 16), block(16, 16), block(16, 16), block(16, 8)
        self.plain, self.scale = nn.Conv2d(16, 16, 1), nn.Parameter(torch.rand(16, 1, 1))
        self.experts = nn.ModuleList(block(16, 16) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.last(self.choose(self, self.first(x), x)).mean((2, 3)))


def check(model, oracle, inputs, x=None):
    """Every input through the slim and the masked network, in both modes."""
    x = inputs[0] if x is None else x
    keep = netslim.select_channels(model, 0.5, x)
    small, masked = netslim.slim(model, keep, x), netslim.mask(model, keep)
    for training in (False, True):
        for given in inputs:
            with torch.no_grad():
                a, b = small.train(training)(given), masked.train(training)(given)
            assert a.shape == b.shape
            spread = float(b.std(0).mean())
            assert spread > 1e-3
            assert float((a - b).abs().max()) < 1e-9 * spread
    return keep, small


def truth(net, y, x):
    return net.day(y) if x.mean() > 0 else net.night(y)


def centred(net, y, x):
    """No layer tells of this one."""
    return net.day(y - y.mean(1, keepdim=True)) if x.mean() < 0 else net.day(y)


def nested(net, y, x):
    if x.mean() > 0:
        return net.day(y)
    return net.night(y) if x[:, 0].mean() > -1 else net.plain(y)


def loop(net, y, x):
    while bool((y.detach().abs().amax() > 10**6).any()):
        y = net.plain(y) / 10
    return net.day(y) if bool(x.mean() > 0) else y * net.scale


ALL = ("night", "plain", "scale", "experts")


def unused(model, layers):
    """Without what the branch does not use."""
    for name in set(ALL) - {*layers}:
        delattr(model, name)
    return model


TRUTHS = {  # and what the network has beside
    "layers": (truth, ["night"]),
    "without layers": (centred, []),
    "nested": (nested, ["night", "plain"]),
    "a loop": (loop, ["plain", "scale"]),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_a_branch_on_a_tensor_is_run_both_ways(name, oracle, images):
    x = images(8).abs()
    choose, layers = TRUTHS[name]
    model = oracle.lively(unused(Net(choose), layers), x)
    keep, small = check(model, oracle, [x, -x, -3 * x])
    assert "last.1" in keep
    assert "first.1" in keep or name not in ("layers", "nested")
    if name == "layers":  # its reader that the example does not run was cut too
        assert small.night[0].in_channels == small.day[0].in_channels == small.first[0].out_channels < 16


def by_item(net, y, x):
    return net.day(y) if x.mean().item() > 0 else net.night(y)


def by_shape(net, y, x):
    return net.day(y) if x.shape[-1] == 8 else net.night(y)


def by_scale(net, y, x):
    return net.day(y) if x.shape[-1] == 8 else net.day(y * net.scale)


def by_weight(net, y, x):
    return net.day(y) if x.shape[-1] == 8 else F.conv2d(y, net.plain.weight)


def by_expert(net, y, x):
    return net.experts[int(x.mean() > 0)](y)


OTHERS = {  # the layer that the branch uses, and what is said to have held the channels
    "item": (by_item, "night", "not run: 2.night"),
    "shape": (by_shape, "night", "not run: 2.night"),
    "parameter": (by_scale, "scale", "not run: 2.scale"),
    "weight of a layer": (by_weight, "plain", "not run: 2.plain"),
    "experts": (by_expert, "experts", "not run: 2.experts.0, 2.experts.2"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_a_branch_could_read_keeps_its_width(name, oracle, images):
    choose, layer, reason = OTHERS[name]
    x = images(8).abs()
    model = nn.Sequential(block(3, 6), block(6, 3), unused(Net(choose), [layer]))  # no branch in the first two
    inner = oracle.lively(model, x)
    other = -x if name in ("item", "experts") else torch.cat([x, x], 3)
    keep, small = check(inner, oracle, [x, other])
    assert keep.held_back[reason] > 0
    assert set(keep) == {"0.1"}
    assert small[0][0].out_channels < 6


def test_a_deliberate_refusal_is_no_branch(oracle, images):
    def strict(net, y, x):
        assert not torch.isnan(y).any(), "NaN"
        if (y.abs() > 1e12).any():
            raise ValueError("diverged")
        return net.day(y)

    x = images(8)
    model = oracle.lively(unused(Net(strict), []), x)
    keep, _ = check(model, oracle, [x, -x])
    assert list(keep) == ["day.1", "last.1"]
    assert keep.held_back == {"any": 16}  # read, but nothing more


def test_a_branch_that_cannot_be_tried_holds_what_it_could_read(oracle, images):
    """Its code fails where the tensor is not what it says it is."""

    def brightest(net, y, x):
        bright = x.mean((1, 2, 3)) > 6
        if bright.any():
            first = bright.nonzero()[0].item()
            y = y - y.mean(1, keepdim=True) * (first + 1)
        return net.day(y)

    x = images(8)
    model = oracle.lively(nn.Sequential(block(3, 6), block(6, 3), unused(Net(brightest), [])), x)
    model[1][1].bias.data[0] = 5.5
    keep, _ = check(model, oracle, [x, x * 30], x)
    assert keep.held_back["a branch on values"] > 0
    assert "0.1" in keep


def test_layers_that_no_code_names_hold_nothing(oracle, images):
    x = images(8)
    keep, _ = check(oracle.lively(Net(lambda net, y, x: net.day(y)), x), oracle, [x, -x])
    assert set(keep) == {"first.1", "day.1", "last.1"}


def test_parameters_that_nobody_could_read_hold_nothing(oracle, images):
    """Of a layer within one of PyTorch's, whose code is known to run none."""
    x = images(8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    model[0].average = nn.Conv2d(8, 8, 1)
    keep = netslim.select_channels(oracle.lively(model, x), 0.5, x)
    assert list(keep) == ["1"]
    assert oracle.prove(model, keep, x)[0].out_channels == 4
