"""Oracles: ONNX Runtime on the written file with other data than the export saw, sleeping modules, costs by hand."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import netslim
from netslim import files
from netslim.launch import export
from netslim.measure.export import to_onnx
from netslim.nets import VGG, PreResNet


def run_onnx(path: Path, **inputs: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {name: x.numpy() for name, x in inputs.items()})
    return torch.from_numpy(result)


@pytest.mark.slow
def test_a_slim_network_with_selections_runs_in_onnx_runtime_at_any_batch_size(tmp_path: Path) -> None:
    model, x = PreResNet(20), torch.randn(1, 3, 16, 16)
    for bn in netslim.bn_layers(model).values():
        nn.init.uniform_(bn.weight)
    small = netslim.slim(model, netslim.select_channels(model, ratio=0.5, example_input=x), example_input=x)
    assert any(name.endswith("channel_index") for name, _ in small.named_buffers())
    deviation = to_onnx(small, x, tmp_path / "small.onnx")
    assert small.training
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]  # weights included
    images = torch.randn(5, 3, 16, 16)
    expected = small.eval()(images).detach()
    torch.testing.assert_close(run_onnx(tmp_path / "small.onnx", images=images), expected, rtol=1e-4, atol=1e-5)
    assert deviation < 1e-4 * float(expected.abs().max())


class Difference(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first - 2 * second


def test_keyword_inputs_keep_their_names(tmp_path: Path) -> None:
    first, second = torch.randn(2, 3), torch.randn(2, 3)
    to_onnx(Difference(), {"second": second, "first": first}, tmp_path / "a.onnx")
    assert torch.equal(run_onnx(tmp_path / "a.onnx", first=first, second=second), first - 2 * second)
    to_onnx(Difference(), (first, second), tmp_path / "b.onnx")
    assert torch.equal(run_onnx(tmp_path / "b.onnx", first=first, second=second), first - 2 * second)


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_a_network_that_computes_something_else_there_is_refused_and_not_written(tmp_path: Path) -> None:
    with pytest.raises(
        ArithmeticError, match=r"ONNX Runtime deviates from PyTorch by [\d.]+ where the largest output is"
    ):
        to_onnx(Random(), torch.randn(2, 50), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_the_table_counts_parameters_and_multiplications() -> None:
    dense, small = (nn.Sequential(nn.Conv2d(1, c, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * c, 2)) for c in (8, 2))
    lines = export.compare(dense, small, torch.randn(5, 1, 4, 4), seconds=0.01).splitlines()
    # convolution: c·(9 + 1) parameters, 4 places · 9·c MACs; linear: 8c + 2 parameters, 8c MACs
    assert lines[2] == "| parameters | 146 | 38 | 3.84× |"
    assert lines[3] == "| MACs | 352 | 88 | 4.00× |"
    names = [line.split("|")[1].strip() for line in lines[4:]]
    assert names == [f"latency in ms, batch of {n}, {what}" for n in (1, 64) for what in ("median", "p90")]
    for line in lines[4:]:
        large, little, ratio = (float(cell.strip(" ×")) for cell in line.split("|")[2:5])
        assert large > 0
        assert little > 0
        assert ratio > 0


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A finished job, as the pipeline leaves it; the fine-tuned network differs from the slim one."""
    settings = {
        "net": {"_target_": "netslim.nets.VGG", "layers": [8, "M", 8], "in_channels": 2},
        "data": {
            "_target_": "netslim.data.InMemoryData",
            "title": "synthetic",
            "source": {"_target_": "netslim.data.synthetic", "_partial_": True, "size": 6, "channels": 2, "classes": 3},
            "mean": [0.5, 0.5],
            "std": [0.2, 0.2],
        },
    }
    folder, x = tmp_path / "sweep", torch.randn(1, 2, 6, 6)
    dense = VGG([8, "M", 8], num_classes=3, in_channels=2)
    files.write_json(folder / "train_0" / "settings.json", settings)
    files.write_tensors(folder / "train_0" / "weights.pt", dense.state_dict())
    small = netslim.slim(dense, netslim.select_channels(dense, ratio=0.5, example_input=x), example_input=x)
    for name, record in {
        "train_0": {"stage": "train"},
        "slim_0": {"stage": "slim", "train": "train_0"},
        "finetune_0": {"stage": "finetune", "slim": "slim_0"},
        "job_0": {"train": "train_0", "slim": "slim_0", "finetune": "finetune_0"},
        "job_1": {"train": "train_0", "slim": "slim_0", "finetune": None},
    }.items():
        files.write_json(folder / name / "record.json", record)
    netslim.save(small, folder / "slim_0" / "slim.pt")
    nn.init.normal_(small.classifier.weight)
    netslim.save(small, folder / "finetune_0" / "slim.pt")
    return folder


