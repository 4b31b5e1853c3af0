"""A network, and all around it, is what it was, also after a refusal; and no generator has moved."""

import functools
import random

import numpy as np
import pytest
import torch
from torch import nn

import netslim

legacy = np.random  # its global generator, which is what people use


def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())


class Net(nn.Module):
    """change(self, y) -> y, and whatever it does beside."""

    def __init__(self, change):
        super().__init__()
        self.change = change
        self.first, self.second, self.head = block(3, 16), block(16, 16), nn.Linear(16, 5)
        self.calls, self.seen, self.cache, self.nested = 0, [], {}, {"a": [1, {"b": 2}]}
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(16))
        self.python, self.numpy = random.Random(3), np.random.default_rng(3)
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x):
        return self.head(self.second(self.change(self, self.first(x))).mean((2, 3)))


STORE, KNOWN = {}, []


@functools.lru_cache
def remembered(n, kind):
    return torch.full((n,), 2.0).type(kind)


@functools.cache
def remembered_by(net, device):
    return torch.ones((), device=device)


def counts(net, y):
    net.calls += 1
    net.steps += 1
    net.nested["a"][1]["b"] += 1
    return y


def updates(net, y):
    net.mean.mul_(0.9).add_(0.1 * y.detach().mean((0, 2, 3)))
    return y


def fills(net, y):
    if "one" not in net.cache:
        net.cache["one"] = y.new_ones(())
    return y * net.cache["one"]


def makes(net, y):
    if not hasattr(net, "scale"):
        net.scale = torch.ones((), device=y.device, dtype=y.dtype)
        net.late = nn.Identity()
    return y * net.scale


def fills_global(net, y):
    if y.shape[1] not in STORE:
        STORE[y.shape[1]] = y.new_ones(()), [1]
        KNOWN.append(("one", y.new_ones(())))
    return y * STORE[y.shape[1]][0]


def writes_parameter(net, y):
    with torch.no_grad():
        net.head.weight.mul_(0.5)
        net.head.bias.data.add_(1)
        net.first[0].weight.requires_grad_(False)
    return y


def writes_numpy(net, y):
    net.head.weight.detach().numpy()[:] = 0
    return y


def switches(net, y):
    net.second.eval()
    net.head.train()
    return y


def hooks(net, y):
    net.head.register_forward_hook(lambda *_: None)
    return y


def learns(net, y):
    net.head.bias.grad = torch.ones_like(net.head.bias)
    return y


def draws(net, y):
    gates = [random.random(), net.python.random(), legacy.rand(), net.numpy.random()]
    gates += [float(torch.rand(())), float(torch.rand((), generator=net.generator))]
    return sum(y * gate for gate in gates) if net.training else y


def fails(net, y):
    net.calls += 1
    STORE["failed"] = y
    raise RuntimeError("cannot run")


CHANGES = [counts, updates, fills, makes, fills_global, writes_parameter, writes_numpy, switches, hooks, learns, draws]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_slimming_leaves_no_trace(change, images, assert_untouched):
    x = images(8)
    model = Net(change).double().eval()
    for layer in netslim.bn_layers(model).values():
        layer.weight.data.uniform_(0.3, 1.3)
    with assert_untouched(model, x, random.getstate, np.random.get_state, lambda: (STORE, KNOWN)):
        keep = netslim.select_channels(model, 0.5, x)
        small = netslim.slim(model, keep, x)
        netslim.mask(model, keep)
        netslim.count(model, x)
    assert keep.removed > 0
    STORE.clear(), KNOWN.clear()
    masked = netslim.mask(model, keep)
    for net in (small, masked):
        random.seed(0), legacy.seed(0), torch.manual_seed(0)
        STORE.clear(), KNOWN.clear()
        net.result = net(x)
    torch.testing.assert_close(small.result, masked.result, rtol=0, atol=1e-9)
    model(x).sum().backward()
    STORE.clear(), KNOWN.clear()


def test_nor_does_a_refusal(images, assert_untouched):
    x = images(8)
    model = Net(fails).double()
    with assert_untouched(model, x, random.getstate, lambda: (STORE, KNOWN)):
        for call in (netslim.select_channels, netslim.count):
            with pytest.raises(ValueError, match="cannot run"):
                call(model, example_input=x, **({} if call is netslim.count else {"ratio": 0.5}))


def test_caches_of_functions_hold_no_tensor_of_a_recording(images):
    """A constant without values would break the network itself."""
    x = images(8)

    def cached(net, y):
        return y * remembered(1, y.type()) * remembered_by(None, y.device)

    model = Net(cached).double().eval()
    keep = netslim.select_channels(model, 0.5, x)
    small, masked = netslim.slim(model, keep, x), netslim.mask(model, keep)
    torch.testing.assert_close(small(x), masked(x), rtol=0, atol=1e-9)
    remembered.cache_clear(), remembered_by.cache_clear()


def test_hooks_collect_for_their_owner_alone(images, assert_untouched):
    x = images(8)
    model = Net(lambda net, y: y).double().eval()
    features, counted, by_name = [], {"calls": 0}, {"head": []}
    model.first.register_forward_hook(lambda module, args, out: features.append((module, out.detach())))
    model.second.register_forward_pre_hook(lambda *_: counted.update(calls=counted["calls"] + 1))
    model.head.register_forward_hook(lambda module, args, out: by_name["head"].append(out))
    model.head.register_forward_hook(lambda module, args, out: KNOWN.append(("out", out)))
    with assert_untouched(model, x, lambda: (features, counted, by_name, KNOWN)):
        keep = netslim.select_channels(model, 0.5, x)
        small = netslim.slim(model, keep, x)
    small(x)
    assert counted["calls"] == len(features) == len(by_name["head"]) == 1
    KNOWN.clear()


def test_both_recordings_see_the_same_draws(oracle, images):
    """Stochastic depth, by every generator there is."""

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.blocks = block(3, 16), nn.ModuleList(block(16, 16) for _ in range(12))
            self.head, self.numpy, self.python = nn.Linear(16, 5), np.random.RandomState(0), random.Random(0)
            self.legacy, self.torch = np.random.default_rng(0), torch.Generator()

        def draw(self, i):
            return (
                random.random(), legacy.rand(), self.numpy.rand(), self.python.random(), self.legacy.random(),
                float(torch.rand(())), float(torch.rand((), generator=self.torch)),
            )[i % 7]  # fmt: skip

        def forward(self, x):
            x = self.stem(x)
            for i, layer in enumerate(self.blocks):
                if not self.training or self.draw(i) < 0.5:
                    x = x + layer(x)
            return self.head(x.mean((2, 3)))

    x = images(8)
    for seed in range(3):
        torch.manual_seed(seed), random.seed(seed), legacy.seed(seed)
        model = oracle.lively(Deep(), x)
        before = random.getstate(), model.numpy.get_state()[2], model.torch.get_state()
        oracle.prove(model, netslim.select_channels(model, 0.5, x, coupling="group"), x, train=False)
        assert (random.getstate(), model.numpy.get_state()[2]) == before[:2]
        assert torch.equal(model.torch.get_state(), before[2])
