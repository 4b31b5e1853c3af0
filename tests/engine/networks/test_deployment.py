"""What tools make of slim networks that select and scatter. Oracle: the masked network, which does neither."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.fx.experimental.optimization import fuse

import netslim
from tests.engine.conftest import Residual


class Preactivated(Residual):
    """The BN layers read the stream, each its own channels of it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1),
                nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1),
            )
            for _ in range(2)
        )  # fmt: skip


BUFFER = {Residual: "channel_place", Preactivated: "channel_index"}


class Pair(NamedTuple):
    small: nn.Module
    masked: nn.Module
    x: Tensor


@pytest.fixture(params=[Residual, Preactivated])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    torch.manual_seed(0)
    model, x = request.param(), torch.randn(8, 3, 16, 16)
    for layer in netslim.bn_layers(model).values():
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.normal_(layer.bias)
    model(x)  # statistics that matter
    keep = netslim.select_channels(model.eval(), 0.5, x, coupling="scatter")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that PyTorch deprecates its tools is not the point
        small = netslim.slim(model, keep, x)
        assert any(name.endswith(BUFFER[request.param]) for name in small.state_dict())
        yield Pair(small, netslim.mask(model, keep), x)


def assert_same(made: nn.Module, pair: Pair) -> None:
    expected = pair.masked(pair.x).detach()
    torch.testing.assert_close(made(pair.x).detach(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def error(made: nn.Module, pair: Pair) -> float:
    expected = pair.masked(pair.x).detach()
    return float((made(pair.x) - expected).norm() / expected.norm())


def test_batchnorm_is_folded_into_convolutions(pair: Pair) -> None:
    fused, expected = fuse(pair.small), fuse(pair.masked)
    assert_same(fused, pair)
    left = [sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) for network in (fused, expected)]
    assert left[0] == left[1] < len(netslim.bn_layers(pair.small))


def test_quantised_by_fx(pair: Pair) -> None:
    errors = []
    for network in (pair.small, pair.masked):
        prepared = prepare_fx(copy.deepcopy(network), get_default_qconfig_mapping("x86"), (pair.x,))
        prepared(pair.x)
        errors.append(error(convert_fx(prepared), pair))
    assert 0 < errors[0] < max(0.1, 2 * errors[1])


@pytest.mark.parametrize("pair", [Residual], indirect=True)
def test_quantised_by_pt2e(pair: Pair) -> None:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantiser = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(pair.small, (pair.x,)).module(), quantiser)
    assert_same(prepared, pair)
    assert 0 < error(convert_pt2e(prepared), pair) < 0.1


def test_scripted(pair: Pair) -> None:
    assert_same(torch.jit.script(pair.small), pair)


def test_with_synchronised_batchnorm(pair: Pair) -> None:
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(pair.small))
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in converted.modules()) == len(netslim.bn_layers(pair.small))
    assert_same(converted, pair)
    assert converted.state_dict().keys() == pair.small.state_dict().keys()


ALONE = """
import sys
sys.modules["netslim"] = None  # an import of it fails
import torch
folder = sys.argv[1]
network = torch.load(f"{folder}/network.pt", weights_only=False)
torch.save(network(torch.load(f"{folder}/x.pt")), f"{folder}/y.pt")
"""


@pytest.mark.slow
def test_a_pickle_of_its_graph_needs_no_netslim(pair: Pair, tmp_path: Path) -> None:
    traced = torch.fx.symbolic_trace(pair.small)
    assert b"netslim" not in pickle.dumps(traced)
    torch.save(traced, tmp_path / "network.pt")
    torch.save(pair.x, tmp_path / "x.pt")
    subprocess.run([sys.executable, "-W", "ignore", "-c", ALONE, str(tmp_path)], check=True, cwd=tmp_path)
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), pair.small(pair.x).detach())


def test_it_is_trained_and_compiled_by_names_that_stay(pair: Pair) -> None:
    dense, slim = pair.masked.state_dict(), pair.small.state_dict()
    assert {name for name in slim if not name.rpartition(".")[2].startswith("channel_")} == dense.keys()
    assert netslim.bn_layers(pair.small).keys() == netslim.bn_layers(pair.masked).keys()
    again = copy.deepcopy(pair.small)
    for parameter in again.parameters():
        nn.init.zeros_(parameter)
    again.load_state_dict(slim)
    assert_same(again, pair)
