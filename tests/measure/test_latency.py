"""Oracle: a module that sleeps for a known time and remembers how it was called."""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor, nn

from netslim.measure.latency import Latency, in_turns, latency, repeated


class Sleeps(nn.Module):
    """15 ms per call and 40 more at every fourth; remembers what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int, bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        assert "training" not in vars(nn.Module), "the mode is watched, which costs time, while time is measured"
        self.seen.append((len(x), torch.get_num_threads(), self.training, torch.is_grad_enabled()))
        time.sleep(0.015 if len(self.seen) % 4 else 0.055)
        return x


def test_latency_is_the_time_of_a_call() -> None:
    model = Sleeps()
    before = torch.get_num_threads()
    measured = latency(model, torch.zeros(2, 1), batch=7, seconds=0.5, threads=2)
    assert 15 <= measured.median < 50
    assert measured.p90 >= 55
    assert (measured.batch, measured.threads) == (7, 2)
    assert 10 <= measured.runs < len(model.seen)  # some warmed up
    assert set(model.seen) == {(7, 2, False, False)}
    assert model.training
    assert torch.get_num_threads() == before


def test_what_else_the_machine_does_slows_all_alike():
    """Three times as much from the fifth run on: the ratio of what runs in turns stays."""
    load, asked = iter([1, 1, 1, 1, 3, 3]), []

    def timer(ms: float, seconds: float) -> Latency:
        asked.append((ms, seconds))
        return Latency(ms * next(load), 0.0, 1, 10, 1)

    assert in_turns([partial(timer, 8.0), partial(timer, 4.0)], seconds=6.0) == [8.0, 4.0]
    assert asked == 3 * [(8.0, 2.0), (4.0, 2.0)]
    assert in_turns([]) == []


def test_rows_of_the_example_are_repeated_to_the_batch() -> None:
    rows = repeated((torch.tensor([1, 2]), {"a": torch.tensor([[3], [4]])}), 3)
    assert rows[0].tolist() == [1, 2, 1]
    assert rows[1]["a"].tolist() == [[3], [4], [3]]
