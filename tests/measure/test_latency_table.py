"""The table of measured layers. Oracle: a clock that shows multiply-adds; PyTorch beside ONNX Runtime."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import netslim
from netslim.engine import LayerShape
from netslim.measure import one_layer, runtimes
from netslim.measure.formats.onnx import open_in_runtime
from netslim.measure.latency_table import LatencyTable, corners
from netslim.nets import VGG
from tests.clocks import multiply_adds

X = torch.randn(1, 3, 16, 16)


def network() -> nn.Module:
    torch.manual_seed(0)
    model = VGG([32, 24, "M", 40, 20], num_classes=4)
    for layer in netslim.bn_layers(model).values():
        nn.init.uniform_(layer.weight)
    return model.eval()


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    return multiply_adds(monkeypatch, tmp_path)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_grid_of_layers_tells_the_time_of_every_width(clock: list[Any], batch: int) -> None:
    """Multiply-adds are linear in each width, so what lies between two measured ones is known exactly."""
    model = network()
    expected = netslim.select_channels(model, target_macs=0.5, example_input=X)
    keep = netslim.select_channels(model, target_latency=0.5, latency=LatencyTable(batch=batch), example_input=X)
    assert all(torch.equal(kept, expected[name]) for name, kept in keep.items())
    for name, of in (("dense", model), ("slim", netslim.slim(model, keep, X))):
        assert keep.predicted[name] == pytest.approx(batch * netslim.count(of, X).macs / 2)
    assert len(clock) < 70  # of 15 million networks


def test_each_layer_is_measured_once_on_a_machine(clock: list[Any], tmp_path: Path) -> None:
    model = network()
    first = netslim.select_channels(model, target_latency=0.5, latency=LatencyTable(), example_input=X)
    before = len(clock)
    again = netslim.select_channels(model, target_latency=0.5, latency=LatencyTable(), example_input=X)
    assert (len(clock), again.predicted) == (before, first.predicted)
    (file,) = (tmp_path / "netslim" / "latency").iterdir()
    content = json.loads(file.read_text())
    assert content["runtime"] == f"PyTorch {version('torch')}"
    assert (content["threads"], content["dtype"], len(content["milliseconds"])) == (1, "float32", before)
    netslim.select_channels(model, target_latency=0.5, latency=LatencyTable(batch=2), example_input=X)
    assert len(clock) > before  # another batch is measured for itself
    file.write_text("[]")
    with pytest.raises(ValueError, match=f"{file} holds no latencies; remove it"):
        netslim.select_channels(model, target_latency=0.5, latency=LatencyTable(), example_input=X)


SHAPES = {
    "convolution": LayerShape(2, 6, 8, (9, 7), (3, 3), (2, 1), (1, 0), (1, 2), (0, 0), groups=2),
    "depthwise": LayerShape(1, 6, 12, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1), (0, 0), groups=6),
    "transposed": LayerShape(2, 6, 4, (5, 5), (3, 3), (2, 2), (1, 1), (1, 1), (1, 0), groups=2, transposed=True),
    "of signals": LayerShape(2, 3, 8, (16,), (5,), (2,), (2,), (1,), (0,)),
    "linear": LayerShape(5, 7, 3),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_layer_alone_is_that_layer(kind: str) -> None:
    """The file computes what PyTorch's layer of that shape computes with the file's weights."""
    shape = SHAPES[kind]
    file, layer = one_layer.onnx_file(shape), one_layer.module(shape)
    w, b = (
        torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in onnx.load_from_string(file).graph.initializer
    )
    plain = layer if isinstance(layer, nn.Linear) else layer[0]  # type: ignore[index]
    plain.weight.data, plain.bias = w, nn.Parameter(b)
    x = torch.randn_like(one_layer.example(shape))
    expected = plain(x) if plain is layer else plain(x).relu()
    np.testing.assert_allclose(open_in_runtime(file)(x)[0], expected.detach(), rtol=1e-4, atol=1e-5)
    layer(x)  # BatchNorm fits


def test_depthwise_and_grouped_layers_are_measured_as_such() -> None:
    found = corners(LayerShape(1, 40, 80, (8, 8), (3, 3), groups=40))
    assert [(s.inputs, s.outputs, s.groups) for s, _ in found] == [(32, 64, 32), (48, 96, 48)]
    grouped = corners(LayerShape(1, 40, 36, (8, 8), (3, 3), groups=4))
    assert all(s.inputs % 4 == 0 and s.outputs % 4 == 0 and s.groups == 4 for s, _ in grouped)
    assert sum(share for _, share in grouped) == pytest.approx(1)


@pytest.mark.parametrize("name", ["eager", "onnx", "openvino"])
def test_a_network_is_timed_where_it_will_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino" if name == "openvino" else "torch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, table = network(), LatencyTable(name, batch=2)
    x = torch.randn(1, 3, 64, 64)
    small = netslim.slim(model, target_latency=0.8, latency=table, example_input=x, round_to="auto")
    large, less = table.measured([model, small], x)
    assert 0 < less < 1.5 * large  # other processes disturb
    run = runtimes.RUNTIMES[name].network(small, x)
    torch.testing.assert_close(run(x)[0], small(x).detach(), rtol=1e-4, atol=1e-5)


def test_a_runtime_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = runtimes.Runtime("Fast", lambda model, _: model, one_layer.module, ("no_such_package",), "fast")  # type: ignore
    monkeypatch.setitem(runtimes.RUNTIMES, "openvino", gone)
    with pytest.raises(
        ValueError, match=r"Fast is not installed \(no package no_such_package\): pip install 'netslim\["
    ):
        LatencyTable("openvino")
