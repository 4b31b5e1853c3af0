"""What lies around a BN layer. Oracles: ``count`` of the network before and after a cut, and the weights themselves."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

import netslim
from netslim.engine import channel_macs
from netslim.engine.decide.connections import connections
from netslim.engine.verify.analyse import analyse
from netslim.method.scores import Reader
from netslim.modules import Network


class Net(nn.Module):
    """Two convolutions with BatchNorm; what comes behind them is the subclass's."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(3, width, 1), nn.BatchNorm2d(width)
        self.make()

    def make(self) -> None: ...


class Flat(Net):
    def make(self):
        self.conv2, self.bn2 = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
        self.head = nn.Linear(5 * 4, 3)

    def forward(self, x):
        x = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


class Cat(Net):
    groups = 1

    def make(self):
        self.head, self.up = nn.Conv2d(8, 6, 3, groups=self.groups), nn.ConvTranspose2d(4, 5, 2)

    def forward(self, x):
        a, b = torch.relu(self.bn1(self.conv1(x))), torch.relu(self.bn2(self.conv2(x)))
        return self.head(torch.cat([a, b], 1)), self.up(b)


class Grouped(Cat):
    groups = 2


class Sum(Net):
    def make(self):
        self.head = nn.Conv2d(4, 3, 3)

    def forward(self, x):
        return self.head(torch.relu(self.bn1(self.conv1(x)) + self.bn2(self.conv2(x))))


class Depthwise(Net):
    def make(self):
        self.deep, self.bn2, self.head = nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        return self.head(torch.relu(self.bn2(self.deep(torch.relu(self.bn1(self.conv1(x)))))))


X = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def around(model: nn.Module) -> Mapping[str, list[Reader]]:
    network = Network(model)
    found = connections(network, analyse(network, X))
    return {name: list(each.readers) for name, each in found.items()}


def squares(weight: Tensor) -> Tensor:
    """(O, I), summed over the kernel."""
    return weight.detach().double().square().flatten(2).sum(2)


def check(reader: Reader, energy: Tensor, norm: nn.Module | None = None) -> None:
    torch.testing.assert_close(reader.energy, energy.double())
    if norm is None:
        assert reader.variance is None
    else:
        assert reader.variance is not None
        torch.testing.assert_close(reader.variance, norm.running_var.double() + norm.eps)  # type: ignore[operator]


@pytest.mark.parametrize("kind", [Flat, Depthwise, Cat], ids=lambda kind: kind.__name__)
def test_a_channel_costs_what_is_saved_with_it(kind):
    model = kind().eval()
    dense = netslim.count(model, X).macs
    for name, costs in channel_macs(model, X).items():
        keep = {name: torch.ones(len(costs), dtype=torch.bool)}
        keep[name][0] = False
        if kind is Depthwise:  # a channel of the first layer and its two of the second are one
            keep = {"bn1": torch.tensor([False, True, True, True]), "bn2": torch.tensor([False] * 2 + [True] * 6)}
        saved = dense - netslim.count(netslim.slim(model, keep, X), X).macs
        assert costs[0].item() == saved > 0


def test_a_flat_linear_layer_has_several_columns_per_channel():
    torch.manual_seed(0)
    model = Flat()
    model.bn2.running_var.uniform_(1, 2)
    (conv,), (head,) = (found for found in around(model).values())
    check(conv, squares(model.conv2.weight), model.bn2)
    check(head, model.head.weight.detach().double().square().reshape(3, 5, 4).sum(2))


def test_groups_and_transposed_weights():
    torch.manual_seed(0)
    model = Grouped()
    (first,), (second, up) = around(model).values()
    whole = squares(model.head.weight)
    check(first, torch.cat([whole[:3], torch.zeros(3, 4)]))
    check(second, torch.cat([torch.zeros(3, 4), whole[3:]]))
    check(up, squares(model.up.weight).T)


def test_what_is_added_is_read_by_all_that_reads_the_sum():
    torch.manual_seed(0)
    model = Sum()
    for (reader,) in around(model).values():
        check(reader, squares(model.head.weight))


def test_a_depthwise_convolution_reads_each_channel_alone():
    torch.manual_seed(0)
    model = Depthwise()
    (deep,), (head,) = around(model).values()
    expected = torch.zeros(8, 4, dtype=torch.float64)
    for out in range(8):
        expected[out, out // 2] = model.deep.weight[out].detach().double().square().sum()
    check(deep, expected, model.bn2)
    check(head, squares(model.head.weight))
