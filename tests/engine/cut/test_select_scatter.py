"""coupling="scatter": every BN layer is pruned for itself, in residual streams too."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import netslim
from netslim.engine import Selection


class Add(nn.Module):
    """x + bn(conv(x)), by hand: 1x1 convolutions, one pixel."""

    def __init__(self, norm=nn.BatchNorm2d):
        super().__init__()
        self.stem, self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), norm(4)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.norm(self.conv(x)))


def scattering(small):
    """Names of the layers that scatter -> their places."""
    return {n.rpartition(".")[0]: b.tolist() for n, b in small.named_buffers() if n.endswith("channel_place")}


def half_dead(model):
    """Half of each layer's γ set to 0, at random: the zeros of the writers of a stream seldom meet."""
    dead = set()
    for name, layer in netslim.bn_layers(model).items():
        gone = torch.randperm(len(layer.weight))[: len(layer.weight) // 2]
        layer.weight.data[gone] = 0.0
        dead |= {(name, i) for i in gone.tolist()}
    return dead


def removed(keep):
    return {(name, i) for name, stays in keep.items() for i in (~stays).nonzero().flatten().tolist()}


def test_by_hand(oracle, images):
    x = images(4)
    model = oracle.lively(Add(), x)
    model.norm.weight.data = torch.tensor([0.1, -0.9, 0.8, -0.2]).double()
    keep = netslim.select_channels(model, 0.5, x, coupling="scatter")
    assert keep["norm"].tolist() == [False, True, True, False]
    assert (keep.prunable, keep.removed, keep.held_back, keep.delivered["channels"]) == (4, 2, {}, 0.5)
    small = oracle.prove(model, keep, x)
    assert torch.equal(small.conv.weight, model.conv.weight[1:3])
    assert torch.equal(small.stem.weight, model.stem.weight)
    assert scattering(small) == {"norm": [1, 2]}
    y = small.norm(small.conv(small.stem(x)))
    assert torch.equal(y[:, [0, 3]], torch.zeros(4, 2, 4, 4).double())
    with pytest.raises(ValueError, match=r"can lose channels .*4 by coupled"):
        netslim.select_channels(model, 0.5, x)


def test_no_live_channel_is_lost_in_a_residual_network(oracle, images):
    """Half of all γ are dead, half of all channels are asked for: the dead ones go, and all of them leave for real."""
    x = images(32)
    model = oracle.lively(torchvision.models.resnet18(num_classes=10), x)
    dead = half_dead(model)
    keep = netslim.select_channels(model, 0.5, x, coupling="scatter")
    assert removed(keep) == dead
    assert (keep.prunable, keep.removed, keep.carried) == (4800, 2400, 0)
    small = oracle.prove(model, keep, x)
    assert {n: b.num_features for n, b in netslim.bn_layers(small).items()} == {
        n: int(k.sum()) for n, k in keep.items()
    }
    both = netslim.select_channels(model, 0.5, x, coupling="group")
    assert len(removed(both) - dead) > 400


def test_a_stream_channel_that_nobody_writes_goes(oracle, images):
    x = images(32)
    model = oracle.lively(torchvision.models.resnet18(num_classes=10), x)
    for name in ("bn1", "layer1.0.bn2", "layer1.1.bn2"):
        model.get_submodule(name).weight.data[:32] = 0.0
    keep = netslim.select_channels(model, 96 / 4800, x, coupling="scatter")
    small = oracle.prove(model, keep, x)
    assert small.layer1[0].conv1.in_channels == 32
    assert scattering(small) == {}  # all writers lose the same


def test_the_outputs_own_channels_can_leave(oracle, images):
    """Nothing may take a channel from the output, nor from a layer norm; a 0 in its place will do."""
    x = images(8)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Flatten(2), nn.LayerNorm(64), nn.Conv1d(8, 6, 1))
    model.append(nn.BatchNorm1d(6))
    oracle.lively(model, x)
    keep = netslim.select_channels(model, 0.5, x, coupling="scatter")
    assert keep.prunable == 14
    small = oracle.prove(model, keep, x)
    assert small(x).shape == model(x).shape
    assert small[0].out_channels + small[4].out_channels == 7


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layout_and_dtype_stay(layout, dtype, oracle, images):
    x = images(8)
    model = oracle.lively(Add(), x).to(dtype=dtype, memory_format=layout)
    x = x.to(dtype=dtype, memory_format=layout)
    small = netslim.slim(model, netslim.select_channels(model, 0.5, x, coupling="scatter"), x)
    y = small.norm(small.conv(small.stem(x)))
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=layout)
    torch.testing.assert_close(
        small(x), netslim.mask(model, netslim.select_channels(model, 0.5, x, coupling="scatter"))(x)
    )


