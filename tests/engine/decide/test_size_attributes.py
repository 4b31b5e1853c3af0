"""Sizes in the code: those that come from an attribute follow, those that are written there hold what they count."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import netslim


def convolution(ins, outs):
    return nn.Sequential(nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU())


class Block(nn.Module):
    """12 channels, what the case does with them, and a head that runs on any number of pixels."""

    def __init__(self, body, **attributes):
        super().__init__()
        self.stem, self.body = convolution(3, 12), body
        self.last = nn.Linear(5, 3)
        self.head = nn.Sequential(nn.Conv2d(12, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.head(self.body(self, self.stem(x))).mean((2, 3)))


def split_by_width(net, x):
    return torch.cat([part * (i + 1) for i, part in enumerate(x.split(net.width, 1))], 1)


def split_by_half(net, x):
    a, b = x.split(net.channels // 2, 1)
    return torch.cat([b.tanh(), a], 1)


def split_by_list(net, x):
    a, b, c = x.split(net.splits, 1)
    return torch.cat([c, a, b.tanh()], 1)


def split_by_numbers(net, x):
    a, b = x.split([net.touched, net.untouched], 1)
    return torch.cat([a.tanh(), b], 1)


def slice_by_width(net, x):
    return torch.cat([x[:, net.width :], x[:, : net.width].tanh()], 1)


def view_by_channels(net, x):
    return x.reshape(len(x), net.channels, -1).reshape(x.shape)


def blur(net, x):
    return F.conv2d(x, net.kernel, groups=net.channels, padding=1)


FOLLOWED = {
    "width": (split_by_width, {"width": 4}),
    "half": (split_by_half, {"channels": 12}),
    "list": (split_by_list, {"splits": [3, 4, 5]}),
    "tuple": (split_by_list, {"splits": (3, 4, 5)}),
    "numbers": (split_by_numbers, {"touched": 5, "untouched": 7}),
    "slice": (slice_by_width, {"width": 5}),
    "view": (view_by_channels, {"channels": 12}),
    "blur": (blur, {"channels": 12}),
}


@pytest.mark.parametrize("case", FOLLOWED)
def test_a_size_from_an_attribute_follows(case, oracle, images, tmp_path):
    body, attributes = FOLLOWED[case]
    model, x = Block(body, **attributes), images(8)
    if case == "blur":
        model.register_buffer("kernel", torch.full((12, 1, 3, 3), 1 / 9))
    oracle.lively(model, x)
    keep = netslim.select_channels(model, 0.5, x)
    assert keep.prunable == 17
    assert keep.held_back == {}
    before = {name: getattr(model, name) for name in attributes}
    small = oracle.prove(model, keep, x)
    assert small.stem[0].out_channels == int(keep["stem.1"].sum()) + keep.carried < 12
    after = {name: getattr(small, name) for name in attributes}
    assert after != before == {name: getattr(model, name) for name in attributes}
    assert [type(value) for value in after.values()] == [type(value) for value in before.values()]
    netslim.save(small, tmp_path / "small.pt")
    assert torch.equal(netslim.load(tmp_path / "small.pt", model)(x), small(x))
    twice = oracle.prove(small, netslim.select_channels(small, 0.4, x), x)
    netslim.save(twice, tmp_path / "twice.pt")
    assert torch.equal(netslim.load(tmp_path / "twice.pt", model)(x), twice(x))


HELD = {  # of the 12 channels of the stem
    "split of equal sizes": (lambda _, x: torch.cat([p.tanh() for p in x.split([6, 6], 1)], 1), 12),
    "split": (lambda _, x: torch.cat([p.tanh() for p in x.split([2, 10], 1)], 1), 12),
    "the first of a slice": (lambda _, x: torch.cat([x[:, 2:], x[:, :2].tanh()], 1), 2),
    "a slice from the middle": (lambda _, x: torch.cat([x[:, 2:7].tanh(), x[:, :2], x[:, 7:]], 1), 7),
    "view": (lambda _, x: x.view(len(x), 12, -1).tanh().view(x.shape), 12),
}


@pytest.mark.parametrize("case", HELD)
def test_a_number_in_the_code_holds_what_it_counts(case, oracle, images):
    body, held = HELD[case]
    x = images(8)
    model = oracle.lively(Block(body), x)
    keep = netslim.select_channels(model, 0.4, x)
    assert keep.prunable == 17 - held
    assert sum(keep.held_back.values()) == held
    assert int((~keep["stem.1"]).sum()) > 0 if held < 12 else "stem.1" not in keep
    small = oracle.prove(model, keep, x)
    assert small.stem[0].out_channels == (int(keep["stem.1"].sum()) if held < 12 else 12)
    oracle.prove(model, {"stem.1": torch.arange(12) % 3 > 0}, x)  # asked for all the same


def test_shares_taken_from_a_shape_follow(oracle, images):
    def body(_, x):
        c = x.shape[1] // 3
        a, b, d = x.chunk(3, 1)
        return torch.cat([a, d, x[:, c : 2 * c], b.tanh()[:, :0]], 1)

    x = images(8)
    model = oracle.lively(Block(body), x)
    keep = netslim.select_channels(model, 0.5, x)
    small = oracle.prove(model, keep, x)
    assert small.stem[0].out_channels == int(keep["stem.1"].sum()) < 12
    assert len({int(row.sum()) for row in keep["stem.1"].view(3, 4)}) == 1


def test_shares_of_a_list_need_not_be_equal(oracle, images):
    x = images(8)
    model = oracle.lively(Block(split_by_list, splits=[4, 4, 4]), x)
    small = oracle.prove(model, {"stem.1": torch.arange(12) % 8 > 1}, x)
    assert small.splits == [2, 4, 2]


def test_no_share_becomes_empty(oracle, images):
    x = images(8)
    model = oracle.lively(Block(split_by_list, splits=[3, 4, 5]), x)
    assert oracle.prove(model, {"stem.1": torch.arange(12) > 4}, x).splits == [1, 2, 5]


def test_an_attribute_that_is_no_size_stays(oracle, images):
    """The stride happens to be the number of channels that a split makes."""

    def body(net, x):
        a, b = x.chunk(2, 1)
        a, b = torch.cat([a, b], 1).split([net.stride, net.rest], 1)
        return F.conv2d(torch.cat([a, b], 1), net.weight, stride=net.stride, padding=4)

    x = images(8)
    model = Block(body, stride=2, rest=10)
    model.weight = nn.Parameter(torch.randn(12, 12, 1, 1))
    oracle.lively(model, x)
    small = oracle.prove(model, {"stem.1": torch.arange(12) % 6 > 1}, x)
    assert small.stride == 2


def test_an_attribute_of_two_meanings_holds(oracle, images):
    """Both splits take their size from one attribute, and disagree on what is left of it."""

    def body(net, x):
        a, b = x.split(net.width, 1)
        c, d = net.inner(torch.cat([a, b], 1)).split(net.width, 1)
        return torch.cat([a + c, b.tanh() + d], 1)

    x = images(8)
    model = Block(body, width=6)
    model.inner = convolution(12, 12)
    oracle.lively(model, x)
    keep = {"stem.1": torch.arange(12) % 6 > 0, "inner.1": torch.arange(12) % 6 > 1, "head.1": torch.arange(5) > 1}
    oracle.prove(model, keep, x)


def test_a_tensor_chosen_by_its_shape(oracle, images):
    """The dense network adds the second of three tensors of one shape; with the third narrower, the first."""

    def body(net, x):
        first = x.sort(1).values  # no rule, so nothing is known of these but which they are
        second = first.tanh()
        third = net.norm(second.sin())
        y = net.inner(third)
        same = [t for t in (first, second, third) if t.shape == y.shape]
        return y + same[4 % len(same)]

    x = images(8)
    model = Block(body)
    model.norm, model.inner = nn.BatchNorm2d(12), nn.Conv2d(12, 12, 1)
    oracle.lively(model, x)
    oracle.prove(model, {"norm": torch.arange(12) % 3 > 0}, x)
