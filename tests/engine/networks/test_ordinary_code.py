"""What people write in forward: heads that concatenate levels, masks and indices that are viewed, maxima, modes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netslim


def block(ins, outs):
    return nn.Sequential(nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU())


class Net(nn.Module):
    """A block of eight channels and some heads; `code` is its forward."""

    def __init__(self, code):
        super().__init__()
        self.code = code
        self.a, self.c, self.d = block(3, 8), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)
        self.l, self.m, self.table = nn.Linear(8, 4), nn.Linear(8, 2), nn.Embedding(1000, 3)
        self.matrix, self.bias = nn.Parameter(torch.randn(8, 4)), nn.Parameter(torch.randn(4))

    def forward(self, *args):
        return self.code(self, *args)


def choose(x):
    return torch.where(x > 0.1, x, torch.zeros_like(x))


def stacked(x):
    return torch.stack([x, x.square()])


def pixels(x):
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, x.shape[1])


IMAGES = {
    "levels joined along space": lambda s, x: torch.cat([s.c(s.a(z)).flatten(2) for z in (x, F.max_pool2d(x, 2))], 2),
    "levels joined along anchors": lambda s, x: torch.cat([pixels(s.c(s.a(z))) for z in (x, F.max_pool2d(x, 2))], 1),
    "two heads joined along the batch": lambda s, x: torch.cat([s.c(s.a(x)), s.d(s.a(x))], 0),
    "halves joined along height": lambda s, x: s.l(torch.cat([s.a(x[:, :, :4]), s.a(x[:, :, 4:])], 2).mean((2, 3))),
    "joined with the input": lambda s, x: torch.cat([s.c(s.a(x))[:, :3], x], 2),
    "mask of the input": lambda s, x: s.c(s.a(x) * (x[:, 0] > 0).unsqueeze(1)),
    "max over pixels": lambda s, x: s.l(s.a(x).flatten(2).max(2)[0]),
    "min over pixels": lambda s, x: s.l(s.a[:2](x).flatten(2).min(2).values + s.a[:2](x * 2).amin((2, 3))),
    "spread over pixels": lambda s, x: s.l(s.a(x).std((2, 3)) + s.a(x).var((2, 3))),
    "linear interpolation": lambda s, x: s.l(F.interpolate(s.a(x).flatten(2), scale_factor=2.0, mode="linear").mean(2)),
    "nearest-exact": lambda s, x: s.c(F.interpolate(s.a(x), scale_factor=2.0, mode="nearest-exact")),
    "reflection": lambda s, x: s.l(F.pad(s.a(x).flatten(2), (2, 1), mode="reflect").mean(2)),
    "chosen": lambda s, x: s.c(choose(s.a(x))),
    "chosen by the input": lambda s, x: s.c(torch.where(x[:, :1] > 0, s.a(x), 0.0)),
    "masked": lambda s, x: s.l(s.a(x).masked_fill(x[:, :1] > 0, 0.0).mean((2, 3))),
    "maximum of branches": lambda s, x: s.c(stacked(s.a(x)).max(0).values),
    "mean and variance": lambda s, x: s.l(sum(torch.var_mean(s.a(x), (2, 3)))),
    "pixels weighted by the input": lambda s, x: s.l(torch.einsum("bchw,bhw->bc", s.a(x), x[:, 0].exp())),
    "a matrix of one's own": lambda s, x: s.a(x).mean((2, 3)) @ s.matrix,
    "a matrix, its outputs first": lambda s, x: s.a(x).mean((2, 3)) @ s.l.weight.T,
    "a matrix and a bias": lambda s, x: torch.addmm(s.bias, s.a(x).mean((2, 3)), s.matrix),
    "a matrix at every pixel": lambda s, x: s.a(x).permute(0, 2, 3, 1) @ s.matrix,
    "pooled with indices": lambda s, x: s.l(F.max_pool1d(s.a(x).flatten(2), 2).mean(2)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(name, oracle, images):
    x = images(8)
    model = oracle.lively(Net(IMAGES[name]), x)
    keep = netslim.select_channels(model, 0.5, x)
    assert (keep.prunable, keep.held_back) == (8, {})
    assert oracle.prove(model, keep, x).a[0].out_channels == 4


def test_tensors_that_are_no_channels_can_be_moved(oracle, images):
    x, mask = images(8), torch.rand(4, 8, 8) > 0.5
    model = oracle.lively(Net(lambda s, x, m: (s.c(s.a(x) * m.unsqueeze(1)), m[:, None])), (x, mask))
    oracle.prove(model, netslim.select_channels(model, 0.5, (x, mask)), (x, mask), train=False)
    raw = torch.randint(256, (4, 8, 8, 3), dtype=torch.uint8)
    model = oracle.lively(Net(lambda s, x: s.c(s.a(x.permute(0, 3, 1, 2).flip(3).double() / 255))), raw)
    oracle.prove(model, netslim.select_channels(model, 0.5, raw), raw)
    words = torch.randint(1000, (4, 8, 8))
    look_up = lambda s, t: s.c(s.a(s.table(t.view(-1)).view(4, 8, 8, 3).permute(0, 3, 1, 2)))  # noqa: E731
    model = oracle.lively(Net(look_up), words)
    oracle.prove(model, netslim.select_channels(model, 0.5, words), words)


def means(net, x):
    return net.a(x).mean((2, 3))


MODES = {  # what a network does in eval mode, and in training; the channels that can leave
    "softmax": (lambda s, x: s.l(means(s, x).softmax(1)), lambda s, x: s.l(means(s, x)), 0),
    "centred": (lambda s, x: s.l(means(s, x) - means(s, x).mean(1, keepdim=True)), lambda s, x: s.l(means(s, x)), 0),
    "a number made from the width": (
        lambda s, x: s.l(means(s, x) * means(s, x).shape[1] ** -0.5),
        lambda s, x: s.l(means(s, x)),
        0,
    ),
    "one head more": (lambda s, x: (s.l(means(s, x)), s.m(means(s, x))), lambda s, x: s.l(means(s, x)), 8),
    "features": (lambda s, x: (s.l(means(s, x)), s.a(x)), lambda s, x: s.l(means(s, x)), 0),
    "dropout": (lambda s, x: s.c(s.a(x)), lambda s, x: s.c(F.dropout(s.a(x), 0.0)), 8),
}


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("training", [True, False])
def test_code_that_asks_for_its_mode(name, training, oracle, images):
    """Equal in the mode in which the model was not analysed first, too."""
    evaluate, train, free = MODES[name]
    x = images(8)
    model = oracle.lively(Net(lambda s, x: (train if s.training else evaluate)(s, x)), x).train(training)
    keep = netslim.select_channels(model, 0.5, x, coupling="keep" if free else "scatter")
    assert keep.prunable == 8
    small, masked = netslim.slim(model, keep, x), netslim.mask(model, keep)
    for mode in (True, False):
        assert oracle.deviation(masked.train(mode), small.train(mode), x) < 1e-9
    if not free:
        with pytest.raises(ValueError, match="can lose channels"):
            netslim.select_channels(model, 0.5, x)


def test_code_that_cannot_train_without_targets(oracle, images):
    """As torchvision's detectors: analysed in eval mode alone."""

    def forward(net, x):
        if net.training:
            raise ValueError("targets should not be none")
        return net.c(net.a(x))

    x = images(8)
    model = Net(forward).double().eval()
    for layer in netslim.bn_layers(model).values():
        nn.init.normal_(layer.weight)
    keep = netslim.select_channels(model, 0.5, x)
    assert oracle.deviation(netslim.mask(model, keep), netslim.slim(model, keep, x), x) < 1e-9


def test_nobody_sees_how_the_mode_is_watched(images):
    netslim.select_channels(Net(lambda s, x: s.c(s.a(x))), 0.5, images(8).float())
    assert "training" not in vars(nn.Module)
    with pytest.raises(ValueError, match="does not run"):
        netslim.select_channels(Net(lambda s, x: s.c(x)), 0.5, images(8).float())
    assert "training" not in vars(nn.Module)


def test_a_width_that_is_read_before_its_layer_runs(oracle, images):
    """FiLM: a layer that is not pruned is viewed by the width of one that is."""

    def film(net, x):
        scale = net.film(x.mean((2, 3))).view(-1, 2, net.a[0].out_channels)
        return net.c(torch.relu(scale[:, 0, :, None, None] * net.a[:2](x) + scale[:, 1, :, None, None]))

    x = images(8)
    model = Net(film)
    model.film = nn.Linear(3, 16)
    oracle.lively(model, x)
    with pytest.raises(ValueError, match=r"can lose channels .8 by view"):
        netslim.select_channels(model, 0.5, x, coupling="scatter")
    oracle.prove(model, {"a.1": torch.arange(8) < 5}, x)
