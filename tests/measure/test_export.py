"""Oracles: the network itself on inputs that no exporter saw, in a process in which netslim cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import netslim
from netslim.measure.export import FORMATS, check_formats, export
from netslim.nets import PreResNet

ALONE = """
import sys
sys.modules["netslim"] = None  # an import of it fails
import torch, onnxruntime
from safetensors.torch import load_file

folder = sys.argv[1]
x = torch.load(f"{folder}/x.pt")
with torch.no_grad():
    pt2 = torch.export.load(f"{folder}/slim.pt2").module()(x)
    script = torch.jit.load(f"{folder}/slim.torchscript")(x)
session = onnxruntime.InferenceSession(f"{folder}/slim.onnx", providers=["CPUExecutionProvider"])
(onnx,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
tensors = load_file(f"{folder}/slim.safetensors")
torch.save({"pt2": pt2, "torchscript": script, "onnx": torch.from_numpy(onnx), "tensors": tensors}, f"{folder}/y.pt")
"""


@pytest.fixture
def slim() -> nn.Module:
    """A network that selects, and scatters."""
    torch.manual_seed(0)
    model, x = PreResNet(11), torch.randn(1, 3, 16, 16)
    for bn in netslim.bn_layers(model).values():
        nn.init.uniform_(bn.weight)
    return netslim.slim(model, netslim.select_channels(model, 0.5, x, coupling="scatter"), x)


@pytest.mark.slow
def test_every_file_computes_the_same_in_a_process_without_netslim(slim: nn.Module, tmp_path: Path) -> None:
    files = export(slim, torch.randn(2, 3, 16, 16), tmp_path, list(FORMATS))
    assert slim.training
    assert [(file.format, file.path.name) for file in files] == [
        (name, f"slim{f.suffix}") for name, f in FORMATS.items()
    ]
    x = torch.randn(5, 3, 16, 16)
    torch.save(x, tmp_path / "x.pt")
    command = [sys.executable, "-W", "ignore", "-c", ALONE, str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path)
    expected, got = slim.eval()(x).detach(), torch.load(tmp_path / "y.pt")
    for name in ("onnx", "pt2", "torchscript"):
        torch.testing.assert_close(got[name], expected, rtol=1e-4, atol=1e-5)
    state = slim.state_dict()
    assert got["tensors"].keys() == state.keys()
    assert all(torch.equal(tensor, got["tensors"][name]) for name, tensor in state.items())


class Network(nn.Module):
    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x)


PROGRAMS = ["onnx", "pt2", "torchscript"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_branch_on_values_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^Network branches on the values of a tensor \(test_export.py:\d+\), .*where"
    ):
        export(Network(lambda x: x if x.mean() > 0 else -x), torch.ones(2, 3), tmp_path, [name])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_computes_something_else_on_fresh_inputs_is_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError, match=rf"^{FORMATS[name].runtime} deviates from PyTorch by"):
        export(Network(lambda x: x + torch.rand_like(x)), torch.ones(2, 50), tmp_path, [name])
    assert not list(tmp_path.iterdir())


def test_a_trace_that_holds_for_its_example_alone_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError, match="TorchScript deviates"):
        export(Network(lambda x: x * float(x.sum())), torch.ones(2, 3), tmp_path, ["torchscript"])


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (lambda x: x.reshape(2, -1), "its code holds for one batch size only"),
        (lambda x: x * float(x.sum()), "depends on the values of a tensor"),
    ],
)
def test_what_torch_export_refuses_is_said_in_one_line(
    compute: Callable[[Tensor], Tensor], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"^Network cannot be written as pt2: .*{reason}") as refusal:
        export(Network(compute), torch.ones(2, 3), tmp_path, ["pt2"])
    assert "\n" not in str(refusal.value)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs the package safetensors: pip install 'netslim\[safetensors\]'"
    ):
        check_formats(["pt2", "safetensors"])
