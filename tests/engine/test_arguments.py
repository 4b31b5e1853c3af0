"""Wrong arguments are answered in one line with the value and the remedy, and the model is left as it was."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import netslim

KEEP = {"1": torch.arange(8) % 2 == 0}
X = torch.zeros(2, 3, 8, 8)


def toy():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 4, 3))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = toy()

    def forward(self, x, y):
        return self.body(x + y)


@pytest.mark.parametrize(
    ("example", "match"),
    [
        (torch.zeros(2, 4, 8, 8), r"does not run on the example input \[float32 \(2, 4, 8, 8\) on cpu\].*3 channels"),
        (torch.zeros(2, 3, 2, 2), r"\(2, 3, 2, 2\) on cpu\].*[Kk]ernel size"),
        (X.double(), r"example input \[float64 \(2, 3, 8, 8\) on cpu\]"),
        (X.long(), r"example input \[int64"),
        (X.to("meta"), r"example input \[float32 \(2, 3, 8, 8\) on meta\].*meta"),
        (None, "example_input is missing: give a batch"),
        ([X], r"a tuple gives positional, a dict keyword arguments\): TypeError"),
        ({"image": X}, "a dict keyword arguments.: TypeError: .*unexpected keyword argument 'image'"),
        ((X, X), "TypeError: .*takes 2 positional arguments but 3"),
        (np.zeros((2, 3, 8, 8)), r"example input \[\].*ndarray"),
    ],
)
def test_inputs(example, match, refused):
    model = toy()
    model[1].eval()
    refused(
        model, match, lambda: netslim.select_channels(model, 0.5, example), lambda: netslim.slim(model, KEEP, example)
    )


def test_a_second_input_is_missing(refused):
    model, keep = Two(), {"body.1": KEEP["1"]}
    assert netslim.slim(model, keep, (X, X)).body[0].out_channels == 4
    refused(model, "missing 1 required positional argument: 'y'", lambda: netslim.slim(model, keep, X))


@pytest.mark.parametrize(
    ("keep", "match"),
    [
        ({"nine": KEEP["1"]}, r"keep names 'nine', which is no BatchNorm layer of Sequential \(it has '1'"),
        ({"0": KEEP["1"]}, "keep names '0', which is no BatchNorm layer"),
        ({"1": KEEP["1"][1:]}, r"keep\['1'\] must be a bool tensor of shape \(8,\), got torch.bool \(7,\)"),
        ({"1": torch.ones(8)}, r"got torch.float32 \(8,\)"),
        ({"1": [True] * 8}, "got list"),
        ({"1": KEEP["1"].to("meta")}, r"keep\['1'\] is on the meta device.*give it on the CPU"),
        ([KEEP["1"]], "keep must map names of BatchNorm layers to bool tensors, got list"),
    ],
)
def test_masks(keep, match, refused):
    model = toy()
    refused(model, match, lambda: netslim.slim(model, keep, X), lambda: netslim.mask(model, keep))


NUMBERS = [
    *(({"ratio": value}, r"ratio must be in \[0, 1\), got") for value in (1.0, -0.1, math.nan, float("inf"), "0.5")),
    *(({"ratio": 0.5, "floor": value}, "floor must be 0 or more channels, got") for value in (-1, 1.5, "2", None)),
    *(({"ratio": 0.5, "round_to": value}, "round_to must be 1 or more channels, got") for value in (0, -8, 1.5, "8")),
    *(({"target_macs": value}, r"target_macs must be in \(0, 1\], got") for value in (0, -1, 1.1, math.nan, "0.5")),
    ({"target_macs": 0.01}, r"target_macs 0.01 is out of reach: at least 0\.\d+ of the multiply-adds stay"),
    ({"ratio": 0.9, "floor": 2}, r"highest reachable ratio is 0\.75"),
    ({"ratio": 0.5, "target_macs": 0.5}, "give either ratio or target_macs"),
    ({}, "give either ratio or target_macs"),
    ({"ratio": 0.5, "coupling": "all"}, "coupling must be one of keep, group, scatter, got 'all'"),
]


@pytest.mark.parametrize(
    ("arguments", "match"), NUMBERS, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_numbers(arguments, match, refused):
    model = toy()
    refused(model, match, lambda: netslim.select_channels(model, example_input=X, **arguments))
