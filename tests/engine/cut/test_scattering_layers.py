"""Which layers scatter, which stay coupled, and what stands around them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netslim
from netslim.engine.cut import emit
from tests.engine.cut.test_select_scatter import Add, scattering


class Activated(nn.BatchNorm2d):
    def forward(self, x):
        return F.silu(super().forward(x)) + 1.0


class WithActivation(nn.BatchNorm2d):
    """As in timm; 0 does not stay 0."""

    def __init__(self, channels, act=None):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), act or nn.Sigmoid()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


def test_the_scatter_stands_between_a_layer_and_its_own_activation(oracle, images):
    x = images(4)
    model = oracle.lively(Add(WithActivation), x)
    keep = netslim.select_channels(model, 0.5, x, coupling="scatter")
    small = oracle.prove(model, keep, x)
    assert list(scattering(small)) == ["norm.act"]
    assert small.conv.out_channels == 2
    again = netslim.select_channels(small, 0.5, x)
    assert oracle.prove(small, again, x).conv.out_channels == 1


class SharedActivation(Add):
    """The activation of the layer is also called elsewhere."""

    def __init__(self):
        super().__init__()
        self.act = nn.SiLU()
        self.norm = WithActivation(4, self.act)

    def forward(self, x):
        return super().forward(self.act(x))


class Twice(Add):
    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.norm(self.conv(x)) + self.norm(x))


class Mixer(Add):
    """As in ConvMixer: what the layer reads is the stream's, so only its own γ and β would be saved."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.first = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.first(self.stem(x))
        return self.head(x + self.norm(F.gelu(self.conv(x))))


class Borrowed(Add):
    """Computes with the layer's tensors, without calling it: a hook would not run."""

    def forward(self, x):
        x, norm = self.stem(x), self.norm
        y = F.batch_norm(self.conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, self.training)
        return self.head(x + y)


@pytest.mark.parametrize("build", [lambda: Add(Activated), SharedActivation, Twice, Mixer, Borrowed])
def test_layers_that_cannot_scatter_stay_coupled(build, oracle, images):
    x = images(4)
    model = oracle.lively(build(), x)
    if isinstance(model, Mixer):
        keep = netslim.select_channels(model, 0.25, x, coupling="scatter")
        assert (list(keep), keep.held_back) == (["first"], {"coupled": 4})
        assert list(scattering(oracle.prove(model, keep, x))) == ["first"]
    else:
        with pytest.raises(ValueError, match=r"can lose channels .*with coupling='scatter'"):
            netslim.select_channels(model, 0.5, x, coupling="scatter")


def test_own_hooks_see_the_whole_stream(oracle, images):
    x = images(4)
    model = oracle.lively(Add(), x)
    seen = []
    model.norm.register_forward_hook(lambda _, __, y: seen.append(y.shape[1]))
    small = netslim.slim(model, netslim.select_channels(model, 0.5, x, coupling="scatter"), x)
    seen.clear()
    small(x)
    assert (seen, small.norm.num_features) == ([4], 2)


def test_the_proof_sees_a_wrong_place(oracle, images, monkeypatch):
    right = emit.scatters

    def wrong(*args):
        return {name: (owner, places.flip(0), width) for name, (owner, places, width) in right(*args).items()}

    monkeypatch.setattr(emit, "scatters", wrong)
    x = images(4)
    with pytest.raises(ValueError, match="4 by native_batch_norm"):
        netslim.select_channels(oracle.lively(Add(), x), 0.5, x, coupling="scatter")


@pytest.mark.parametrize(
    "read",
    [lambda norm: norm.weight.abs().sum(), lambda norm: norm.bias.norm(), lambda norm: norm.running_mean.sum()],
)
def test_a_layer_whose_tensors_are_read_elsewhere_too_stays_whole(read, oracle, images):
    """As where a network returns its own penalty."""

    class Penalised(Add):
        def forward(self, x):
            return super().forward(x), read(self.norm)[None, None].expand(len(x), 1)

    x = images(4)
    model = oracle.lively(Penalised(), x)
    mask = {"norm": torch.tensor([True, False, True, False])}
    small, masked = netslim.slim(model, mask, x, scatter=True), netslim.mask(model, mask)
    assert small.conv.out_channels == 4
    torch.testing.assert_close(small(x), masked(x))
    with pytest.raises(ValueError, match="no BatchNorm layer of Penalised can lose channels"):
        netslim.select_channels(model, 0.5, x, coupling="scatter")


class DropPath(nn.Module):
    """A leaf that asks in which mode it is: the network is run in both."""

    def forward(self, x):
        return x * torch.full_like(x[:1, :1], 2.0) if self.training else x


class Dropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), DropPath()) for _ in range(2)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean((2, 3)))


def test_layers_that_are_called_once_in_each_mode_scatter(oracle, images):
    x = images(8)
    keep = netslim.select_channels(oracle.lively(Dropped(), x), 0.5, x, coupling="scatter")
    assert keep.scattering.keys() >= {"blocks.0.1", "blocks.1.1"}
    assert (keep.prunable, keep.removed) == (24, 12)
    oracle.prove(oracle.lively(Dropped(), x), keep, x)
