"""Random chains of the blocks that published networks are made of, written as their authors write them.

What the engine cannot follow must cost compression and nothing else: here most chains hold something of the kind.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import netslim
from tests.engine.networks.blocks import (
    BLOCKS,
    EVEN,
    FUNCTIONS,
    Block,
    conv,
)

NAMES = sorted([*BLOCKS, *BLOCKS, *EVEN, *FUNCTIONS])


class Chain(nn.Module):
    """A stem, the blocks, a head. link 1: adds an earlier result of the same shape, 2: appends an earlier result."""

    def __init__(self, steps: list[tuple[str, int]]) -> None:
        super().__init__()
        self.stem, self.blocks, self.links = conv(3, 8, 3), nn.ModuleList(), []
        x, seen = self.stem(torch.randn(2, 3, 4, 4)), []
        for name, link in steps:
            c = x.shape[1]
            if name in FUNCTIONS:
                block = Block(lambda _, x, f=FUNCTIONS[name]: f(x))
            else:
                block = {**BLOCKS, **EVEN}["convolution" if name in EVEN and c % 2 else name](c)
            self.blocks.append(block)
            y = block(x)
            fits = [i for i, t in enumerate(seen) if (link == 1 and t.shape == y.shape) or (link == 2 and c < 32)]
            self.links.append((link, fits[0]) if fits else (0, 0))
            seen.append(x)
            x = self.joined(y, seen, *self.links[-1])
        self.last, self.head = nn.BatchNorm2d(x.shape[1]), nn.Linear(x.shape[1], 3)

    def joined(self, y: Tensor, seen: list[Tensor], link: int, other: int) -> Tensor:
        return y + seen[other] if link == 1 else torch.cat([seen[other], y], 1) if link == 2 else y

    def forward(self, x: Tensor) -> Tensor:
        x, seen = self.stem(x), []
        for block, link in zip(self.blocks, self.links, strict=True):
            y = block(x)
            seen.append(x)
            x = self.joined(y, seen, *link)
        return self.head(F.relu(self.last(x)).mean((2, 3)))


def check(steps: list[tuple[str, int]], seed: int, share: float, how: str) -> None:
    """Slim equals masked, in both modes, for any mask and for those that the engine chooses."""
    torch.manual_seed(seed)
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    model = Chain(steps).double().eval()
    for bn in netslim.bn_layers(model).values():
        for tensor in (bn.weight, bn.bias, bn.running_mean):
            nn.init.normal_(tensor)
    keep = {name: torch.rand(len(bn.weight)) >= share for name, bn in netslim.bn_layers(model).items()}
    if how != "any":
        try:
            keep = netslim.select_channels(model, share, x, coupling=how)
        except ValueError:  # nothing could leave, or not so much
            return
    small, masked = netslim.slim(model, keep, x, scatter=bool(seed % 2)), netslim.mask(model, keep)
    with torch.no_grad():
        for training in (False, True):
            a, b = masked.train(training)(x), small.train(training)(x)
            assert float((a - b).abs().max()) <= 1e-8 * (float(a.abs().max()) + 1e-3)


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 3)), min_size=1, max_size=6),
    st.integers(0, 9999),
    st.sampled_from([0.2, 0.5, 0.8]),
    st.sampled_from(["any", "keep", "group", "scatter"]),
)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_chains_of_blocks(steps, seed, share, how):
    check(steps, seed, share, how)


@pytest.mark.parametrize("name", sorted({*BLOCKS, *EVEN, *FUNCTIONS}))
def test_each_block(name):
    for how in ("any", "keep", "group", "scatter"):
        check([("convolution", 0), (name, 0), ("convolution", 0)], 0, 0.5, how)


@pytest.mark.parametrize(
    "steps",
    [
        [("glu", 0), ("spatial", 2)],  # one number per pixel times channels that cannot be followed
        [("outer product", 0), ("dense", 2)],  # the same with a parameter
        [("dense", 0), ("layer norm", 0)],  # a selection of channels that are last in memory
        [("flat norm", 0), ("flat norm", 2)],  # each channel as 16 features, which others read too
        [("largest", 0), ("softmax", 2), ("prelu", 2), ("shuffle", 2), ("twice", 1), ("turned memory", 3)],
    ],
)
def test_once_wrong_or_refused(steps):
    for seed in range(4):
        for how in ("any", "keep", "group", "scatter"):
            check(steps, seed, 0.5, how)
