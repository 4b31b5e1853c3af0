"""The modern loop trains as netslim does, on images cut as it says; the table says what was measured."""

from __future__ import annotations

import subprocess
import sys

import modern_loop
import plain_loop
import pytest
import torch
import train_vs_modern
from test_train_vs_plain import MEAN, SGD, STD, STRENGTH, losses, small

from netslim.data import synthetic

CPU = torch.device("cpu")


def test_its_losses_are_those_of_netslim_on_the_same_batches() -> None:
    ours, _, batches = losses(small, steps=30, batch=16, dtype=torch.float64)
    torch.manual_seed(0)
    network, found = small().double(), []
    more = {"optimizer": SGD(network.parameters()), "strength": STRENGTH, "clock": plain_loop.Clock(CPU)}
    modern_loop.train(network, batches, after_step=lambda loss: found.append(loss.item()), **more)
    assert (ours - torch.tensor(found, dtype=torch.float64)).abs().max() < 1e-10


@pytest.mark.parametrize("flip", [False, True])
def test_an_epoch_has_every_image_once_cut_somewhere(flip: bool) -> None:
    images = synthetic(train=7, test=1, size=4, channels=3)
    batches = list(modern_loop.Batches(images, MEAN, STD, 3, CPU, padding=1, flip=flip))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    padded = torch.nn.functional.pad(images.train, (1,) * 4)
    cuts = {}
    for index in range(7):
        for top in range(3):
            for left in range(3):
                cut = padded[index, :, top : top + 4, left : left + 4]
                cuts |= {as_key(each): index for each in ([cut, cut.flip(2)] if flip else [cut])}
    bytes_of = [image * 0.25 * 255 + 0.5 * 255 for given, _ in batches for image in given]
    assert sorted(cuts[as_key(image.round().to(torch.uint8))] for image in bytes_of) == list(range(7))


def as_key(image: torch.Tensor) -> bytes:
    return image.contiguous().numpy().tobytes()


def test_the_table_says_what_was_measured() -> None:
    steps = {"modern": [0.1, 0.2, 0.1], "Lightning": [0.12, 0.24, 0.13], "netslim": [0.13, 0.25, 0.13]}
    ends = {"modern": [0.0] * 3, "Lightning": [0.001] * 3, "netslim": [0.01, 0.03, 0.02]}
    assert train_vs_modern.row("net", steps, ends) == "| net | 100.00 | 130.00 | 130.00 | 1.20 | 1.30 | 20.0 |"


@pytest.mark.slow
def test_the_command_runs() -> None:
    words = ["--networks", "vgg_digits", "--turns", "1", "--epochs", "3"]
    done = subprocess.run(
        [sys.executable, train_vs_modern.__file__, *words], capture_output=True, text=True, check=True
    )
    head, _, line = done.stdout.splitlines()
    assert head == train_vs_modern.HEAD
    cells = [float(cell) for cell in line.split(" | ")[1:-1]]
    assert 0.5 < cells[3] < 3
