"""What ``select_channels`` found out is used by ``slim`` where it holds, and only there."""

import copy
import pickle

import pytest
import torch
from torch import nn

import netslim
from netslim.engine import api


class Network(nn.Module):
    """flat: the size of the flattened features is written in the code."""

    def __init__(self, flat=False):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        )
        self.head = nn.Linear(8 * 16, 4)
        self.flat, self.counts = flat, [1]

    def forward(self, x):
        x = torch.relu(self.body(x))
        return self.head(x.view(-1, 128) if self.flat else x.flatten(1))


@pytest.fixture
def analyses(monkeypatch):
    """Grows by one with every analysis."""
    calls, analyse = [], api.analyse
    monkeypatch.setattr(api, "analyse", lambda *args: calls.append(1) or analyse(*args))
    return calls


x = torch.randn(2, 3, 8, 8)


def pair():
    model = Network().eval()
    for layer in netslim.bn_layers(model).values():
        nn.init.uniform_(layer.weight)
    return model, netslim.select_channels(model, 0.5, x)


def test_the_selection_spares_the_analysis_and_changes_nothing(analyses):
    model, keep = pair()
    with torch.no_grad():
        model.head.weight.mul_(2)  # weights may change
    small = netslim.slim(model.train(), keep, x)
    assert len(analyses) == 1
    plain = netslim.slim(model, dict(keep), x)
    assert len(analyses) == 2
    assert small.netslim_plan == plain.netslim_plan
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), plain.state_dict().values(), strict=True))


def widen(head):
    head.weight.data, head.bias.data = torch.ones(5, 128), torch.ones(5)


@pytest.mark.parametrize(
    "change",
    [
        lambda model, keep: keep["body.1"].__setitem__(slice(None), True),
        lambda model, keep: keep.pop("body.4"),
        lambda model, keep: setattr(model.body[2], "inplace", True),
        lambda model, keep: setattr(model, "head", nn.Linear(128, 4)),
        lambda model, keep: setattr(model.head, "weight", nn.Parameter(torch.ones(4, 128))),
        lambda model, keep: widen(model.head),
        lambda model, keep: model.body.append(nn.ReLU()),
        lambda model, keep: model.body[0].register_forward_hook(lambda *_: None),
        lambda model, keep: model.counts.append(2),
        lambda model, keep: model.body[1].num_batches_tracked.add_(1),
        lambda model, keep: model.double(),
    ],
)
def test_after_a_change_the_model_is_analysed_again(change, analyses):
    model, keep = pair()
    change(model, keep)
    y = x.double() if model.head.weight.dtype == torch.double else x
    small = netslim.slim(model, keep, y)
    assert len(analyses) == 2
    torch.testing.assert_close(small(y), netslim.mask(model, keep)(y))


def test_another_input_is_analysed(analyses):
    model, keep = pair()
    netslim.slim(model, keep, x.clone())
    assert len(analyses) == 2


def test_a_copy_of_a_selection_holds_no_network(analyses):
    model, keep = pair()
    for twin in (copy.deepcopy(keep), copy.copy(keep), pickle.loads(pickle.dumps(keep))):
        assert twin.proof is None
        assert (twin.asked, twin.prunable, twin.removed) == (0.5, 16, 8)
        assert len(netslim.slim(model, twin, x).netslim_plan["passes"]) == 1
    assert len(analyses) == 4


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.8])
def test_a_size_in_the_code_is_found_at_every_ratio(ratio):
    """Also where the selection takes nothing from that layer."""
    model = Network(flat=True).eval()
    nn.init.uniform_(model.body[1].weight, 0.1, 0.2)
    keep = netslim.select_channels(model, ratio, x)
    assert list(keep) == ["body.1"]
    assert (keep.prunable, keep.removed, keep.held_back) == (8, int(8 * ratio), {"view": 8})


class NormAct(nn.BatchNorm2d):
    """With its activation as a child, as timm writes it."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(super().forward(x))


def test_an_example_of_one_pixel_is_enough_for_a_norm_with_children():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), NormAct(8), nn.Conv2d(8, 4, 1)).train()
    small = netslim.slim(model, {"1": torch.arange(8) < 4}, torch.randn(1, 3, 3, 3))
    assert small[1].num_features == 4
    assert small.training
