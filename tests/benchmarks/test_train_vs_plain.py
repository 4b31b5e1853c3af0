"""Both sides of the benchmark train the same network on the same batches: their losses are equal; and its tables."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import memory
import plain_loop
import pytest
import slim_speed
import torch
import train_tables
import train_vs_plain
from lightning import Callback, Trainer
from torch import Tensor, nn

import netslim
from netslim.data import InMemoryData, synthetic
from netslim.nets import VGG, DenseNet, PreResNet, vgg
from netslim.training.classification import SlimmingTask

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4)
STRENGTH = 1e-2  # strong enough to be seen in 50 steps
MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


class Recorded(InMemoryData):
    """Keeps the batches that it gives, in a network's precision."""

    def __init__(self, steps: int, batch_size: int, dtype: torch.dtype) -> None:
        source = partial(synthetic, train=steps * batch_size, test=1, size=32)
        super().__init__(source, title="a set", mean=MEAN, std=STD, batch_size=batch_size, crop_padding=4, flip=True)
        self.dtype, self.batches = dtype, []

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        images, labels = super().on_after_batch_transfer(batch, dataloader_idx)
        self.batches.append((images.to(self.dtype), labels))
        return self.batches[-1]


class Losses(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, task: Any, outputs: Any, *_: Any) -> None:
        self.values.append(outputs["loss"].item())


def losses(
    make: Any, *, steps: int, batch: int, dtype: torch.dtype, strength: float = STRENGTH
) -> tuple[Tensor, Tensor, list[Any]]:
    """netslim's, the plain loop's, and the batches."""
    data, seen, plain = Recorded(steps, batch, dtype), Losses(), []
    torch.manual_seed(0)
    task = SlimmingTask(make().to(dtype), optimizer=SGD, strength=strength)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(accelerator="cpu", max_epochs=1, callbacks=[seen], enable_checkpointing=False, **quiet).fit(task, data)
    torch.manual_seed(0)
    train_plainly(make().to(dtype), data.batches, plain, strength)
    assert len(seen.values) == len(plain) == steps
    return torch.tensor(seen.values, dtype=torch.float64), torch.tensor(plain, dtype=torch.float64), data.batches


def train_plainly(network: nn.Module, batches: list[Any], found: list[float], strength: float) -> None:
    clock = plain_loop.Clock(torch.device("cpu"))
    sgd = SGD(network.parameters())
    record = lambda loss: found.append(loss.item())  # noqa: E731
    plain_loop.train(network, batches, optimizer=sgd, strength=strength, clock=clock, after_step=record)


def small() -> VGG:
    return VGG([8, 8, "M", 16, "M", 16], num_classes=4)


def test_the_first_fifty_losses_are_those_of_the_plain_loop() -> None:
    ours, plain, batches = losses(small, steps=50, batch=16, dtype=torch.float64)
    assert (ours - plain).abs().max() < 1e-10
    without: list[float] = []
    torch.manual_seed(0)
    train_plainly(small().double(), batches, without, strength=0.0)
    assert (ours - torch.tensor(without, dtype=torch.float64)).abs().max() > 1e-3  # so the penalty was seen


def test_in_single_precision_they_differ_by_rounding_alone() -> None:
    ours, plain, _ = losses(small, steps=50, batch=16, dtype=torch.float32, strength=1e-4)
    assert (ours - plain)[:10].abs().max() < 1e-6
    assert (ours - plain).abs().max() < 1e-3  # what rounding has grown to at a learning rate of 0.1


@pytest.mark.slow
@pytest.mark.parametrize("make", [vgg, PreResNet, DenseNet], ids=["vgg19", "resnet", "dense"])
def test_so_are_those_of_the_papers_networks(make: Any) -> None:
    ours, plain, _ = losses(make, steps=5, batch=4, dtype=torch.float64)
    assert (ours - plain).abs().max() < 1e-10


def side(seconds: float, **more: Any) -> train_tables.Row:
    return {"seconds": seconds, "steps": 4, "memory": 1.5, "outside": 0.25, "penalty": 0.001, **more}


