"""A whole job on two gloo processes in float64. Oracle: the job of one process with the same global batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from netslim import files
from netslim.experiment import paths
from tests.commands import call

CONTROLS = ["scratch", "uniform-macs", "random", "dense"]
WORDS = [
    "net=own", "net._target_=tests.experiment.frozen_norms.Net", "data=synthetic", "data.source.train=64",
    "data.source.test=16", "data.source.size=8", "data.val_size=16", "threads=1", "name=s", "logger=none",
    "lambda=1e-2", "ratio=0.5", "epochs=1", "finetune.epochs=1", "finetune.distill=0.7",
    "slimming.recalibration_batches=0", "trainer.precision=64-true", "controls=[scratch,uniform_macs,random,dense]",
]  # fmt: skip
TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Those that a training left, of a dense network or of a slim one."""
    (path,) = folder.glob("*.pt")
    found = files.read_tensors(path)
    return found.get("state", found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Found 2 module.* in eval mode at the start of training")
def test_controls_and_distillation_of_two_processes_equal_those_of_one(tmp_path: Path) -> None:
    call(*WORDS, "data.batch_size=16", f"outputs={tmp_path / '1'}")
    words = [*WORDS, *TWO, "data.batch_size=8", f"outputs={tmp_path / '2'}"]
    done = subprocess.run([sys.executable, "-m", "netslim", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (one,), (two,) = (paths.load_jobs(tmp_path / number / "s") for number in "12")
    assert [record.stage for record in two.controls] == CONTROLS
    assert [layer.kept for layer in two.cut.layers] == [layer.kept for layer in one.cut.layers]
    for mine, other in zip([*two.trainings, *two.controls], [*one.trainings, *one.controls], strict=True):
        assert mine.train_macs == other.train_macs
        assert (mine.test.correct, mine.test.total) == (other.test.correct, other.test.total)
        assert mine.epochs == [pytest.approx(row, rel=1e-6) for row in other.epochs]
        folders = tmp_path / "2" / "s" / mine.name, tmp_path / "1" / "s" / other.name
        torch.testing.assert_close(*map(weights, folders))
    for record, other in zip(two.controls, one.controls, strict=True):
        assert (record.widths, record.params, record.macs) == (other.widths, other.params, other.macs)
