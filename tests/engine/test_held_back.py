"""What cannot be followed costs compression, is named, and is never wrong: the limits that the README tells."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import netslim


class Network(nn.Module):
    """Two stages with an operation between them."""

    def __init__(self, between, **layers):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.head, self.between = nn.Linear(6, 4), between
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.head(self.b(self.between(self, self.a(x))).mean((2, 3)))


def attention(_, x):
    tokens = x.flatten(2).transpose(1, 2)
    return (F.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens).transpose(1, 2).reshape(x.shape)


def along_channels(model, x):
    return x * model.gate(x.mean((2, 3))[:, None]).sigmoid().transpose(1, 2)[..., None]


def logged():
    network = Network(lambda _, x: x)
    network.a.register_forward_hook(log)
    return network


def log(module, args, out):
    float(out.detach().mean())


BARRIERS = {
    "attention": (lambda: Network(attention), "bmm"),
    "layer norm": (
        lambda: Network(lambda m, x: m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.LayerNorm(8)),
        "native_layer_norm",
    ),
    "group norm": (lambda: Network(lambda m, x: m.norm(x), norm=nn.GroupNorm(2, 8)), "native_group_norm"),
    "convolution along channels": (lambda: Network(along_channels, gate=nn.Conv1d(1, 1, 3, padding=1)), "convolution"),
    "sort": (lambda: Network(lambda _, x: x.sort(dim=1).values), "sort"),
    "a hook that reads numbers": (logged, "_local_scalar_dense"),
}


@pytest.mark.parametrize("name", BARRIERS)
def test_a_barrier_keeps_its_channels(name, oracle, images):
    build, held = BARRIERS[name]
    x = images(8)
    model = oracle.lively(build(), x)
    keep = netslim.select_channels(model, 0.5, x)
    assert list(keep) == ["b.1"]
    assert keep.held_back == {held: 8}
    oracle.prove(model, keep, x)
    own = {"a.1": torch.arange(8) % 2 == 0, **keep}  # asked for all the same: nothing shrinks there, nothing breaks
    assert oracle.prove(model, own, x).b[0].in_channels == 8


def test_the_streams_of_a_shufflenet_stay_whole(oracle, images):
    x = images(32)
    model = oracle.lively(torchvision.models.shufflenet_v2_x0_5(num_classes=10), x)
    keep = netslim.select_channels(model, 0.5, x, coupling="group")
    layers = netslim.bn_layers(model)
    stream = {name for name in layers if name.endswith(("branch1.3", "branch2.6"))}  # what a unit writes
    assert layers.keys() - keep.keys() == stream
    assert keep.held_back == {"coupled": sum(layers[name].num_features for name in stream)}


def test_what_is_not_zero_where_its_input_is_names_itself(images):
    """Nothing is coupled here: a removed channel would be 0.5 behind the sigmoid."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Sigmoid(), nn.Conv2d(8, 2, 1)).double()
    with pytest.raises(ValueError, match=r"can lose channels .8 by sigmoid"):
        netslim.select_channels(model, 0.5, images(8))


def test_layers_that_are_not_run_are_named(images):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)).double()
    model[0].average = nn.BatchNorm2d(5).double()
    keep = netslim.select_channels(model, 0.5, images(8))
    assert (keep.prunable, keep.held_back) == (8, {"not run with the example input": 5})