def test_a_job_is_exported_with_its_last_network(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    assert export.main([str(sweep / "job_0"), "--threads", "2", "--seconds", "0.01"]) == 0
    told = capsys.readouterr().out
    assert "finetune_0: netslim.nets.VGG, input (2, 6, 6)" in told
    assert "2 threads" in told
    assert torch.get_num_threads() == before
    # dense: 8·2·9 + 16 + 8·8·9 + 16 + 3·8 + 3; MACs 36·144 + 9·576 + 24. Half of the channels are gone:
    ((_, dense, slim, _),) = [line.strip("| ").split(" | ") for line in told.splitlines() if line.startswith("| MACs")]
    assert dense == "10,392"
    network = netslim.load(sweep / "finetune_0" / "slim.pt", VGG([8, "M", 8], num_classes=3, in_channels=2)).eval()
    assert slim == f"{netslim.count(network, torch.zeros(1, 2, 6, 6)).macs:,}"
    images = torch.randn(4, 2, 6, 6)
    given = run_onnx(sweep / "finetune_0" / "slim.onnx", images=images)
    torch.testing.assert_close(given, network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "last"), [("job_0", "finetune_0"), ("job_1", "slim_0"), ("slim_0", "slim_0")])
def test_each_folder_leads_to_its_networks(sweep: Path, name: str, last: str) -> None:
    dense, small, folder, _ = export.rebuild(sweep / name)
    assert folder == sweep / last
    assert (dense.features[0].out_channels, dense.classifier.out_features) == (8, 3)
    saved = torch.load(sweep / last / "slim.pt", weights_only=True)["state"]
    assert torch.equal(small.classifier.weight, saved["classifier.weight"])
    trained = torch.load(sweep / "train_0" / "weights.pt", weights_only=True)
    assert torch.equal(dense.classifier.weight, trained["classifier.weight"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no record.json in"),
        (["train_0"], "holds a dense network; give the folder of a job, a slim or a finetune stage"),
        (["slim_0", "--input", "6,6"], "netslim-export: --input 6,6 is not C,H,W"),
    ],
)
def test_a_wrong_call_is_answered_in_one_line(
    sweep: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([str(sweep / arguments[0]), *arguments[1:]]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_without_the_data_the_shape_is_asked_for(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = files.read_json(sweep / "train_0" / "settings.json")
    settings["data"] = {"_target_": "netslim.data.image_folder", "root": str(sweep / "images")}
    files.write_json(sweep / "train_0" / "settings.json", settings)
    assert export.main([str(sweep / "slim_0")]) == 2
    assert "the data does not tell the input's shape, so give it, as in --input 3,32,32" in capsys.readouterr().err


def test_other_weights_are_named(sweep: Path) -> None:
    files.write_tensors(sweep / "train_0" / "weights.pt", VGG([4, "M", 8], num_classes=3, in_channels=2).state_dict())
    with pytest.raises(ValueError, match=r"weights.pt does not fit netslim.nets.VGG: (.|\n)*features.0.weight"):
        export.rebuild(sweep / "slim_0")


@pytest.mark.slow
def test_every_format_is_written_checked_and_timed_in_its_runtime(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = "onnx,pt2,torchscript,safetensors"
    options = ["--format", formats, "--int8", "--out", str(tmp_path / "out" / "net.onnx"), "--batch", "3"]
    assert export.main([str(sweep / "job_0"), *options, "--threads", "1", "--seconds", "0.01"]) == 0
    told = capsys.readouterr().out
    names = ["net.int8.onnx", "net.onnx", "net.pt2", "net.safetensors", "net.torchscript"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
    runtimes = ("ONNX Runtime", "torch.export", "TorchScript", "ONNX Runtime, int8, dense in 32 bits")
    for where in ("", *(f" in {name}" for name in runtimes)):
        rows = [f"| latency{where} in ms, batch of {n}, {what} |" for n in (1, 3) for what in ("median", "p90")]
        assert all(row in told for row in rows)
    assert told.count("\nwrote ") == 5
    small = netslim.load(sweep / "finetune_0" / "slim.pt", VGG([8, "M", 8], num_classes=3, in_channels=2)).eval()
    images = 2 * torch.rand(256, 2, 6, 6) - 1
    expected, eight = small(images).detach(), run_onnx(tmp_path / "out" / "net.int8.onnx", images=images)
    assert 0 < float((eight - expected).norm() / expected.norm()) < 0.2
    assert (tmp_path / "out" / "net.int8.onnx").read_bytes() != (tmp_path / "out" / "net.onnx").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onnx,tflite"], "'tflite' is no export format; there are onnx, pt2, torchscript, safetensors"),
        (["--format", "pt2", "--int8"], "--int8 makes its file of the ONNX file: give --format onnx, too"),
        (["--threads", "0"], "--threads must be 1 or more, got 0"),
    ],
)
def test_a_wrong_option_is_answered_before_anything_is_read(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main(["nowhere", *options]) == 2
    assert capsys.readouterr().err == f"netslim-export: {message}\n"


def test_a_slim_network_that_is_not_faster_is_warned_of() -> None:
    """Oracle: what is called sleeps for a known time."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    fast, slow = (lambda x, t=t: time.sleep(t) for t in (0.001, 0.004))
    runtimes = {"A": (fast, slow), "B": (slow, fast)}
    told = export.compare(network, network, torch.zeros(1, 4), seconds=0.05, batch=2, runtimes=runtimes)
    (warning,) = [line for line in told.splitlines() if line.startswith("Warning: the slim network is not faster")]
    assert re.search(r" in A at a batch of 1 \(0\.[1-5]\d×\), nor in A at a batch of 2", warning)
    assert " in B" not in warning


def test_a_missing_extra_says_what_to_install(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export.main([str(sweep / "slim_0")]) == 2
    assert (
        capsys.readouterr().err == "netslim-export: ONNX needs the package onnxruntime: pip install 'netslim[onnx]'\n"
    )
