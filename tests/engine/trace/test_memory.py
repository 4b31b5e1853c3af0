"""Tensors whose contents change without an operation that returns them: out=, lists, x.data = y, exchanged tensors."""

import pytest
import torch
from torch import nn

import netslim


def block(ins, outs):
    return nn.Sequential(nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU())


class Net(nn.Module):
    """Two blocks; what is between them is `code`'s."""

    def __init__(self, code):
        super().__init__()
        self.code = code
        self.a, self.b, self.head, self.register = block(3, 8), block(8, 8), nn.Linear(8, 4), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.head(self.b(self.code(self, self.a(x))).mean((2, 3)))


def into_a_view(net, y):
    room = y.new_zeros(len(y), 12, *y.shape[2:])
    torch.add(y, 1.0, out=room[:, 2:10])
    return room[:, 2:10]


def into_a_pair(net, y):
    values, places = y.new_zeros(len(y), *y.shape[2:]), torch.zeros(len(y), *y.shape[2:], dtype=torch.long)
    torch.max(y, 1, out=(values, places))
    return y + values[:, None]


def into_a_list(net, y):
    parts = y.clone()
    torch._foreach_add_([parts[:, :4], parts[:, 4:]], 1.0)
    return parts


def into_lists(net, y):
    z = torch.zeros_like(y)
    torch._foreach_copy_([z], [y + 1])
    return z


def data_set(net, y):
    y.data = y.data * 2 + 1
    return y


def data_of_a_weight(net, y):
    weight = net.register.weight
    weight.data = weight.data / weight.data.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return net.register(y)


def exchanged(net, y):
    z = y * 2 + 1
    torch.utils.swap_tensors(y, z)
    return y - z


CODES = [into_a_view, into_a_pair, into_a_list, into_lists, data_set, data_of_a_weight, exchanged]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.__name__)
@pytest.mark.parametrize("scatter", [False, True])
def test_what_is_written_otherwise(code, scatter, oracle, images):
    x = images(8)
    with torch.no_grad():  # out= and exchanges have no gradient
        model = oracle.lively(Net(code), x)
    keep = {"a.1": torch.arange(8) % 2 == 0, "b.1": torch.arange(8) > 2}
    small, masked = netslim.slim(model, keep, x, scatter=scatter), netslim.mask(model, keep)
    assert oracle.deviation(masked, small, x) < 1e-9


def test_a_buffer_whose_data_is_set_is_an_output(oracle, images):
    def code(net, y):
        net.last.data = y.detach().mean((0, 2, 3))
        return y

    x = images(8)
    model = Net(code)
    model.register_buffer("last", torch.zeros(8))
    oracle.lively(model, x)
    keep = {"a.1": torch.arange(8) < 4}
    small, masked = netslim.slim(model, keep, x), netslim.mask(model, keep)
    small(x), masked(x)
    torch.testing.assert_close(small.last, masked.last)


def test_tensors_that_are_compared(oracle, images):
    x = images(8)
    model = oracle.lively(Net(lambda s, y: y * 2 if torch.equal(y, y.clone()) else y), x)
    oracle.prove(model, {"a.1": torch.arange(8) < 4}, x)


ENDS = [lambda y: (y[:, -3:], y[:, :-3]), lambda y: (y[:, 2:-2], y[:, -4:]), lambda y: (y[:, -6:-2], y[:, -4:])]


@pytest.mark.parametrize("parts", ENDS)
def test_slices_counted_from_the_back(parts, oracle, images):
    x = images(8)
    model = oracle.lively(Net(lambda s, y: torch.cat(parts(y), 1)), x)
    keep = netslim.select_channels(model, 0.4, x)
    oracle.prove(model, keep, x)
    oracle.prove(model, {"a.1": torch.arange(8) % 3 == 0}, x)
