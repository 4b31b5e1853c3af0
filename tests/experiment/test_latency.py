"""A target for latency, through the command. Oracle: where a millisecond is a multiply-add, the job of target_macs."""

from pathlib import Path

import pytest
import torch

import netslim
from netslim.experiment import paths
from netslim.measure import runtimes
from netslim.nets import VGG
from tests.clocks import multiply_adds
from tests.commands import small


def run(outputs: Path, *words: str) -> None:
    small(outputs, "finetune.epochs=0", "net.layers=[16,M,24]", *words)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        multiply_adds(patch, outputs / "cache")
        run(outputs, "target_latency=0.6", "latency.batch=2", "controls=[uniform]", "scan=true")
    run(outputs, "target_macs=0.6")
    return outputs / "lab"


def test_the_channels_are_those_of_the_cost(lab: Path) -> None:
    timed, macs = sorted(paths.load_jobs(lab), key=lambda job: job.of == "MACs")
    assert (timed.of, timed.ratio, timed.target) == ("latency", 0.4, {"target_latency": 0.6})
    assert timed.slim.layers == macs.slim.layers
    assert macs.slim.latency is None
    assert timed.slim.name.startswith("slim_lambda=0.01_target_latency=0.6_seed=0_")
    assert timed.slim.settings["latency"] == {"runtime": "eager", "batch": 2}
    assert "latency" not in macs.slim.settings


def test_predicted_and_measured_stand_side_by_side(lab: Path) -> None:
    slim = next(job.slim for job in paths.load_jobs(lab) if job.of == "latency")
    images, found = 2, slim.latency
    assert (found.batch, found.threads, found.runtime.split()[0]) == (images, 1, "PyTorch")
    for which, of in (("dense", slim.dense), ("slim", slim.small)):
        assert found.predicted[which] == pytest.approx(images * of.macs / 2)
        assert found.measured[which] == pytest.approx(images * of.macs / 2)
    text = (lab / "report" / "report.md").read_text()
    assert "| 40 % of latency | 1e-2 |" in text
    assert "slim, predicted | slim, measured" in text


def test_milliseconds_are_a_target_too(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    multiply_adds(monkeypatch, tmp_path / "cache")
    dense = netslim.count(VGG([16, "M", 24], num_classes=4), torch.zeros(1, 3, 8, 8)).macs / 2
    run(tmp_path, f"target_latency={dense / 2 + 0.5}")
    (job,) = paths.load_jobs(tmp_path / "lab")
    assert job.ratio == pytest.approx(0.5, abs=0.01)
    assert 0 < job.slim.latency.measured["slim"] <= dense / 2 + 0.5


WRONG = {
    "target_latency=0.5 target_macs=0.5": "target_macs=0.5 and target_latency=0.5 both say how much is removed",
    "target_latency=0.5 latency.runtime=onnxx": "'onnxx' is no runtime; there are eager, onnx, openvino",
    "target_latency=0.5 latency.runtime=openvino": "Fast is not installed (no package no_such_package): pip install",
    "target_latency=0.5 latency.batch=0": "batch must be a whole number of images, 1 or more, got 0",
    "ratio=0.5 latency.runtime=onnx": "latency.runtime=onnx has no effect without target_latency=…",
    "target_latency=0.5 schedule=gradual epochs=4": "target_latency is met in one cut after the training; choose",
    "target_latency=0.01": "target_latency 0.01 is out of reach: at least 0.",
    "slimming.target_latency=0.5": "there is no setting 'slimming.target_latency' here; write target_latency=…",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_is_refused(words: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    multiply_adds(monkeypatch, tmp_path / "cache")
    gone = runtimes.Runtime("Fast", lambda model, _: model, lambda shape: None, ("no_such_package",), "fast")
    monkeypatch.setitem(runtimes.RUNTIMES, "openvino", gone)
    with pytest.raises(SystemExit) as refused:
        run(tmp_path, *words.split())
    assert refused.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.strip().splitlines() if "error" in line]
    assert WRONG[words] in line
    assert not list(tmp_path.glob("*/*/weights.pt"))
