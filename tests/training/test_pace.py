"""How long an epoch takes. Oracle: steps that sleep."""

from __future__ import annotations

import time
from functools import partial

import torch
from lightning import Trainer
from torch import nn

from netslim.data import InMemoryData, synthetic
from netslim.training.classification import SlimmingTask
from netslim.training.pace import seconds_per_epoch


class Slow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(48, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.03)
        return self.layer(images.flatten(1))


def test_an_epoch_is_as_long_as_its_steps_and_only_a_few_are_run() -> None:
    data = InMemoryData(
        partial(synthetic, train=800, test=8, size=4), title="a", mean=[0.5] * 3, std=[1] * 3, batch_size=8
    )
    task = SlimmingTask(Slow(), optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer = partial(Trainer, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    start = time.monotonic()
    found = seconds_per_epoch(task, data, trainer)
    assert 3.0 <= found < 9.0  # 100 steps of 0.03 s, and what a busy machine adds
    assert time.monotonic() - start < 3.0
