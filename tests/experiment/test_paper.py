"""The paper's experiments on a handful of images: stopped by SIGTERM in every training, given again, finished."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from netslim.experiment import paths

SMALL = {"paper_vgg19": "net.width=0.125", "paper_resnet164": "net.depth=11", "paper_densenet40": "net.depth=7"}
RATIOS = {"paper_vgg19": {0.7}, "paper_resnet164": {0.4, 0.6}, "paper_densenet40": {0.4, 0.6}}
STRENGTH = {"paper_vgg19": 1e-4, "paper_resnet164": 1e-5, "paper_densenet40": 1e-5}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for part, count in (("train", 8), ("test", 2)):
        for name in "abc":
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for number in range(count):
                picture = torch.randint(256, (32, 32, 3), dtype=torch.uint8).numpy()
                Image.fromarray(picture).save(tmp_path / "images" / part / name / f"{number}.jpg")
    return tmp_path / "images"


def slice_of(command: list[str], outputs: Path, stop: str) -> int:
    """The exit code of the command, which gets SIGTERM as soon as there is a file of the pattern ``stop``."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None and not list(outputs.glob(stop)):
        time.sleep(0.01)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode in (0, 128 + signal.SIGTERM), output
    return process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("experiment", SMALL)
def test_a_paper_experiment_in_slices(experiment: str, images: Path, tmp_path: Path) -> None:
    words = ["data=cifar10_jpeg", f"data.root={images}", "epochs=4", "finetune.epochs=4", SMALL[experiment], "seed=0"]
    command = [sys.executable, "-m", "netslim", "-m", f"experiment={experiment}", f"outputs={tmp_path}", *words]
    stopped = 0
    for stage in ("train", "finetune"):
        stopped += slice_of(command, tmp_path / experiment, f"{stage}_*/last.ckpt") == 128 + signal.SIGTERM
    assert stopped >= 1
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Report:" in done.stdout
    jobs = paths.load_jobs(tmp_path / experiment)
    assert {job.ratio for job in jobs} == RATIOS[experiment]
    for job in jobs:
        assert job.strength == STRENGTH[experiment]
        assert job.train.data == "CIFAR-10 (JPEG copy)"
        for stage in ("train", "finetune"):
            assert [row["epoch"] for row in getattr(job, stage).epochs] == [1, 2, 3, 4]
            assert [row["lr"] for row in getattr(job, stage).epochs] == pytest.approx([0.1, 0.1, 0.01, 0.001])
