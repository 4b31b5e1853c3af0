"""Copies equal those of copy.deepcopy, but for the tensors that are replaced and for gradients."""

import copy
import inspect
import threading

import pytest
import torch
import torchvision
from torch import nn

from netslim.engine.cut.clone import clone


class Odd(nn.Module):
    """Attributes of many kinds, some of them shared."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.again, self.nothing = self.conv, None
        self.tied = nn.Linear(3, 4)
        self.tied.bias = self.conv.bias
        self.sizes, self.names, self.pair = [4, [5]], {"a": {"b": 1}}, (1, [2])
        self.alias = self.sizes
        self.hidden = [self.bn]  # a module that is no child here
        self.register_buffer("mean", torch.zeros(3), persistent=False)
        self.register_parameter("absent", None)
        self.constant = torch.ones(2)


def test_attributes_are_copied_and_shared_as_before():
    model = Odd().train()
    model.bn.eval()
    model.conv.weight.requires_grad_(False)
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    twin = clone(model, {})
    assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]
    assert [m.training for m in twin.modules()] == [m.training for m in model.modules()]
    assert not {id(m) for m in twin.modules()} & {id(m) for m in model.modules()}
    assert twin.again is twin.conv
    assert twin.hidden[0] is twin.bn
    assert twin.tied.bias is twin.conv.bias
    assert twin.alias is twin.sizes is not model.sizes
    assert twin.sizes == [4, [5]]
    assert twin.sizes[1] is not model.sizes[1]
    assert twin.pair == (1, [2])
    assert twin.pair[1] is not model.pair[1]
    assert twin.names["a"] is not model.names["a"]
    assert twin.absent is None
    assert vars(twin).keys() == vars(model).keys() == vars(copy.deepcopy(model)).keys()
    assert list(twin.state_dict()) == list(model.state_dict())
    for mine, true in zip(
        [*twin.parameters(), *twin.buffers(), twin.constant],
        [*model.parameters(), *model.buffers(), model.constant],
        strict=True,
    ):
        assert type(mine) is type(true)
        assert torch.equal(mine, true)
        assert mine.data_ptr() != true.data_ptr()
        assert mine.requires_grad == true.requires_grad
        assert mine.grad is None
    twin.register_forward_hook(lambda *_: None)
    assert not model._forward_hooks


def test_replaced_wherever_it_is_held():
    model = Odd()
    bias, weight = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, 3))
    twin = clone(model, {model.conv.bias: bias, model.tied.weight: weight})
    assert twin.conv.bias is bias is twin.tied.bias
    assert twin.tied.weight is weight
    assert len(model.conv.bias) == 4


class Counted(nn.Module):
    def __deepcopy__(self, memo):
        twin = type(self)()
        twin.copies = getattr(self, "copies", 0) + 1
        return twin


def test_a_class_that_copies_itself_does():
    twin = clone(nn.Sequential(nn.Linear(2, 2), Counted()), {})
    assert twin[1].copies == 1
    assert not hasattr(twin[0], "copies")


@pytest.mark.parametrize("name", ["mobilenet_v2", "googlenet"])
def test_a_whole_network(name):
    options = {"init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, num_classes=5, **options).eval()
    twin, x = clone(model, {}), torch.randn(1, 3, 64, 64)
    assert repr(twin) == repr(model)
    assert torch.equal(twin(x), model(x))


def test_functions_that_hold_modules_follow():
    """A forward put on an instance, and a function of the modules around it."""

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            plain, factor = self.bn.forward, 0.5
            self.bn.forward = lambda x, *, more=1.0: plain(x) * factor * more
            self.code = lambda x: self.conv(x) + self.late()
            self.late = lambda: 1.0 if self.code is not None else 0.0
            self.pure = lambda x: x + 1

        def forward(self, x):
            return self.bn(self.code(self.pure(x)))

    model, x = Holder().eval(), torch.randn(2, 3, 4, 4)
    twin = clone(model, {})
    assert torch.equal(twin(x), model(x))
    assert twin.pure is model.pure
    twin(x).sum().backward()
    assert model.conv.weight.grad is None
    assert twin.conv.weight.grad is not None
    twin.bn.weight.data.zero_()
    twin.bn.bias.data.zero_()
    assert not twin(x).any()
    assert model(x).any()
    assert "more" in inspect.signature(twin.bn.forward).parameters


def test_what_cannot_be_copied_is_named():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].lock = threading.Lock()
    with pytest.raises(ValueError, match=r"Linear\.lock cannot be copied .*: take it off the network"):
        clone(model, {})
