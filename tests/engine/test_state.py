"""What a network has beside its channels, its slim form has too: modes, dtype, memory format, hooks, buffers."""

import copy

import pytest
import torch
from torch import nn

import netslim
from netslim.modules import Around


def toy():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 4, 3))


KEEP = {"1": torch.arange(8) % 2 == 0}


def slimmed(model, x, coupling, ratio=0.5):
    return netslim.slim(model, netslim.select_channels(model, ratio, x, coupling=coupling), x)


def test_modes_and_requires_grad_stay_and_the_model_is_left_alone(network):
    model, x, coupling = network
    for i, module in enumerate(model.modules()):
        module.training = i % 3 == 0
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 3 > 0)

    def look(model):
        own = [m for m in model.modules() if not isinstance(m, Around)]
        modules = [(type(m), m.training, len(m._forward_pre_hooks), *map(id, m.parameters())) for m in own]
        return modules, [p.requires_grad for p in model.parameters()], [p.grad for p in model.parameters()]

    before, numbers, random = look(model), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    small = slimmed(model, x, coupling)
    assert look(model) == before
    assert all(torch.equal(tensor, numbers[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert [m[:2] for m in look(small)[0]] == [m[:2] for m in before[0]]
    assert look(small)[1] == before[1]
    assert not {p.data_ptr() for p in small.parameters()} & {p.data_ptr() for p in model.parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_stays(network, dtype, oracle):
    model, x, coupling = network
    model, x = model.to(dtype), x.to(dtype)
    keep = netslim.select_channels(model, 0.5, x, coupling=coupling)
    small = netslim.slim(model, keep, x)
    assert {t.dtype for t in small.state_dict().values() if t.is_floating_point()} == {dtype}
    assert oracle.deviation(netslim.mask(model, keep), small, x) < 32 * torch.finfo(dtype).eps


def test_channels_last_stays(network, oracle):
    model, x, coupling = network
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        small = slimmed(model.to(memory_format=layout), x, coupling)
        weights = [p for p in small.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
        assert all(p.is_contiguous(memory_format=layout) for p in weights)
        assert len(weights) > 2
        results.append(small)
    assert oracle.deviation(*results, x) < 1e-9


class Watched(nn.Module):
    """Hooks of all kinds, one bound to the network itself, and buffers that are not saved."""

    def __init__(self):
        super().__init__()
        self.body = toy()
        self.seen = []
        self.register_buffer("scale", 1 + torch.rand(8, 1, 1), persistent=False)
        self.register_buffer("steps", torch.tensor(3), persistent=False)
        self.body[1].register_forward_hook(self.note)
        self.body[4].register_forward_pre_hook(double)
        self.body[4].register_forward_hook(raise_by, with_kwargs=True)
        self.body[4].register_full_backward_hook(self.note)
        self.body[0].register_state_dict_post_hook(stamp)

    def note(self, module, *_):
        self.seen.append(module)

    def forward(self, x):
        return self.body[2:](self.body[:2](x) * self.scale)


def double(module, args):
    return (2 * args[0],)


def raise_by(module, args, kwargs, out):
    return out + 1


def stamp(module, state, prefix, _):
    state[prefix + "stamp"] = torch.tensor(7)


def test_hooks_and_buffers_that_are_not_saved_stay(oracle, images, tmp_path):
    x = images(8)
    model = oracle.lively(Watched(), x)
    whole = netslim.slim(model, {"body.1": torch.ones(8, dtype=torch.bool)}, x)
    assert torch.equal(whole(x), model(x))
    model.seen.clear()
    keep = {"body.1": KEEP["1"]}
    small = netslim.slim(model, keep, x)
    assert model.seen == []
    small.seen.clear()
    assert oracle.deviation(netslim.mask(model, keep), small, x) < 1e-9
    small(x).sum().backward()
    assert small.seen == [small.body[1], small.body[1], small.body[4]]
    assert "scale" in dict(small.named_buffers())
    assert small.state_dict().keys() == model.state_dict().keys() >= {"body.0.stamp"}
    assert torch.equal(small.scale, model.scale[KEEP["1"]])
    assert small.steps == 3
    small.body[0]._state_dict_hooks.clear()  # nothing could load what this one adds
    netslim.save(small, tmp_path / "small.pt")
    assert torch.equal(netslim.load(tmp_path / "small.pt", model)(x), small(x))
