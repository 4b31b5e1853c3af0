"""``export=``: files at the end of a job. Oracle: the saved slim network, run in PyTorch and counted."""

import sys
from functools import partial
from pathlib import Path

import onnxruntime
import pytest
import torch

import netslim
from netslim.experiment import exporting, paths
from netslim.experiment.findings import ExportRecord
from netslim.experiment.records import JobRecord, read
from netslim.measure import export
from netslim.measure.latency import Latency, in_turns
from netslim.nets import VGG
from tests.commands import small


def run(outputs: Path, *words: str) -> None:
    small(outputs, "target_macs=0.6", "lambda=0", *words)


def test_a_job_ends_in_files_and_a_table(tmp_path, capsys):
    run(tmp_path, "export=[onnx,pt2]")
    out = capsys.readouterr().out
    (job,) = paths.load_jobs(tmp_path / "lab")
    (folder,) = (tmp_path / "lab").glob("export_*")
    record = paths.stage_record(folder, ExportRecord)
    dense = VGG([8, "M", 12], num_classes=4)
    small = netslim.load(tmp_path / "lab" / job.finetune.name / "slim.pt", dense).eval()
    x = torch.randn(3, 3, 8, 8)
    session = onnxruntime.InferenceSession(folder / "slim.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), small(x).detach(), rtol=1e-4, atol=1e-5)
    assert [file.name for file in record.files] == ["slim.onnx", "slim.pt2"]
    for network, costs, test in ((dense, record.dense, job.slim.dense.test), (small, record.small, job.finetune.test)):
        cost = netslim.count(network, x[:1])
        assert (costs.params, costs.macs, costs.test.correct) == (cost.params, cost.macs, test.correct)
    assert "unused nodes" not in out  # the exporter's own steps
    assert f"{record.dense.params:,}" in out
    assert f"{folder / 'slim.onnx'} (ONNX Runtime" in out
    accuracies = [f"{costs.test.correct / costs.test.total:.2%}" for costs in (record.dense, record.small)]
    assert [line.split() for line in out.splitlines() if "test accuracy" in line][-1] == [
        "test",
        "accuracy",
        *accuracies,
    ]


def test_each_file_is_timed_beside_the_dense_network(tmp_path, monkeypatch, capsys):
    """The clock notes what each run makes of an image, and tells the number of the run."""
    x, made = torch.randn(1, 3, 8, 8), []

    def clock(run, example, seconds):
        made.append(run(x)[0])
        return Latency(median=float(len(made)), p90=0.0, batch=1, runs=1, threads=1)

    monkeypatch.setattr(exporting, "latency_of", clock)
    monkeypatch.setattr(exporting, "in_turns", partial(in_turns, turns=1))
    run(tmp_path, "export=[onnx,torchscript,safetensors,int8]", "data.batch_size=16")
    out = capsys.readouterr().out
    (folder,) = (tmp_path / "lab").glob("export_*")
    record, (job,) = paths.stage_record(folder, ExportRecord), paths.load_jobs(tmp_path / "lab")
    small = netslim.load(tmp_path / "lab" / job.finetune.name / "slim.pt", VGG([8, "M", 12], num_classes=4)).eval()
    expected = small(x).detach()
    for dense, slim, close in ((0, 1, 1e-4), (2, 3, 1e-4), (4, 5, 0.3)):  # the last has 8 bits
        assert (made[slim] - expected).norm() < close * expected.norm() < (made[dense] - expected).norm()
    names = ["slim.onnx", "slim.torchscript", "slim.safetensors", "slim.int8.onnx"]
    assert [file.name for file in record.files] == names
    times = [{"dense": 1.0, "slim": 2.0}, {"dense": 3.0, "slim": 4.0}, {}, {"dense": 5.0, "slim": 6.0}]
    assert [file.latency for file in record.files] == times
    rows = {line.split("  ")[0]: line.split()[-3:] for line in out.splitlines() if line.startswith("ms, ")}
    assert rows.pop("ms, PyTorch")
    assert rows == {
        "ms, slim.onnx": ["1.00", "2.00", "0.50"],
        "ms, slim.torchscript": ["3.00", "4.00", "0.75"],
        "ms, slim.int8.onnx": ["5.00", "6.00", "0.83"],
    }
    assert "slim.onnx, slim.torchscript, slim.int8.onnx: try slimming.round_to=auto" in out


def test_what_is_exported_later_is_added_to_the_same_job(tmp_path):
    run(tmp_path)
    (folder,) = (tmp_path / "lab").glob("job_*")
    assert read(folder / "record.json", JobRecord).beside == []
    run(tmp_path, "export=safetensors")
    assert list((tmp_path / "lab").glob("job_*")) == [folder]
    (name,) = read(folder / "record.json", JobRecord).beside
    assert (tmp_path / "lab" / name / "slim.safetensors").exists()


def test_an_export_that_fails_loses_no_job(tmp_path, monkeypatch, capsys):
    def fail(*_: object) -> bytes:
        raise RuntimeError("no")

    monkeypatch.setattr(export, "written", fail)
    with pytest.raises((SystemExit, RuntimeError)):
        run(tmp_path, "export=[onnx]")
    assert len(paths.load_jobs(tmp_path / "lab")) == 1


def test_an_unknown_format_is_refused_before_the_training(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "export=[onx]")
    assert "'onx' is no export format; there are onnx, pt2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path, "export=[pt2,int8]")
    assert "export=int8 makes its file of the ONNX file; write export=[onnx,int8]" in capsys.readouterr().err
    assert not list(tmp_path.glob("lab/train_*/weights.pt"))


def test_a_format_whose_package_is_missing_is_refused_before_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "export=[onnx]")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "netslim: error: ONNX needs the package onnxscript: pip install 'netslim[onnx]'"
    assert not list(tmp_path.glob("lab/train_*/weights.pt"))
