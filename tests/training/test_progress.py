"""What a person sees on a real (pseudo-)terminal; dropout of a resumed run against that of an uninterrupted one."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from torch import nn

from netslim.data import InMemoryData, synthetic
from netslim.measure.environment import describe_run
from netslim.method.scale_bins import EDGES
from netslim.training.classification import SlimmingTask
from netslim.training.progress import EpochSeed, History


def on_a_terminal(*words: str) -> bytes:
    """What ``netslim`` shows on a terminal of 150 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "netslim", *words], stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # how a terminal says that the other side is closed
                break
            if not chunk:
                break
            seen += chunk
    os.close(ours)
    assert process.returncode == 0
    return seen


JOB = ["experiment=lab4_digits", "epochs=2", "finetune.epochs=0", "lambda=1e-2", "ratio=0.5"]


@pytest.mark.slow
def test_jobs_side_by_side_show_no_bars(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    assert b"batch" not in on_a_terminal("-m", "hydra/launcher=joblib", *JOB, f"outputs={tmp_path}")


@pytest.mark.slow
def test_a_terminal_gets_one_bar_with_epoch_loss_accuracy_and_dead_scales(tmp_path: Path) -> None:
    seen = on_a_terminal(*JOB, f"outputs={tmp_path}")
    bars = seen.decode().replace("\r\n", "\r").split("\r")
    last = [bar for bar in bars if bar.strip()][-1]
    for word in ("train_lambda=0.01_seed=0", "100%", "42/42", "epoch 2/2", "loss ", "accuracy ", "val ", "dead γ "):
        assert word in last
    assert seen.count(b"\n") == 1


def fitted(folder: Path, epochs: int, checkpoint: Path | None, noise: int, *more: Callback) -> tuple[nn.Module, Path]:
    """A network with dropout after `epochs`, from the checkpoint if given; `noise` disturbs the global generator."""
    torch.manual_seed(7)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4))
    torch.manual_seed(noise)
    source = partial(synthetic, train=96, test=8, size=4)
    data = InMemoryData(source, title="a set", mean=[0.5] * 3, std=[0.25] * 3, batch_size=32)
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[EpochSeed(0), *more],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    task = SlimmingTask(net, optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    return net, folder / "last.ckpt"


def test_dropout_of_a_resumed_epoch_is_that_of_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, _ = fitted(tmp_path, 3, None, noise=1)
    _, checkpoint = fitted(tmp_path, 2, None, noise=1)
    resumed, _ = fitted(tmp_path, 3, checkpoint, noise=2)
    for name, expected in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], expected), name


def test_the_seconds_of_an_interrupted_attempt_are_added():
    first, second = History(), History()
    first.earlier = 7.0
    second.load_state_dict(first.state_dict())
    assert 7.0 <= second.earlier < 8.0
    assert 107.0 <= describe_run("netslim")(earlier=100.0 + second.earlier)["seconds"] < 109.0


def test_every_epoch_has_the_histogram_of_its_scales_and_a_resumed_run_those_of_the_whole(tmp_path: Path) -> None:
    whole, first, second, unknown = (History() for _ in range(4))
    net, _ = fitted(tmp_path, 3, None, 1, whole)
    sizes = np.abs(net[2].weight.detach().numpy())
    assert whole.gammas[-1] == np.histogram(sizes, [0.0, *EDGES, np.inf])[0].tolist()
    _, checkpoint = fitted(tmp_path, 2, None, 1, first)
    fitted(tmp_path, 3, checkpoint, 2, second)
    assert second.gammas == whole.gammas
    assert [sum(counts) for counts in whole.gammas] == [16] * 3
    older = {key: value for key, value in first.state_dict().items() if key != "gammas"}
    unknown.load_state_dict(older)
    assert unknown.gammas == [[], []]
