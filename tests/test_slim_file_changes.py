"""Slim networks that were changed after slimming, and files of before: what is saved comes back."""

import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.fusion import fuse_conv_bn_eval

import netslim
from netslim.nets import VGG, PreResNet
from tests.test_slim_file import FILES, X, lively, slimmed, vgg


def with_head(make):
    def change(small):
        small.classifier = make(small.classifier.in_features)

    return change


def fused(small):
    small.features[0] = fuse_conv_bn_eval(small.features[0], small.features[1])
    small.features[1] = nn.Identity()


def one_more(small):
    small.features.append(nn.Conv2d(small.classifier.in_features, 8, 1, padding="same"))
    small.classifier = nn.Linear(8, 5)


def two_layers(n):
    return nn.Sequential(nn.Linear(n, 6), nn.BatchNorm1d(6, eps=1e-3), nn.ReLU(), nn.Dropout(0.1), nn.Linear(6, 3))


CHANGES = {
    "head": with_head(lambda n: nn.Linear(n, 3)),
    "head without bias": with_head(lambda n: nn.Linear(n, 3, bias=False)),
    "head of two layers": with_head(two_layers),
    "head named": with_head(lambda n: nn.Sequential(nn.ModuleDict({"a": nn.Linear(n, 3)})["a"], nn.Softmax(dim=1))),
    "no head": with_head(lambda n: nn.Identity()),
    "fused": fused,
    "activation": lambda small: small.features.__setitem__(2, nn.LeakyReLU(0.3)),
    "activation with slopes": lambda small: small.features.__setitem__(2, nn.PReLU(small.features[0].out_channels)),
    "another eps": lambda small: setattr(small.features[1], "eps", 0.5),
    "one more": one_more,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_put_in_is_saved(name, tmp_path):
    small = slimmed(vgg(), ratio=0.55)
    CHANGES[name](small)
    torch.manual_seed(1)
    for p in small.parameters():
        p.data += 0.01 * torch.randn_like(p)
    path = tmp_path / "small.pt"
    netslim.save(small, path)
    for dense in (vgg(), vgg(3) if name.startswith("head") else vgg()):  # the old head or another
        loaded = netslim.load(path, dense)
        assert torch.equal(loaded.eval()(X), small.eval()(X))
        assert [type(m) for m in loaded.modules()] == [type(m) for m in small.modules()]
        netslim.save(loaded, path)
        assert torch.equal(netslim.load(path, dense).eval()(X), small(X))
    loaded.train()(torch.cat([X, X])).sum().backward()
    assert all(p.grad is not None and not p.is_meta for p in loaded.parameters())


def test_slimmed_again_with_another_head(tmp_path):
    first = slimmed(vgg(), ratio=0.4)
    first.classifier = two_layers(first.classifier.in_features)
    lively(first)
    twice = slimmed(first, ratio=0.4)
    assert twice.classifier[0].out_features < 6
    netslim.save(twice, tmp_path / "twice.pt")
    assert torch.equal(netslim.load(tmp_path / "twice.pt", vgg()).eval()(X), twice(X))


def test_modules_that_were_taken_out(tmp_path):
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.auxiliary = VGG([8, 16], in_channels=1, num_classes=5), VGG([8], in_channels=1)

        def forward(self, x):
            return (self.main(x), self.auxiliary(x)) if hasattr(self, "auxiliary") else self.main(x)

    small = slimmed(lively(Auxiliary()))
    del small.auxiliary
    netslim.save(small, tmp_path / "small.pt")
    assert torch.equal(netslim.load(tmp_path / "small.pt", lively(Auxiliary()))(X), small(X))


class Own(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.linear = nn.Linear(n, 3)

    def forward(self, x):
        return self.linear(x)


UNSAVABLE = {
    "own class": (with_head(Own), r"classifier \(Own\) was changed after slimming"),
    "own class within": (with_head(lambda n: nn.Sequential(Own(n))), r"classifier \(Sequential\) was changed"),
    "parametrised": (with_head(lambda n: parametrizations.weight_norm(nn.Linear(n, 3))), r"classifier \(Param"),
    "own parameter": (lambda small: setattr(small, "more", nn.Parameter(torch.zeros(2))), r"the network \(VGG\) was"),
    "another shape": (
        lambda small: setattr(small.classifier, "weight", nn.Parameter(torch.zeros(2, small.classifier.in_features))),
        r"classifier \(Linear\) was changed",
    ),
}


@pytest.mark.parametrize("name", UNSAVABLE)
def test_what_no_file_could_hold_is_refused_when_it_is_saved(name, tmp_path):
    change, match = UNSAVABLE[name]
    small = slimmed(vgg())
    change(small)
    with pytest.raises(ValueError, match=match) as error:
        netslim.save(small, tmp_path / "small.pt")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


class Preactivated(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv, self.last, self.head = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.conv(torch.relu(self.bn(x)))
        return self.head(torch.relu(self.last(x)).mean((2, 3)))


Preactivated.__name__ = "Pre"  # as it was called when the file was written


OLD = {
    "slim_1.pt": (
        lambda: VGG([6, "M", 8], in_channels=1, num_classes=3),
        [[-0.0028830550, 0.0008295663, -0.0021286306], [0.0008309489, 0.0013173833, -0.0032445109]],
    ),
    "slim_1_selecting.pt": (
        Preactivated,
        [[-0.2515015304, 0.3043730259, -0.2690368891], [-0.1930852830, 0.1294482350, -0.0882723331]],
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_files_of_before_load(name, tmp_path):
    """They say nothing of settings, nor what came out; saved again, they do."""
    build, expected = OLD[name]
    small = netslim.load(FILES / name, build()).eval()
    torch.testing.assert_close(small(X), torch.tensor(expected), rtol=0, atol=1e-6)
    small.head = nn.Linear(1, 1)
    netslim.save(small, tmp_path / "again.pt")
    assert netslim.load(tmp_path / "again.pt", build()).head.in_features == 1


def test_hooks_under_their_former_name():
    """Whole networks that were pickled name them."""
    from netslim.engine.cut.select_scatter import select_input

    assert pickle.loads(b"cnetslim.slim.hooks\nselect_input\n.") is select_input


def test_a_selecting_and_scattering_network_survives_a_new_head(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    small = slimmed(lively(PreResNet(11)), x)
    small.classifier = nn.Linear(small.classifier.in_features, 3)
    netslim.save(small, tmp_path / "small.pt")
    assert torch.equal(netslim.load(tmp_path / "small.pt", PreResNet(11)).eval()(x), small(x))
