"""The Taylor score. Oracle: the slope of the loss as a gate behind each BatchNorm layer closes, by differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import netslim
from netslim.method.scores import needs_labels
from netslim.method.scoring.per_mac import PerMac
from netslim.method.scoring.random import Random
from netslim.method.scoring.taylor import Taylor, cross_entropy


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.Tanh(),
        nn.Flatten(), nn.Linear(12, 5),
    ).double()  # fmt: skip
    for layer in (model[1], model[4]):
        layer.weight.data.uniform_(-1, 1)
        layer.bias.data.normal_()
        layer.running_var.uniform_(0.5, 2)
    return model


BATCHES = list(torch.randn(3, 4, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))


def loss(outputs: Tensor) -> Tensor:
    return F.cross_entropy(outputs, torch.tensor([0, 1, 2, 3]))


def slope(model: nn.Module, layer: nn.BatchNorm2d, channel: int, batch: Tensor, h: float = 1e-5) -> float:
    """∂L/∂z at z = 1, z the gate of a channel."""
    found = []
    for z in (1 + h, 1 - h):
        before = layer.weight.data.clone(), layer.bias.data.clone()
        layer.weight.data[channel] *= z
        layer.bias.data[channel] *= z
        found.append(loss(model(batch)).item())
        layer.weight.data, layer.bias.data = before
    return (found[0] - found[1]) / (2 * h)


def test_it_is_the_square_of_the_slope_of_a_gate_averaged_over_batches():
    model = network().eval()
    scores = Taylor(loss)(model, BATCHES)
    for name in ("1", "4"):
        layer = model[int(name)]
        expected = [sum(slope(model, layer, c, b) ** 2 for b in BATCHES) / 3 for c in range(len(layer.weight))]
        assert scores.value[name].tolist() == pytest.approx(expected, rel=1e-5)
    named = [{"input": batch} for batch in BATCHES]
    torch.testing.assert_close(Taylor(loss)(model, named).value, scores.value)
    torch.testing.assert_close(Taylor(loss)(model, [(batch,) for batch in BATCHES]).value, scores.value)


def test_labels_are_the_last_of_a_batch_as_a_data_loader_makes_it():
    model, labels = network().eval(), torch.tensor([0, 1, 2, 3])
    labelled = [[batch, labels] for batch in BATCHES]
    expected = Taylor(loss)(model, BATCHES).value
    torch.testing.assert_close(Taylor(labels=True)(model, labelled).value, expected)
    torch.testing.assert_close(Taylor(F.cross_entropy, labels=True)(model, labelled).value, expected)
    own = Taylor()(model, labelled).value
    torch.testing.assert_close(own, Taylor()(model, BATCHES).value)
    assert not torch.allclose(own["1"], expected["1"])
    with pytest.raises(ValueError, match=r"lists, \[inputs, labels\], got a Tensor; give labels=False"):
        Taylor(labels=True)(model, BATCHES)
    of = Random(Taylor(labels=True)), PerMac(Taylor(labels=True)), Random(), Random(Taylor())
    assert [needs_labels(score) for score in of] == [True, True, False, False]


def test_the_network_is_left_as_it_was_and_may_be_frozen():
    model = network().train()
    model[3].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = Taylor()(network(), BATCHES).value
    model[1].weight.grad = torch.ones(4, dtype=torch.float64)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        assert {n: v.tolist() for n, v in Taylor()(model, BATCHES).value.items()} == {
            n: v.tolist() for n, v in expected.items()
        }
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model] == [True] * 3 + [False] + [True] * 4
    assert model[1].weight.grad.tolist() == [1.0] * 4
    assert model[4].weight.grad is None


def test_its_own_answer_is_the_label_where_that_is_right():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 3.0]])
    assert cross_entropy(logits).item() == pytest.approx(F.cross_entropy(logits, torch.tensor([0, 2])).item())


def test_without_data_it_is_refused_before_anything_is_computed():
    line = r"Taylor needs data: give what it returns, score=Taylor\(\.\.\.\)\(model, batches, seed\)"
    with pytest.raises(ValueError, match=line):
        netslim.select_channels(network(), 0.5, BATCHES[0], score=Taylor())
    with pytest.raises(ValueError, match="Taylor needs data: there is no batch"):
        Taylor()(network(), [])
