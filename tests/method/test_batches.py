"""Which parts of a batch are forward's arguments. Oracle: what the network is seen to be called with."""

from __future__ import annotations

from collections import UserDict, namedtuple

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import netslim
from netslim.method.batches import arguments

Pair = namedtuple("Pair", ["x", "y"])


class One(nn.Module):
    def forward(self, x):
        return x


class Optional(nn.Module):
    def forward(self, x, mask=None):
        return x


class Two(nn.Module):
    def forward(self, image, depth, *, scale=1.0):
        return image


class AllOptional(nn.Module):
    """As HuggingFace's models are."""

    def forward(self, pixels=None, labels=None, **more):
        return pixels


class Any(nn.Module):
    def forward(self, *inputs):
        return inputs[0]


class ByName(nn.Module):
    def forward(self, x, *, scale):
        return x


@pytest.mark.parametrize(
    ("model", "batch", "positional", "named"),
    [
        (One(), "x", ("x",), {}),
        (One(), ["x", "y"], ("x",), {}),
        (One(), ("x", "y"), ("x",), {}),
        (One(), ["x"], ("x",), {}),
        (One(), ["x", "y", "index"], ("x",), {}),
        (One(), {"x": 1, "label": 2}, (), {"x": 1}),
        (One(), UserDict({"x": 1, "label": 2}), (), {"x": 1}),
        (One(), [{"x": 1}, "y"], (), {"x": 1}),
        (One(), Pair(1, 2), (1,), {}),
        (Optional(), ["x", "y"], ("x",), {}),
        (Optional(), ("x", "mask"), ("x", "mask"), {}),
        (Optional(), ("x", "mask", "y"), ("x",), {}),
        (Optional(), {"x": 1, "mask": 2, "label": 3}, (), {"x": 1, "mask": 2}),
        (Two(), ["image", "depth", "y"], ("image", "depth"), {}),
        (Two(), ("image", "depth"), ("image", "depth"), {}),
        (Two(), [["image", "depth"], "y"], ("image", "depth"), {}),
        (Two(), ({"image": 1, "depth": 2, "scale": 3, "id": 4}, "y"), (), {"image": 1, "depth": 2, "scale": 3}),
        (AllOptional(), ["pixels", "y"], ("pixels",), {}),
        (AllOptional(), {"pixels": 1, "extra": 2}, (), {"pixels": 1, "extra": 2}),
        (Any(), ["x", "y"], ("x",), {}),
        (Any(), ("x", "y"), ("x", "y"), {}),
        (nn.Linear(2, 2), ["x", "y"], ("x",), {}),
        (nn.Sequential(), ["x", "y"], ("x",), {}),
    ],
)
def test_arguments(model, batch, positional, named):
    assert arguments(model, batch) == (positional, named)


@pytest.mark.parametrize(
    ("model", "batch", "line"),
    [
        (One(), {"image": 1, "label": 2}, r"forward\(x\) of One cannot be called with a batch of 'image', 'label'"),
        (Two(), {"image": 1}, r"forward\(image, depth\) of Two cannot be called with a batch of 'image'"),
        (Two(), ["image"], r"requires 2 arguments \(image, depth\), a batch has 1"),
        (One(), [], "a batch has 0"),
        (One(), {}, "a batch of no entry"),
        (ByName(), ["x", "y"], r"forward of ByName requires scale by its name"),
    ],
)
def test_what_cannot_be_told_is_refused(model, batch, line):
    with pytest.raises(ValueError, match=line):
        arguments(model, batch)


class Images(nn.Module):
    """Takes images by name, and an optional mask."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, image, mask=None):
        return self.norm(image if mask is None else image * mask)


class Dictionaries(TensorDataset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return {"label": label, "image": image}


@pytest.mark.parametrize("kind", [TensorDataset, Dictionaries])
def test_a_data_loader_as_it_is(kind):
    images = torch.randn(12, 3, 4, 4, dtype=torch.float64)
    model = Images().double()
    netslim.recalibrate(model, DataLoader(kind(images, torch.arange(12)), 4))
    torch.testing.assert_close(model.norm.running_mean, images.mean((0, 2, 3)))


def endless():
    while True:
        yield [torch.ones(2, 3, 4, 4), torch.zeros(2)]


def test_so_many_steps_of_an_endless_stream():
    model = Images()
    netslim.recalibrate(model, endless(), steps=3)
    assert int(model.norm.num_batches_tracked) == 3


@pytest.mark.parametrize(
    ("model", "batches", "line"),
    [
        (Images(), torch.zeros(4, 3, 4, 4), r"got one Tensor: \[x\]"),
        (Images(), {"image": torch.zeros(4, 3, 4, 4)}, "got one dict"),
        (
            Images(),
            [{"x": torch.zeros(4, 3, 4, 4)}],
            r"forward\(image\) of Images cannot be called with a batch of 'x'",
        ),
    ],
)
def test_recalibrate_refuses(model, batches, line):
    with pytest.raises(ValueError, match=line):
        netslim.recalibrate(model, batches)


def test_after_an_error_in_a_later_batch_the_statistics_are_the_old_ones():
    model = Images()
    with pytest.raises(ValueError, match="expected 4D input"):
        netslim.recalibrate(model, [torch.randn(4, 3, 4, 4), torch.randn(4, 3)])
    assert model.norm.running_mean.tolist() == [0, 0, 0]
    assert int(model.norm.num_batches_tracked) == 0
