"""Rescaling by hand on toys, and outputs before and after on whole networks."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import netslim
from netslim.engine import Rescaled
from netslim.nets import VGG, DenseNet, PreResNet

D = torch.float64
X = torch.linspace(-1, 1, 2 * 3 * 6 * 6, dtype=D).sin().reshape(2, 3, 6, 6)


def filled(model: nn.Module) -> nn.Module:
    """In float64 and eval mode; γ of each layer of a size of its own."""
    torch.manual_seed(0)
    for i, layer in enumerate(netslim.bn_layers(model.double().eval()).values()):
        layer.weight.data = torch.randn_like(layer.weight) * 0.5 ** (i + 1)
        layer.bias.data = torch.randn_like(layer.bias) * 0.5 ** (i + 1)
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
    return model


def equal_outputs(model: nn.Module, x: torch.Tensor) -> Rescaled:
    """Rescale, and compare the outputs in eval mode; and in training with an eps that does not count."""
    before, other = model(x), copy.deepcopy(model)
    done = netslim.rescale(model, x)
    torch.testing.assert_close(model(x), before, rtol=1e-9, atol=1e-9 * before.abs().max().item())
    for layer in [*netslim.bn_layers(model).values(), *netslim.bn_layers(other).values()]:
        layer.eps = 1e-30
    torch.testing.assert_close(model.train()(x), other.train()(x), rtol=1e-7, atol=1e-7)
    layers = netslim.bn_layers(model.eval())
    assert set(done) | set(done.left) == set(layers)
    return done


def test_by_hand():
    """conv, BN, ReLU, conv with a BN behind, and a convolution that gives the output."""
    net = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)
    )
    net = filled(net)
    net[1].weight.data, net[4].weight.data = torch.tensor([0.1, -0.3], dtype=D), torch.tensor([0.05, 0.05], dtype=D)
    old = copy.deepcopy(net)
    done = netslim.rescale(net, X)
    assert done == pytest.approx({"1": 5.0, "4": 20.0})
    assert done.left == {}
    close = torch.testing.assert_close
    close(net[1].weight, 5 * old[1].weight)
    close(net[1].bias, 5 * old[1].bias)
    close(net[3].weight, old[3].weight)  # its channels are read by a BN layer, which divides 5 out
    close(net[3].bias, 5 * old[3].bias)
    close(net[4].running_mean, 5 * old[4].running_mean)
    close(net[4].running_var, 25 * (old[4].running_var + 1e-5) - 1e-5)
    close(net[4].weight, 20 * old[4].weight)
    close(net[5].weight, old[5].weight / 20)
    close(net[5].bias, old[5].bias)
    assert str(done) == "rescaled 2 of 2 BatchNorm layers"


class Block(nn.Module):
    """Two branches that are added; `activation` of the sum."""

    def __init__(self, activation=F.relu):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.b = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.out = nn.Linear(4, 2)
        self.activation = activation

    def forward(self, x):
        return self.out(self.activation(self.a(x) + self.b(x)).mean((2, 3)))


class Twice(nn.Module):
    """One layer that is called twice, a slope per channel, a gate, zeros between the channels, channel by channel."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.slope, self.gate = nn.PReLU(4), nn.Linear(4, 4)
        self.depthwise, self.grouped = nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 4, 1, groups=2)
        self.last = nn.ConvTranspose2d(6, 2, 2, groups=2)

    def forward(self, x):
        y = self.slope(self.norm(self.first(x)))
        y = self.slope(self.norm(0.5 * y))
        y = y * self.gate(y.amax((2, 3))).sigmoid()[:, :, None, None]
        y = self.grouped(self.depthwise(F.avg_pool2d(y, 2, 1)))
        return self.last(F.pad(y, (0, 0, 0, 0, 1, 1)))


def test_coupled_layers_have_one_factor():
    net = filled(Block())
    sizes = torch.cat([net.a[1].weight, net.b[1].weight]).abs().mean().item()
    assert equal_outputs(net, X) == pytest.approx({"a.1": 1 / sizes, "b.1": 1 / sizes})


def test_layers_of_all_kinds():
    net = filled(Twice())
    before = net.norm.weight.abs().mean().item()
    assert equal_outputs(net, X) == pytest.approx({"norm": 1 / before})


@pytest.mark.parametrize(
    ("activation", "why"),
    [
        (F.silu, "silu"),
        (F.relu6, "hardtanh"),
        (lambda x: x + 1, "add"),
        (lambda x: x * x, "mul"),
        (lambda x: x.to(torch.int32).to(x.dtype), "_to_copy"),
        (lambda x: F.layer_norm(x, x.shape[1:]), "native_layer_norm"),
    ],
)
def test_what_is_not_homogeneous(activation, why):
    net = filled(Block(activation))
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.warns(UserWarning, match=f"rescaled 0 of 2 BatchNorm layers \\(2 held by {why}\\)"):
        done = netslim.rescale(net, X)
    assert (done, done.left) == ({}, {"a.1": why, "b.1": why})
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_an_output_holds_its_layer():
    net = filled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)))
    assert equal_outputs(net, X).left == {"3": "output"}


def test_a_variance_never_gets_negative():
    """Where c < 1 would make one negative, the weights divide; where there are none, the layer is left."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)
    )
    net = filled(net)
    net[1].weight.data.fill_(2.0)
    net[3].running_var.zero_()
    weight = net[2].weight.clone()
    assert "1" in equal_outputs(net, X)
    torch.testing.assert_close(net[2].weight, weight * 2)
    straight = filled(nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1)))
    straight[0].weight.data.fill_(2.0)
    straight[1].running_var.zero_()
    done = equal_outputs(straight, X)
    assert (set(done), done.left) == ({"1"}, {"0": "the size of 1.running_var"})


def test_a_layer_of_zeros_has_no_size():
    net = filled(nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)))
    net[1].weight.data.zero_()
    with pytest.warns(UserWarning, match="1 held by γ = 0"):
        netslim.rescale(net, X)


@pytest.mark.parametrize("coupling", ["keep", "group", "scatter"])
@pytest.mark.parametrize(
    "build",
    [lambda: VGG([8, "M", 16, "M", 16]), lambda: PreResNet(11), lambda: DenseNet(13)],
    ids=["vgg", "pre", "dense"],
)
def test_slim_networks_of_the_paper(build, coupling, oracle, images):
    x = images(16)
    model = oracle.lively(build(), x)
    for i, layer in enumerate(netslim.bn_layers(model).values()):
        layer.weight.data *= 0.8**i
    small = netslim.slim(model, netslim.select_channels(model, 0.4, x, coupling=coupling, floor=2), x)
    assert len(equal_outputs(small, x)) > len(netslim.bn_layers(small)) / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["resnet18", "densenet121", "res2net50_26w_4s", "regnety_002", "skresnet18", "dla34", "mobilenetv3_small_050"],
)
def test_networks_of_others(name, oracle, images):
    """Half of the layers of a MobileNetV3 are held by its activation."""
    x = images(64)
    timm = pytest.importorskip("timm")
    made = torchvision.models.get_model(name) if name == "resnet18" else timm.create_model(name, num_classes=10)
    model = oracle.lively(made, x)
    small = netslim.slim(model, netslim.select_channels(model, 0.5, x, floor=2), x)
    before = small(x)
    done = netslim.rescale(small, x)
    torch.testing.assert_close(small(x), before, rtol=1e-9, atol=1e-9 * before.abs().max().item())
    assert len(done) > 0.4 * len(netslim.bn_layers(small))
