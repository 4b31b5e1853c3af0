"""Hundreds of random small networks: slim == masked, whatever the keep masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import netslim

KINDS = (
    "conv", "conv", "grouped", "depthwise", "norm", "norm", "act", "act", "residual", "residual", "dense", "gate",
    "squeeze", "pool", "chunk", "slice", "split", "shuffle", "stack", "scale", "bias", "pad", "sort", "transposed",
)  # fmt: skip
ACTS = (F.relu, F.silu, torch.sigmoid, F.hardswish, torch.tanh, F.gelu, lambda x: F.relu(x, inplace=True))


class Layer(nn.Module):
    """One step (N, C, H, W) -> (N, D, H, W); `seen` are earlier results, one of which is the partner."""

    def __init__(self, kind: str, channels: int, number: int) -> None:
        super().__init__()
        self.kind, self.out, self.partner = kind, channels, None
        self.number = 1260 + number  # far from all numbers of channels, so that it is not taken for one
        c, d = channels, 4 * (1 + number % 3)
        if kind == "conv":
            self.op, self.out = nn.Conv2d(c, d, 1 + 2 * (number % 2), padding=number % 2, bias=number % 4 == 0), d
        elif kind == "transposed":
            self.op, self.out = nn.ConvTranspose2d(c, d, 3, padding=1, groups=1 + number % 2, bias=False), d
        elif kind == "grouped":
            self.op, self.out = nn.Conv2d(c, d, 3, padding=1, groups=2, bias=number % 2 == 0), d
        elif kind == "depthwise":
            m = 1 + number % 2
            self.op, self.out = nn.Conv2d(c, m * c, 3, padding=1, groups=c, bias=number % 3 == 0), m * c
        elif kind == "norm":
            self.op = nn.BatchNorm2d(c)
        elif kind == "squeeze":
            self.op = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(c, 4, 1),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.Conv2d(4, c, 1),
                nn.Sigmoid(),
            )
        elif kind == "split":
            self.size, self.sizes = c // 2, [2, c - 4, 2]
        elif kind in ("scale", "bias"):
            self.factor = nn.Parameter(torch.randn(1, c, 1, 1))

    def forward(self, x: Tensor, seen: list[Tensor]) -> Tensor:
        n, c, h, w = x.shape
        if self.partner is None:  # decided once, by the dense network
            same = [i for i, s in enumerate(seen) if s.shape == x.shape] or [-1]
            self.partner = same[self.number % len(same)]
        partner = [*seen, x][self.partner]
        match self.kind:
            case "act":
                return ACTS[self.number % len(ACTS)](x * 1.0)
            case "residual":
                return x + partner
            case "dense":
                return torch.cat([partner, x], 1)
            case "gate":
                return x * torch.sigmoid(partner) if self.number % 2 else x * partner
            case "squeeze":
                return x * self.op(x)
            case "pool":
                return F.max_pool2d(x, 3, 1, 1) if self.number % 2 else F.avg_pool2d(x, 3, 1, 1)
            case "chunk":
                a, b = x.chunk(2, 1)
                return torch.cat([b, a], 1) if self.number % 2 else torch.cat([a, a + b], 1)
            case "slice":
                return torch.cat([x[:, 2:], x[:, :2]], 1) if self.number % 2 else x[:, : c // 2] - x[:, c // 2 :]
            case "split":
                parts = x.split(self.sizes if self.number % 2 else self.size, 1)
                return torch.cat([parts[-1], *parts[1:-1], torch.tanh(parts[0])], 1)
            case "shuffle":
                return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            case "stack":
                return torch.stack([x, partner], 1).sum(1)
            case "scale":
                return x * self.factor
            case "bias":
                return x + self.factor
            case "pad":
                return F.pad(x, (0, 0, 0, 0, 2, 2))
            case "sort":
                return x.sort(1).values
        return self.op(x)


class Network(nn.Module):
    def __init__(self, steps: list[tuple[str, int]], head: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers, channels = nn.ModuleList(), 8
        for kind, number in steps:
            if channels % 4 or (kind in ("dense", "pad", "depthwise") and channels > 24):
                kind = "norm"
            layer = Layer(kind, channels, number)
            self.layers.append(layer)
            channels = layer.out
            if kind == "dense":
                channels = 0
            if kind == "slice" and not number % 2:
                channels //= 2
            if kind == "pad":
                channels += 4
            if not channels:  # depends on the partner: ask the network itself
                channels = self.features(torch.zeros(2, 3, 4, 4)).shape[1]
        self.last = nn.BatchNorm2d(channels)
        self.head, self.linear = head, nn.Linear(channels * (16 if head == "flatten" else 1), 3)

    def features(self, x: Tensor) -> Tensor:
        x, seen = self.stem(x), []
        for layer in self.layers:
            result = layer(x, seen)
            seen.append(x)
            x = result
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.last(self.features(x)))
        return self.linear(x.flatten(1) if self.head == "flatten" else x.mean((2, 3)))


steps = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 11)), min_size=2, max_size=9)


@given(
    steps,
    st.sampled_from(["flatten", "mean"]),
    st.integers(0, 9999),
    st.sampled_from([0.2, 0.5, 0.8]),
    st.sampled_from(["any", "group", "scatter"]),
)
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
def test_slim_equals_masked(oracle, steps, head, seed, share, how):
    torch.manual_seed(seed)
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    model = oracle.lively(Network(steps, head), x)
    keep = {name: torch.rand(len(bn.weight)) >= share for name, bn in netslim.bn_layers(model).items()}
    if how != "any":
        try:
            keep = netslim.select_channels(model, share / 2, x, coupling=how)
        except ValueError:
            return
    small, masked = netslim.slim(model, keep, x, scatter=bool(seed % 2)), netslim.mask(model, keep)
    for mode in (False, True):
        a, b = masked.train(mode)(x), small.train(mode)(x)
        scale = float(a.detach().abs().max()) + 1e-3
        assert float((a - b).detach().abs().max()) < 1e-9 * scale
    gradients = [
        torch.autograd.grad(net(x).square().sum(), net.stem.weight, allow_unused=True)[0] for net in (masked, small)
    ]
    if masked.stem.weight.shape == small.stem.weight.shape and gradients[0] is not None:
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-7, atol=1e-7 * float(gradients[0].abs().max()))


@given(steps, st.integers(0, 9999), st.sampled_from(["keep", "group", "scatter"]))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_delivered_rises_with_the_ratio(steps, seed, coupling):
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 4, 4)
    model = Network(steps, "mean").eval()
    model(x)
    for layer in netslim.bn_layers(model).values():
        layer.weight.data.normal_()
    last, removed = {"channels": 0.0, "parameters": 0.0, "macs": 0.0}, 0
    for ratio in (0.1, 0.3, 0.5, 0.7):
        try:
            keep = netslim.select_channels(model, ratio, x, coupling=coupling)
        except ValueError:  # out of reach
            return
        assert removed <= keep.removed
        removed = keep.removed
        if keep.proof.proved.frozen or keep.carried:  # parts that would differ at this ratio, though not at another
            continue
        assert all(last[what] <= share + 1e-12 for what, share in keep.delivered.items())
        last = keep.delivered


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"norm"}))
def test_every_kind_of_step_can_run(kind, oracle):
    """Each kind between two BN layers; those with a rule lose channels for real."""
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    body = [("conv", 1), ("norm", 0), (kind, 1), ("conv", 5)]
    model = oracle.lively(Network(body, "mean"), x)
    keep = {name: torch.arange(len(bn.weight)) % 4 > 1 for name, bn in netslim.bn_layers(model).items()}
    small = oracle.prove(model, keep, x)
    if kind not in ("sort", "pad", "bias", "residual", "dense", "stack", "slice"):
        assert len(small.layers[1].op.weight) < len(model.layers[1].op.weight), "nothing left"


def test_a_value_and_its_relu_are_different_channels(oracle):
    """Found by the test above: both in one concatenation, read through a selection."""
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    model = oracle.lively(Network([("pad", 0), ("act", 0), ("dense", 0)], "flatten"), x)
    for share in (0.2, 0.5, 0.8):
        oracle.prove(model, {"last": torch.rand(24) >= share}, x)


@pytest.mark.parametrize("reader", ["depthwise", "residual"])
def test_a_tensor_that_nothing_is_known_of_is_so_for_all_who_read_it(reader, oracle):
    """Found by the test above: part of a sorted tensor, read by tanh, then by what numbers it anew."""
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    model = oracle.lively(Network([("sort", 0), ("split", 0), (reader, 0), ("dense", 1)], "flatten"), x)
    oracle.prove(model, netslim.select_channels(model, 0.2, x), x)


def test_channels_stay_in_their_group_after_a_shuffle(oracle):
    """Found by the test above: a grouped transposed convolution behind a channel shuffle."""
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    model = oracle.lively(Network([("grouped", 2), ("shuffle", 0), ("norm", 0), ("transposed", 1)], "mean"), x)
    for gone in ([4, 7], [0, 6], [1, 8], [0, 1, 6, 7]):
        keep = torch.ones(12, dtype=torch.bool)
        keep[gone] = False
        oracle.prove(model, {"layers.2.op": keep}, x)


def test_one_channel_of_each_group_can_be_left(oracle):
    """It then looks like a depthwise convolution, with several outputs per channel."""
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    layers = [nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.BatchNorm2d(12)]
    model = oracle.lively(nn.Sequential(*layers, nn.Flatten(), nn.Linear(48, 3)), x)
    small = oracle.prove(model, {"1": torch.arange(8) % 2 > 0, "4": torch.arange(12) % 3 > 0}, x)
    assert small[3].weight.shape == (8, 1, 3, 3)
