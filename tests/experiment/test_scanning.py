"""``scan=true``: the scan of a job's trained network. Oracle: the library's scan of the saved weights."""

from pathlib import Path

import pytest

from netslim.experiment import paths
from netslim.experiment.findings import ScanRecord
from tests.commands import call

WORDS = [
    "data=synthetic", "data.source.size=8", "data.source.train=64", "logger=none", "name=lab", "net.layers=[8,M,12]",
    "net.in_channels=3", "epochs=1", "finetune.epochs=0", "lambda=0", "scan=true",
]  # fmt: skip


def run(outputs: Path, *words: str) -> None:
    call(*WORDS, f"outputs={outputs}", *words)


def test_a_scan_stands_before_the_cut_and_in_the_report(tmp_path, capsys):
    run(tmp_path, "ratio=0.5", "data.val_size=16")
    out = capsys.readouterr().out
    assert out.index("layers that bear it least") < out.index("removed 10 of 20 channels")
    (job,) = paths.load_jobs(tmp_path / "lab")
    (scan,) = job.beside
    assert isinstance(scan, ScanRecord)
    assert scan.points[0].ratio == 0.1
    assert len(scan.points) == 12
    assert set(scan.layers) == {layer.name for layer in job.slim.layers}
    (half,) = [point for point in scan.points if point.ratio == 0.5]
    assert (half.params, half.macs) == (job.slim.params_left, job.slim.macs_left)
    assert all(accuracy * 16 == int(accuracy * 16) for accuracy in (scan.accuracy, *scan.layers.values()))
    text = (tmp_path / "lab" / "report" / "report.md").read_text()
    assert "A Scan before the Cut" in text
    run(tmp_path, "ratio=0.3", "data.val_size=16")
    assert len(list((tmp_path / "lab").glob("scan_*"))) == 1  # jobs of one training share it


def test_without_validation_data_it_is_refused_before_the_training(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "data.val_size=0")
    assert "scan=true needs validation data, and there is none; set data.val_size=0.1" in capsys.readouterr().err
    assert not list(tmp_path.glob("lab/train_*/weights.pt"))
