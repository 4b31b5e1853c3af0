"""``export=``: files at the end of a job. Oracle: the saved slim network, run in PyTorch and counted."""

from pathlib import Path

import onnxruntime
import pytest
import torch

import netslim
from netslim.experiment import paths
from netslim.experiment.findings import ExportRecord
from netslim.experiment.records import JobRecord, read
from netslim.measure import export
from netslim.nets import VGG
from tests.commands import call

WORDS = [
    "data=synthetic", "data.source.size=8", "data.source.train=64", "data.val_size=8", "logger=none", "name=lab",
    "net.layers=[8,M,12]", "net.in_channels=3", "epochs=1", "finetune.epochs=1", "target_macs=0.6", "lambda=0",
]  # fmt: skip


def run(outputs: Path, *words: str) -> None:
    call(*WORDS, f"outputs={outputs}", *words)


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
    assert not list(tmp_path.glob("lab/train_*/weights.pt"))
