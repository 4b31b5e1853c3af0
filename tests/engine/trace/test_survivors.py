"""Whatever tensor outlives the forward pass keeps all its channels, by whatever way it does; slim equals masked."""

import collections
import dataclasses
import functools
import itertools
import types

import pytest
import torch
from torch import nn

import netslim


def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())


class Net(nn.Module):
    """give(self, logits, auxiliary logits) -> what forward returns."""

    def __init__(self, give):
        super().__init__()
        self.give = give
        self.first, self.second, self.third = block(3, 16), block(16, 16), block(16, 16)
        self.head, self.auxiliary = nn.Linear(16, 5), nn.Linear(16, 4)

    def forward(self, x):
        y = self.first(x)
        return self.give(self, self.head(self.second(y).mean((2, 3))), self.auxiliary(self.third(y).mean((2, 3))))


class Dict(dict):
    pass


class List(list):
    pass


class Tuple(tuple):
    pass


class Pair(tuple):
    __slots__ = ()
    first = property(lambda self: self[0])


Named = collections.namedtuple("Named", "a b")


@dataclasses.dataclass
class Plain:
    a: torch.Tensor
    b: object


@dataclasses.dataclass(slots=True)
class Slotted:
    a: torch.Tensor
    b: object


class Private:
    """Neither iterable nor with attributes that anybody would find by their names."""

    __slots__ = ("__hidden",)

    def __init__(self, *values):
        self.__hidden = values

    def get(self):
        return self.__hidden


def sorted_by_size(values):
    return sorted(values, key=lambda t: t.shape[1], reverse=True)


KINDS = {  # how two tensors are given, and how they are read
    "subclass of dict": (lambda a, b: Dict(a=a, b=b), lambda o: list(o.values())),
    "subclass of list": (lambda a, b: List([a, b]), list),
    "subclass of tuple": (lambda a, b: Tuple((a, b)), list),
    "tuple with slots": (lambda a, b: Pair((a, b)), list),
    "namedtuple": (Named, list),
    "dataclass": (Plain, lambda o: [o.a, o.b]),
    "slots": (Slotted, lambda o: [o.a, o.b]),
    "private slots": (Private, lambda o: list(o.get())),
    "namespace": (lambda a, b: types.SimpleNamespace(a=a, b=b), lambda o: [o.a, o.b]),
    "UserDict": (lambda a, b: collections.UserDict(a=a, b=b), lambda o: [o["a"], o["b"]]),
    "UserList": (lambda a, b: collections.UserList([a, b]), list),
    "deque": (lambda a, b: collections.deque([a, b]), list),
    "ChainMap": (lambda a, b: collections.ChainMap({"a": a}, {"b": b}), lambda o: [o["a"], o["b"]]),
    "defaultdict": (lambda a, b: collections.defaultdict(list, a=[a], b=[b]), lambda o: [o["a"][0], o["b"][0]]),
    "proxy": (lambda a, b: types.MappingProxyType({"a": a, "b": b}), lambda o: list(o.values())),
    "values": (lambda a, b: {"a": a, "b": b}.values(), list),
    "keys": (lambda a, b: {a: 1, b: 2}, list),
    "set": (lambda a, b: {a, b}, sorted_by_size),
    "frozenset": (lambda a, b: frozenset((a, b)), sorted_by_size),
    "generator": (lambda a, b: (t for t in (a, b)), list),
    "iterator": (lambda a, b: iter([a, b]), list),
    "map": (lambda a, b: map(torch.neg, (a, b)), list),
    "chain": (lambda a, b: itertools.chain([a], [b]), list),
    "closure": (lambda a, b: lambda: [a, b], lambda o: o()),
    "partial": (lambda a, b: functools.partial(lambda *given: list(given), a, b), lambda o: o()),
    "nested": (
        lambda a, b: [Slotted(a, Dict(c=(1, {frozenset((b,))})))],
        lambda o: [o[0].a, *next(iter(o[0].b["c"][1]))],
    ),
    "views": (lambda a, b: Slotted(a[:, :3], b.unbind(1)), lambda o: [o.a, torch.stack(o.b, 1)]),
    "tuples": (lambda a, b: ((), (a, ("b", b))), lambda o: [o[1][0], o[1][1][1]]),
}


def check(model, read, x, seen=()):
    """Removes channels of all three blocks, and reads the same of the slim as of the masked network."""
    keep = netslim.select_channels(model, 0.5, x)
    assert list(keep) == ["first.1", "second.1", "third.1"]
    small, masked = netslim.slim(model, keep, x), netslim.mask(model, keep)
    assert small.first[0].out_channels + small.second[0].out_channels + small.third[0].out_channels == 24
    for training in (False, True):
        for a, b in zip(read(small.train(training), x), read(masked.train(training), x), strict=True):
            assert a.shape == b.shape
            assert float(b.detach().std(0).mean()) > 1e-3
            assert float((a - b).detach().abs().max()) < 1e-9 * float(b.detach().std(0).mean())
    return small


