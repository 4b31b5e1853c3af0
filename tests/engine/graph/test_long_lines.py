"""Lines that repeat their channels, as those of a flattened map, have an id per channel. Oracle: the masked network."""

import torch
from torch import nn

import netslim
from netslim.engine.graph import build
from netslim.engine.verify.analyse import analyse
from netslim.modules import Network


class Detector(nn.Module):
    """All pixels of two maps in one list, as detectors do it, then element by element."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.boxes, self.sizes = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        y = self.stem(x)
        boxes, sizes = self.norm(self.boxes(y)), self.sizes(y)
        boxes, sizes = (t.permute(0, 2, 3, 1).reshape(len(x), -1) for t in (boxes, sizes))
        return (boxes * sizes.sigmoid()).tanh() + boxes


def test_a_flattened_map_has_an_id_per_channel_and_not_per_pixel(oracle, images, monkeypatch):
    x = images(32)  # 6 channels of 1024 pixels
    model = oracle.lively(Detector(), x)
    few = analyse(Network(model), x)
    keep = netslim.select_channels(model, 0.3, x)
    oracle.prove(model, keep, x)
    monkeypatch.setattr(build, "LONG", 1 << 30)
    many = analyse(Network(model), x)
    assert few.count < 200
    assert many.count > 4 * 6144
    other = netslim.select_channels(model, 0.3, x)
    assert all(torch.equal(keep[name], other[name]) for name in keep)


def test_it_makes_no_difference_to_lines_that_do_not_repeat(network, oracle, monkeypatch):
    model, x, coupling = network
    expected = netslim.select_channels(model, 0.5, x, coupling=coupling)
    monkeypatch.setattr(build, "LONG", 0)
    keep = netslim.select_channels(model, 0.5, x, coupling=coupling)
    assert all(torch.equal(keep[name], expected[name]) for name in expected)
    oracle.prove(model, keep, x)