def test_again_with_any_coupling(oracle, images):
    """A network that scatters is slimmed like any other: its layers have channels of their own already."""
    x = images(32)
    model = oracle.lively(torchvision.models.resnet18(num_classes=10), x)
    once = netslim.slim(model, netslim.select_channels(model, 0.4, x, coupling="scatter"), x)
    for coupling in ("keep", "group", "scatter"):
        keep = netslim.select_channels(once, 0.3, x, coupling=coupling)
        assert keep.prunable == 2880 == sum(len(b.weight) for b in netslim.bn_layers(once).values())
        twice = oracle.prove(once, keep, x, train=coupling == "keep")
        assert sum(b.num_features for b in netslim.bn_layers(twice).values()) == 2880 - 864


def test_what_was_selected_before_the_weights_changed_still_scatters(oracle, images):
    """Without the proof, from a copy: the analysis is done again."""
    x = images(8)
    model = oracle.lively(Add(), x)
    keep = copy.deepcopy(netslim.select_channels(model, 0.5, x, coupling="scatter"))
    model.head = nn.Conv2d(4, 2, 1).double()
    assert list(scattering(oracle.prove(model, keep, x))) == ["norm"]


def test_masks_of_ones_own(oracle, images):
    """Any criterion may choose; without scatter the stream needs all channels of its writers."""
    x = images(32)
    model = oracle.lively(torchvision.models.resnet18(num_classes=10), x)
    keep = {name: torch.rand(len(layer.weight)) < 0.5 for name, layer in netslim.bn_layers(model).items()}
    whole, parts = netslim.slim(model, keep, x), netslim.slim(model, keep, x, scatter=True)
    assert oracle.deviation(whole, parts, x) < 1e-9
    assert {n: b.num_features for n, b in netslim.bn_layers(parts).items()} == {
        n: int(k.sum()) for n, k in keep.items()
    }
    assert scattering(whole) == {}
    by_hand = netslim.slim(model, Selection(keep), x)
    assert oracle.deviation(whole, by_hand, x) < 1e-9


def test_a_layer_without_channels_carries_one(oracle, images):
    """Its place in the stream is carried too, though no other layer writes there."""
    x = images(32)
    model = oracle.lively(torchvision.models.resnet18(num_classes=10), x)
    first = {name: torch.arange(64) >= 32 for name in ("bn1", "layer1.0.bn2")}
    keep = {**first, "layer1.1.bn2": torch.zeros(64, dtype=torch.bool)}
    small = netslim.slim(model, keep, x, scatter=True)
    assert oracle.deviation(netslim.mask(model, keep), small, x) < 1e-9
    assert (small.layer1[1].bn2.num_features, small.bn1.num_features, small.layer2[0].conv1.in_channels) == (1, 32, 33)


def test_a_stream_that_has_become_as_narrow_as_its_layers(oracle, images):
    """The hooks stay, with new places; where nobody writes any more, nothing is read."""
    x = images(32)
    model = oracle.lively(torchvision.models.resnet18(num_classes=10), x)
    half = torch.arange(64) % 2 == 0
    once = netslim.slim(model, {"layer1.0.bn2": half, "layer1.1.bn2": half}, x, scatter=True)
    assert set(scattering(once)) == {"layer1.0.bn2", "layer1.1.bn2"}
    twice = oracle.prove(once, {"bn1": half}, x)
    assert scattering(twice) == {"layer1.0.bn2": list(range(32)), "layer1.1.bn2": list(range(32))}
    assert twice.layer2[0].conv1.in_channels == 32


def test_pixels_of_channels_last_images_lie_side_by_side(oracle, images):
    """Run with numbers, because of the index: what the hook returns can be viewed as pixels on the tape too."""

    class Pixels(Add):
        def forward(self, x, index):
            y = self.norm(self.conv(self.stem(x))).permute(0, 2, 3, 1)
            y = F.layer_norm(y.view(-1, y.shape[-1]), y.shape[-1:]).view(y.shape)
            return self.head(y.permute(0, 3, 1, 2)[index])

    x = {"x": images(4).contiguous(memory_format=torch.channels_last), "index": torch.tensor([3, 2, 1, 0])}
    model = Pixels().double().to(memory_format=torch.channels_last).eval()
    keep = netslim.select_channels(model, 0.5, x, coupling="scatter")
    assert list(keep) == ["norm"]
    assert scattering(oracle.prove(model, keep, x)).keys() == {"norm"}