@pytest.mark.parametrize("kind", KINDS)
def test_containers(kind, oracle, images):
    pack, unpack = KINDS[kind]
    x = images(8)
    model = oracle.lively(Net(lambda _, a, b: [a, b]), x)
    model.give = lambda _, a, b: pack(a, b)
    check(model, lambda net, x: unpack(net(x)), x)


STORE = {}


class Holder:
    pass


def keeps_global(net, a, b):
    STORE[id(net)] = b
    return a


def keeps_view(net, a, b):
    net.parts = b.split(2, 1)
    return a


def keeps_in_buffer(net, a, b):
    net.last.copy_(b.detach())
    return a


def keeps_as_gradient(net, a, b):
    net.unused.grad = b.detach()
    return a + 0 * net.unused.sum()


def keeps_in_list(net, a, b):
    net.seen[:] = [b]
    return a


WAYS = {
    "attribute": (lambda net, a, b: (setattr(net, "aux", b), a)[1], lambda net: net.aux),
    "attribute of a submodule": (lambda net, a, b: (setattr(net.head, "aux", b), a)[1], lambda net: net.head.aux),
    "list": (keeps_in_list, lambda net: net.seen[0]),
    "object": (lambda net, a, b: (setattr(net.holder, "aux", b), a)[1], lambda net: net.holder.aux),
    "global": (keeps_global, lambda net: STORE.pop(id(net))),
    "views": (keeps_view, lambda net: torch.cat(net.parts, 1)),
    "buffer": (keeps_in_buffer, lambda net: net.last.clone()),
    "gradient": (keeps_as_gradient, lambda net: net.unused.grad),
    "nothing else": (lambda net, a, b: setattr(net, "aux", b) or setattr(net, "main", a), lambda net: net.aux),
}


@pytest.mark.parametrize("way", WAYS)
def test_results_that_are_kept(way, oracle, images):
    keep, find = WAYS[way]
    x = images(8)
    model = Net(lambda _, a, b: [a, b])
    model.seen, model.holder = [], Holder()
    model.register_buffer("last", torch.zeros(len(x), 4))
    model.unused = nn.Parameter(torch.zeros(len(x), 4))
    oracle.lively(model, x)
    model.give = keep

    def read(net, x):
        main = net(x)
        return [net.main if main is None else main, find(net)]

    check(model, read, x)
    STORE.clear()


def test_a_hook_that_collects(oracle, images):
    x = images(8)
    model = oracle.lively(Net(lambda _, a, b: a), x)
    seen = []
    model.auxiliary.register_forward_hook(lambda module, args, out: seen.append(out))

    def read(net, x):
        seen.clear()
        return [net(x), seen[-1]]

    check(model, read, x)


def test_a_result_that_only_a_cycle_holds_is_none(oracle, images):
    """Objects that hold each other and that nobody reaches."""

    def forget(net, a, b):
        lost = Holder()
        lost.itself, lost.value = lost, b
        return a

    x = images(8)
    model = oracle.lively(Net(lambda _, a, b: a), x)
    model.give = forget
    keep = {name: torch.arange(16) % 2 == 0 for name in ("first.1", "second.1", "third.1")}
    assert netslim.slim(model, keep, x).auxiliary.out_features == 1


def test_a_generator_function_runs_within_the_pass(oracle, images):
    class Lazy(Net):
        def forward(self, x):
            for stage in (self.first, self.second, self.third):
                x = stage(x)
                yield x.mean((2, 3)) if stage is not self.third else self.head(x.mean((2, 3)))

    x = images(8)
    model = Lazy(None).double().eval()
    for layer in netslim.bn_layers(model).values():
        layer.weight.data.uniform_(0.3, 1.3)
    keep = {name: torch.arange(16) % 2 == 0 for name in ("first.1", "second.1", "third.1")}
    small, masked = netslim.slim(model, keep, x), netslim.mask(model, keep)
    for a, b in zip(small(x), masked(x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert [m.in_channels for m in (small.second[0], small.third[0])] == [16, 16]  # demanded as they are
    assert small.third[0].out_channels == 8


def test_an_endless_generator_is_not_waited_for(oracle, images):
    x = images(8)
    model = oracle.lively(Net(lambda _, a, b: a), x)
    model.give = lambda _, a, b: itertools.chain([a], itertools.repeat(b))
    check(model, lambda net, x: list(itertools.islice(net(x), 2)), x)


def test_a_network_of_which_nothing_outlives_is_refused(images, refused):
    model, x = Net(lambda net, a, b: None).double(), images(8)
    keep = {"first.1": torch.arange(16) % 2 == 0}
    calls = (lambda: netslim.select_channels(model, 0.5, x), lambda: netslim.slim(model, keep, x))
    refused(model, "nothing that Net computes is returned or kept", *calls)
