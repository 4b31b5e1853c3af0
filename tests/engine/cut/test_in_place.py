"""Slimming in the middle of a training: step for step what the masked network does, momentum included.

Oracle: the dense network trained on with the removed γ, β and all that the optimiser knows of them held at 0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
import torchvision
from torch import Tensor, nn

import netslim
from netslim.engine import slim_in_place
from netslim.modules import bn_layers
from netslim.nets import VGG, DenseNet, PreResNet

IMAGES = torch.randn(8, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 4

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg": lambda: VGG([6, 8, "M", 8, 12], num_classes=4),
    "preresnet": lambda: PreResNet(11, num_classes=4),
    "densenet": lambda: DenseNet(10, growth=4, num_classes=4),
    "resnet18": lambda: torchvision.models.resnet18(num_classes=4),
    "mobilenet": lambda: torchvision.models.mobilenet_v3_small(num_classes=4, dropout=0.0),
    "shuffle": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=4),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-4),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, centered=True),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    out = model(IMAGES)
    nn.functional.cross_entropy(out, LABELS).backward()
    optimizer.step()


def hold(model: nn.Module, keep: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Removed γ and β are 0, and so is what the optimiser knows of them."""
    layers = bn_layers(model)
    for name, kept in keep.items():
        for tensor in (layers[name].weight, layers[name].bias):
            tensor.data *= kept
            for value in optimizer.state[tensor].values():
                if isinstance(value, Tensor) and value.dim():
                    value *= kept


def trained(name: str, optimizer: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = NETWORKS[name]().double().train()
    for layer in bn_layers(model).values():
        nn.init.uniform_(layer.weight, 0.1, 1.0)
    made = OPTIMIZERS[optimizer](model.parameters())
    for _ in range(3):
        step(model, made)
    return model, made


CASES = [(name, "sgd") for name in NETWORKS] + [("vgg", other) for other in OPTIMIZERS if other != "sgd"]


@pytest.mark.parametrize(("network", "optimizer"), CASES)
@pytest.mark.parametrize("coupling", ["keep", "group"])
def test_training_goes_on_as_that_of_the_masked_network(network: str, optimizer: str, coupling: str) -> None:
    small, ours = trained(network, optimizer)
    masked, theirs = copy.deepcopy((small, ours))
    together: dict[str, Tensor] = {}
    for ratio in (0.3, 0.4):  # two cuts, as a training that gets smaller has them
        keep = netslim.select_channels(small, ratio, IMAGES[:1], coupling=coupling)
        whole = _on_the_dense(together, keep)
        parameters = list(small.parameters())
        slim_in_place(small, keep, IMAGES[:1], optimizers=[ours])
        assert all(a is b for a, b in zip(small.parameters(), parameters, strict=True))
        together = whole
        hold(masked, together, theirs)
        for _ in range(2):
            step(small, ours)
            step(masked, theirs)
            hold(masked, together, theirs)
        small.eval(), masked.eval()
        torch.testing.assert_close(small(IMAGES), masked(IMAGES), rtol=1e-8, atol=1e-8)
        small.train(), masked.train()
    assert sum(p.numel() for p in small.parameters()) < 0.9 * sum(p.numel() for p in masked.parameters())


def _on_the_dense(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks of the smaller network as masks of the dense one. Channels that were removed and are carried along count
    as there: they are the first that are removed, their γ being 0."""
    result = dict(before)
    for name, kept in now.items():
        mask = before.get(name, torch.ones(len(kept), dtype=torch.bool)).clone()
        if len(kept) == int(mask.sum()):
            mask[mask.clone()] = kept
        else:
            pytest.skip("a carried channel: its place in the dense network is not known here")
        result[name] = mask
    return result


def test_what_cannot_be_cut_is_refused_before_anything_changes() -> None:
    model = VGG([4, 6], num_classes=4).double()
    first = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    factored = torch.optim.Adafactor(model.parameters(), lr=1e-3)
    step(model, first)
    step(model, factored)
    before = copy.deepcopy((model.state_dict(), first.state_dict()))
    keep = netslim.select_channels(model, 0.5, IMAGES[:1])
    with pytest.raises(ValueError, match=r"Adafactor keeps 'row_var' of shape .*; train with SGD, Adam or another"):
        slim_in_place(model, keep, IMAGES[:1], optimizers=[first, factored])
    torch.testing.assert_close(model.state_dict(), before[0])
    torch.testing.assert_close(first.state_dict(), before[1])


def test_a_graph_that_is_still_alive_is_no_hindrance() -> None:
    """What adds up the gradients of a parameter is that of the last step, as long as anything refers to it."""
    model, optimizer = trained("vgg", "sgd")
    kept = model(IMAGES).sum()
    slim_in_place(model, netslim.select_channels(model, 0.5, IMAGES[:1]), IMAGES[:1], optimizers=[optimizer])
    step(model, optimizer)
    assert kept.grad_fn is not None
    assert all(p.grad.shape == p.shape for p in model.parameters())


def test_buffers_and_the_plan_follow(tmp_path) -> None:
    model = PreResNet(11, num_classes=4).double()
    dense = copy.deepcopy(model)
    keep = netslim.select_channels(model, 0.5, IMAGES[:1])
    expected = netslim.slim(model, keep, IMAGES[:1])
    slim_in_place(model, keep, IMAGES[:1])
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)
    netslim.save(model, tmp_path / "slim.pt")
    loaded = netslim.load(tmp_path / "slim.pt", dense).eval()
    torch.testing.assert_close(loaded(IMAGES), model.eval()(IMAGES), rtol=0, atol=0)


def test_copies_are_cut_too_and_share_nothing() -> None:
    model = PreResNet(11, num_classes=4).double()
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    keep = netslim.select_channels(model, 0.5, IMAGES[:1])
    expected = netslim.slim(other, dict(keep), IMAGES[:1])
    with pytest.raises(ValueError, match=r"VGG is no copy of the network: they differ in conv\.weight"):
        slim_in_place(model, keep, IMAGES[:1], copies=[VGG([4, 6]).double()])
    slim_in_place(model, keep, IMAGES[:1], copies=[other])
    torch.testing.assert_close(other.state_dict(), expected.state_dict(), rtol=0, atol=0)
    memory = [{t.data_ptr() for t in each.state_dict().values() if t.numel()} for each in (model, other)]
    assert not memory[0] & memory[1]
