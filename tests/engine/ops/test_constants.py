"""Numbers that the code makes of a width, in whatever form: the slim network computes with the dense network's."""

import numpy as np
import pytest
import torch
from torch import nn

import netslim


def block(ins, outs):
    return nn.Sequential(nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU())


class Scaled(nn.Module):
    """The features of the first block are multiplied by what `constant` makes of them."""

    def __init__(self, constant):
        super().__init__()
        self.constant = constant
        self.a, self.b, self.head = block(3, 8), block(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        y = self.a(x)
        return self.head(self.b(y * self.constant(y)).mean((2, 3)))


OF_WIDTH = {
    "torch.tensor": lambda y: torch.tensor(float(y.shape[1])),
    "torch.tensor of a list": lambda y: torch.tensor([float(y.shape[1])]),
    "torch.tensor on its device": lambda y: torch.tensor(y.shape[1], device=y.device),
    "new_tensor": lambda y: y.new_tensor(y.shape[1]),
    "new_full": lambda y: y.new_full((1,), y.shape[1] ** -0.5),
    "full": lambda y: torch.full((1, 1, 1, 1), y.shape[1] ** -0.5, dtype=y.dtype),
    "fill_": lambda y: torch.empty(1, dtype=y.dtype).fill_(y.shape[1]),
    "its root": lambda y: torch.sqrt(torch.tensor(y.shape[1], dtype=y.dtype)),
    "a sum": lambda y: torch.ones(y.shape[1], dtype=y.dtype).sum(),
    "one of a row": lambda y: torch.linspace(0, 1, y.shape[1], dtype=y.dtype)[1],
    "one in a slice": lambda y: written(torch.zeros(2, dtype=y.dtype), y.shape[1]),
    "NumPy": lambda y: torch.from_numpy(np.array([y.shape[1]])),
}


def written(row, number):
    row[1:] = number
    return row[1]


@pytest.mark.parametrize("name", OF_WIDTH)
def test_a_number_made_of_a_width_holds_it(name, oracle, images):
    x = images(8)
    model = oracle.lively(Scaled(OF_WIDTH[name]), x)
    keep = netslim.select_channels(model, 0.5, x)
    assert list(keep) == ["b.1"]
    oracle.prove(model, {"a.1": torch.arange(8) < 5}, x)


OTHERS = [
    lambda: torch.tensor(0.5),
    lambda: torch.tensor([0.5]),
    lambda: torch.arange(3).sum(),
    lambda: torch.ones(2, 2)[0, 0],
]


@pytest.mark.parametrize("constant", OTHERS)
def test_a_number_of_another_origin_holds_nothing(constant, oracle, images):
    x = images(8)
    model = oracle.lively(Scaled(lambda y: constant().to(y)), x)
    keep = netslim.select_channels(model, 0.5, x)
    assert keep.prunable == 16
    oracle.prove(model, keep, x)


def test_a_width_that_is_returned(oracle, images):
    class Returned(Scaled):
        def forward(self, x):
            return super().forward(x), self.constant(self.a(x)).expand(len(x), 1)

    x = images(8)
    model = oracle.lively(Returned(lambda y: torch.full((1,), y.shape[1], dtype=y.dtype)), x)
    small = netslim.slim(model, {"a.1": torch.arange(8) < 5}, x)
    assert small(x)[1].unique() == 8


def normalised(net, y):
    return nn.functional.group_norm(net.b(y), 4, eps=float(y.shape[1]))


def product(net, y):
    means = net.b(y).mean((2, 3))
    return torch.addmm(net.head.bias, means, net.head.weight.t(), alpha=y.shape[1])[..., None, None].repeat(1, 2, 1, 1)


@pytest.mark.parametrize("code", [normalised, product])
def test_a_width_among_the_arguments_of_an_operation(code, oracle, images):
    class Called(Scaled):
        def forward(self, x):
            return self.head(code(self, self.a(x)).mean((2, 3)))

    x = images(8)
    model = oracle.lively(Called(None), x)
    oracle.prove(model, {"a.1": torch.arange(8) < 5}, x)
