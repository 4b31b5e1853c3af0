"""Networks whose last steps need numbers are analysed without computing the rest; the oracle is the masked network."""

import pytest
import torch
from torch import nn

import netslim
from netslim.engine.verify import analyse
from netslim.modules import Network


def body(head: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), head,
    )  # fmt: skip


class Threshold(nn.Module):
    """Means of the pixels that pass a threshold: how many there are depends on the image."""

    def __init__(self):
        super().__init__()
        self.score, self.values = nn.Conv2d(12, 1, 1), nn.Conv2d(12, 5, 1)

    def forward(self, x):
        where = torch.nonzero((self.score(x).sigmoid() > 0.4).flatten(1))
        rows, pixels = where.unbind(1)
        found = self.values(x).flatten(2)[rows, :, pixels]
        return torch.zeros(len(x), 5, dtype=x.dtype, device=x.device).index_add(0, rows, found)


class Best(nn.Module):
    """The pixels of highest score, by gather; sizes are made into indices in the code."""

    def __init__(self):
        super().__init__()
        self.score, self.values = nn.Conv2d(12, 1, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        best = self.score(x).flatten(1).topk(3).indices
        rows = torch.arange(len(x), device=x.device)
        return self.values(x).flatten(2)[rows[:, None], :, best].flatten(1)


class Sorted(nn.Module):
    """Channels in an order that the code makes of their number, before a step that needs numbers."""

    def __init__(self):
        super().__init__()
        self.norm, self.last = nn.BatchNorm2d(12), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        backwards = torch.arange(x.shape[1], device=x.device).flip(0)
        y = self.last(self.norm(x.index_select(1, backwards)))
        return torch.zeros_like(y).masked_scatter(y > 0, y[y > 0]).flatten(1)


class Asks(Threshold):
    """Its Python code reads how large the largest score is."""

    def forward(self, x):
        scale = 2.0 if self.score(x).max().item() > -1e9 else 0.0
        return scale * super().forward(x)


class Exports(Threshold):
    def forward(self, x):
        found = super().forward(x)
        return found * float(torch.nonzero(found.flatten())[0].numpy()[0] >= 0)


@pytest.mark.parametrize("coupling", ["keep", "scatter"])
@pytest.mark.parametrize("head", [Threshold, Best, Sorted])
def test_what_needs_numbers_gets_some(head, coupling, oracle, images):
    x = images(8)
    model = oracle.lively(body(head()), x)
    tape = analyse.analyse(Network(model), x).tape
    assert tape.on_meta
    assert tape.made_up
    keep = netslim.select_channels(model, 0.5, x, coupling=coupling)
    small = oracle.prove(model, keep, x)
    assert small[0].out_channels < 8
    assert small[3].out_channels < 12
    assert oracle.deviation(small, netslim.mask(model, keep), images(12, 3)) < 1e-9  # other images, other numbers


@pytest.mark.parametrize("head", [Asks, Exports])
def test_python_code_reads_true_numbers(head, oracle, images):
    x = images(8)
    model = oracle.lively(body(head()), x)
    assert not analyse.analyse(Network(model), x).tape.on_meta
    oracle.prove(model, netslim.select_channels(model, 0.5, x), x)


def test_the_same_is_removed_as_with_numbers(oracle, images, monkeypatch):
    x = images(8)
    for head in (Threshold, Best, Sorted):
        model = oracle.lively(body(head()), x)
        with monkeypatch.context() as patch:
            patch.setattr(analyse, "NUMBERS", ("its own",))
            expected = netslim.slim(model, netslim.select_channels(model, 0.5, x), x)
        small = netslim.slim(model, netslim.select_channels(model, 0.5, x), x)
        assert [p.shape for p in small.parameters()] == [p.shape for p in expected.parameters()]
