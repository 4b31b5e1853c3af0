"""The module that stands around a layer, alone."""

import pytest
import torch
from torch import nn

import netslim
from netslim.engine.cut import select_scatter
from netslim.engine.cut.select_scatter import Rewired, rewire
from netslim.modules import Network
from tests.engine.cut.test_select_scatter import Add

LAYOUTS = {(2, 4): "plain", (2, 4, 5): "plain", (2, 4, 5, 6): "plain", (2, 4, 6, 5): "last", (2, 4, 2, 3, 2): "plain"}


@pytest.mark.parametrize(("shape", "layout"), LAYOUTS.items())
def test_reads_and_writes_its_channels(shape, layout):
    memory = torch.channels_last if layout == "last" else torch.contiguous_format
    x = torch.randn(shape, requires_grad=True)
    given = x.contiguous(memory_format=memory)
    around = Rewired(nn.Identity())
    around.channel_index = torch.tensor([3, 1])
    around.scatter_to(torch.tensor([4, 0]), 6)
    y = around(given)
    expected = torch.zeros(shape[0], 6, *shape[2:])
    expected[:, 4], expected[:, 0] = x[:, 3].detach(), x[:, 1].detach()
    assert torch.equal(y, expected)
    assert y.is_contiguous(memory_format=memory)
    (y * torch.arange(1.0, 7.0).reshape(6, *[1] * (len(shape) - 2))).sum().backward()
    per_channel = x.grad.movedim(1, 0).flatten(1).unique(dim=1).flatten().tolist()
    assert per_channel == [0.0, 1.0, 0.0, 5.0]


def test_what_is_loaded_says_where_its_channels_are():
    one, other = Rewired(nn.BatchNorm2d(2)), Rewired(nn.BatchNorm2d(2))
    one.scatter_to(torch.tensor([0, 2]), 3)
    other.scatter_to(torch.tensor([1, 2]), 3)
    state = other.state_dict()
    assert list(state) == ["channel_place", "weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    nn.Sequential(one).load_state_dict({f"0.{name}": tensor for name, tensor in state.items()})
    x = torch.randn(4, 2, 3, 3)
    assert torch.equal(one.eval()(x), other.eval()(x))


def test_a_key_too_many_or_too_few_is_an_error():
    net = nn.Sequential(Rewired(nn.BatchNorm2d(2)))
    state = net.state_dict()
    with pytest.raises(RuntimeError, match="Unexpected key"):
        net.load_state_dict({**state, "0.more": torch.zeros(1)})
    del state["0.bias"]
    with pytest.raises(RuntimeError, match="Missing key"):
        net.load_state_dict(state)


def test_the_layers_settings_are_read_and_set_through_it():
    around = Rewired(nn.BatchNorm2d(2))
    around.eps, around.momentum = 0.5, None
    around.weight = nn.Parameter(torch.ones(2) * 3)
    assert (around.layer.eps, around.layer.momentum, around.layer.weight[0].item()) == (0.5, None, 3.0)
    assert (around.num_features, around.train(False).layer.training, around.training) == (2, False, False)
    with pytest.raises(AttributeError, match="nothing"):
        _ = around.nothing


def test_handles_of_hooks_still_take_them_off(oracle, images):
    x = images(4)
    model = oracle.lively(Add(), x)
    seen = []
    before = model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    after = model.norm.register_forward_hook(lambda _, __, y: seen.append(y.shape[1]))
    netslim.engine.slim_in_place(model, {"norm": torch.arange(4) < 2}, x, scatter=True)
    model(x)
    before.remove()
    after.remove()
    model(x)
    assert (seen, model.norm.num_features) == ([2, 4], 2)


def test_a_layer_with_two_names_keeps_both(oracle, images):
    class Named(Add):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([self.norm])

        def forward(self, x):
            x = self.stem(x)
            return self.head(x + self.layers[0](self.conv(x)))

    x = images(4)
    model = oracle.lively(Named(), x)
    small = oracle.prove(model, netslim.select_channels(model, 0.5, x, coupling="scatter"), x)
    assert small.norm is small.layers[0]


def with_hooks(model):
    """A slim network as it was made before: hooks, and indices in the layers."""
    for name, around in [(n, m) for n, m in model.named_modules() if isinstance(m, Rewired)]:
        layer = around.layer
        model.get_submodule(name.rpartition(".")[0])._modules[name.rpartition(".")[2]] = layer
        if around.channel_index is not None:
            layer.register_buffer("channel_index", around.channel_index)
            layer.register_forward_pre_hook(select_scatter.select_input)
        if around.channel_place is not None:
            layer.register_buffer("channel_place", around.channel_place)
            layer.stream_features = len(around.channel_source)
            layer.register_forward_hook(select_scatter.scatter_output)
    return model


def test_a_network_with_former_hooks_runs_and_is_slimmed_again(network, oracle):
    dense, x, coupling = network
    once = netslim.slim(dense, netslim.select_channels(dense, 0.4, x, coupling=coupling), x)
    former = with_hooks(netslim.slim(dense, netslim.select_channels(dense, 0.4, x, coupling=coupling), x))
    assert torch.equal(former(x), once(x))
    assert former.state_dict().keys() == once.state_dict().keys()
    keep = netslim.select_channels(former, 0.3, x, coupling=coupling)
    twice = oracle.prove(former, keep, x, train=False)
    assert not [m for m in twice.modules() if select_scatter.select_input in m._forward_pre_hooks.values()]


def test_the_network_itself_is_not_rewired():
    """Nothing can stand around it."""
    layer = nn.BatchNorm2d(4)
    rewire(Network(layer).modules, {}, {})
    with pytest.raises(ValueError, match="no BatchNorm layer of BatchNorm2d can lose channels"):
        netslim.select_channels(layer, 0.5, torch.randn(2, 4, 3, 3), coupling="scatter")
