"""Through the command: images in another folder are the same data; images and weights changed in place are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netslim.experiment import paths

OWN = """
import torch
from netslim.nets import VGG
def net(num_classes, weights):
    network = VGG([8, "M", 8], in_channels=3, num_classes=num_classes)
    network.features[1].weight.data = torch.load(weights)["gamma"]
    return network
"""
WORDS = ["net._target_=own.net", "~net.layers", "~net.in_channels", "data=image_folder", "data.crop_padding=0"]
WORDS += ["data.image_size=8", "data.num_workers=0", "data.val_size=0", "data.title=toy", "epochs=1"]
WORDS += ["finetune.epochs=0", "threads=1", "lambda=1e-3", "ratio=0.3", "name=s"]


def pictures(root: Path) -> None:
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for i in range(8):
                Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                    root / part / name / f"{i}.bmp"
                )


@pytest.mark.slow
def test_data_and_weights_are_what_they_are_and_not_where(tmp_path):
    import torch

    def netslim(root: Path) -> str:
        words = [*WORDS, f"+net.weights={tmp_path}/gamma.pt", f"data.root={root}", f"outputs={tmp_path}/out"]
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        command, environment = [sys.executable, "-m", "netslim", *words], {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        assert done.returncode == 0, done.stdout
        return done.stdout

    (tmp_path / "own.py").write_text(OWN)
    torch.save({"gamma": torch.full((8,), 0.5)}, tmp_path / "gamma.pt")
    pictures(tmp_path / "scratch")
    sweep = tmp_path / "out" / "s"
    assert "epoch 1/1" in netslim(tmp_path / "scratch")

    shutil.copytree(tmp_path / "scratch", tmp_path / "home" / "set")
    again = netslim(tmp_path / "home" / "set")
    assert "epoch 1/1" not in again
    assert "Report:" in again
    assert len(paths.load_jobs(sweep)) == 1

    victim = tmp_path / "home" / "set" / "train" / "a" / "0.bmp"
    size = victim.stat().st_size
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(victim)
    assert victim.stat().st_size == size
    changed = netslim(tmp_path / "home" / "set")
    assert "epoch 1/1" in changed
    assert len(paths.load_jobs(sweep)) == 2
    assert "data.root=" in (sweep / "report" / "report.md").read_text()  # two groups, named by what the data are

    torch.save({"gamma": torch.full((8,), 0.25)}, tmp_path / "gamma.pt")
    assert "epoch 1/1" in netslim(tmp_path / "scratch")
    assert len(paths.load_jobs(sweep)) == 3