def test_the_tables_say_what_was_measured() -> None:
    ours = side(0.5, histograms=0.5, **{"end of epoch": 2.0})
    timed = {"dense": 0.2, "slim": 0.1, "faster": 2.0}
    rows = [
        {"network": "a", "batch": 64, "faster": 2.0, "plain": side(1.0), "netslim": ours},
        {"network": "a", "batch": 512, "failed": "does not fit in memory: needs about 17 GB, 8 GB free"},
    ]
    small = [
        {
            "network": "a",
            "ratio": 0.5,
            "scales": "trained",
            "round_to": 8,
            "macs": 3.0,
            "params": 4.0,
            "activations": 1.5,
            "split": {"multiply": 2.5, "rest": 1.25, "dense": 0.2, "slim": 0.4},
            "step": timed,
            "latency 1": timed,
            "latency 256": timed,
        }
    ]
    text = train_tables.markdown("`command`", rows, small, 6400)
    assert text.startswith("`command`\n\n| network | batch | × faster |")
    assert (
        "| a | 64 | 2.00 | 100.0 | 50.0 | 64 | 128 | 1.50 | 1.50 "
        "| 25.0% | 25.0% | 0.10% | 0.10% | 4 + 4 | 2.00 | 1.00% |" in text
    )
    assert "| a | 512 | does not fit in memory: needs about 17 GB, 8 GB free |" in text
    assert (
        "| a | 50% | trained | 8 | 4.00 | 3.00 | 1.50 | 2.00 | 2.50 | 1.25 | 20% | 40% | 2.00 | 2.00 "
        "| 200.0 | 100.0 | 200.0 | 100.0 | 200.0 | 100.0 |" in text
    )
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert widths == [17] * 4 + [21] * 3


def test_a_batch_that_would_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_vs_plain, "apart", lambda options, work, network, batch: batch / 32)
    monkeypatch.setattr(memory, "free", lambda: 8.0)
    options = argparse.Namespace()
    assert train_vs_plain.too_large("a", 512, options) == "does not fit in memory: needs about 16 GB, 8 GB free"
    assert train_vs_plain.too_large("a", 64, options) is None


@pytest.mark.parametrize("reads", [True, False])
def test_a_side_that_dies_is_a_line_and_not_a_broken_connection(monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    monkeypatch.setattr(train_vs_plain, "side", die_later if reads else die_at_once)
    one = train_vs_plain.Side("plain", [], argparse.Namespace(threads=1, seconds=1.0))
    with pytest.raises(train_vs_plain.Ended, match="the side plain ended early, exit code 7"):
        one.turn(False)
    one.close()


def die_at_once(name: str, overrides: list[str], threads: int, seconds: float, pipe: Connection) -> None:
    while not pipe.poll():  # leaves the message unread: the other end sees a reset
        pass
    os._exit(7)


def die_later(name: str, overrides: list[str], threads: int, seconds: float, pipe: Connection) -> None:
    pipe.recv()
    os._exit(7)


def test_a_step_is_split_and_its_activations_are_counted() -> None:
    conv, images = nn.Conv2d(3, 8, 3, padding=1), torch.randn(2, 3, 4, 4)
    assert slim_speed.written(nn.Sequential(conv, nn.ReLU(), nn.Flatten()), images) == 2 * 2 * 8 * 4 * 4
    multiply, rest = slim_speed.kinds(lambda: [conv(images) for _ in range(50)], torch.device("cpu"))
    assert multiply > 2 * rest > 0
    multiply, rest = slim_speed.kinds(lambda: images.sin(), torch.device("cpu"))
    assert rest > 0 == multiply


@pytest.mark.parametrize(("name", "macs"), [("vgg_small", 6_277_668), ("vgg19", None)])
def test_a_trained_network_keeps_what_is_published(name: str, macs: int | None) -> None:
    """vgg_small's MACs as in the record of its training; VGG-19 keeps 30 % of its 5504 channels."""
    dense, small, ratio = slim_speed.pair(name, "trained", 1)
    layers = [netslim.bn_layers(network).values() for network in (dense, small)]
    assert [len(bn.weight) for bn in layers[1]] == [*slim_speed.TRAINED[name]]
    channels = [sum(len(bn.weight) for bn in side) for side in layers]
    assert channels[1] / channels[0] == pytest.approx(1 - ratio, abs=1e-3)
    assert macs in (None, netslim.count(small, torch.zeros(1, 3, 32, 32)).macs)
    rounded = slim_speed.pair(name, "trained", 8)[1]
    assert all(len(bn.weight) % 8 == 0 for bn in netslim.bn_layers(rounded).values())


@pytest.mark.slow
def test_the_command_runs(tmp_path: Path) -> None:
    out = tmp_path / "new" / "bench.md"
    command = [sys.executable, train_vs_plain.__file__, "--quick", "--threads", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.read_text() == done.stdout
    (training,) = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| vgg_small | 64")]
    outside, penalty = (float(training[number].rstrip("%")) for number in (10, 12))
    assert 0 < outside < 50
    assert 0 < penalty < 5
