"""How long a forward pass takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from netslim.engine.trace.modes import tracing_modes
from netslim.modules import call, modules_by_name, tensors_in


@dataclass(frozen=True)
class Latency:
    """Milliseconds per forward pass of a batch: median and 90th percentile of `runs`, on `threads` CPU threads."""

    median: float
    p90: float
    batch: int
    runs: int
    threads: int


def latency(
    model: nn.Module, example_input: Any, *, batch: int = 1, seconds: float = 2.0, threads: int | None = None
) -> Latency:
    """Time forward passes in eval mode, without gradients, where the model is (GPU queues are waited for).

    Args:
        model: any network; left as it was.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments; its rows are repeated to `batch`.
        seconds: how long to measure, default 2, ten runs at least. A fifth of it, two runs at least, warms up before.
        threads: CPU threads; default those that PyTorch uses now.
    """
    with set_threads(threads), tracing_modes(modules_by_name(model), training=False), torch.inference_mode():
        return latency_of(partial(call, model), example_input, batch=batch, seconds=seconds)


def latency_of(run: Callable[[Any], Any], example_input: Any, *, batch: int = 1, seconds: float = 2.0) -> Latency:
    """``latency`` of any function of such an input, as a file in its runtime."""
    x = repeated(example_input, batch)
    _runs(run, x, seconds / 5, least=2)
    runs = _runs(run, x, seconds, least=10)
    p90 = statistics.quantiles(runs, n=10, method="inclusive")[-1]
    return Latency(statistics.median(runs), p90, batch, len(runs), torch.get_num_threads())


def in_turns(timers: Sequence[Callable[..., Latency]], *, seconds: float = 2.0, turns: int = 3) -> list[float]:
    """Medians, in milliseconds, of what is timed in turns: what else the machine does meanwhile slows all of it alike.

    Args:
        timers: ``latency`` or ``latency_of``, with all but ``seconds``.
        seconds: how long to measure each, over all turns.
    """
    times = [[timer(seconds=seconds / turns).median for timer in timers] for _ in range(turns)]
    return [statistics.median(of_one) for of_one in zip(*times, strict=True)]


def fastest(run: Callable[[Any], Any], x: Any, seconds: float) -> float:
    """Milliseconds of the fastest of ten runs at least: what else the machine does only makes a run longer."""
    _runs(run, x, seconds / 5, least=2)
    return min(_runs(run, x, seconds, least=10))


def _runs(run: Callable[[Any], Any], x: Any, seconds: float, least: int) -> list[float]:
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors_in(x))
    runs: list[float] = []
    end = time.perf_counter() + seconds
    while len(runs) < least or time.perf_counter() < end:
        start = time.perf_counter()
        run(x)
        if not on_cpu:
            torch.accelerator.synchronize()
        runs.append(1000 * (time.perf_counter() - start))
    return runs


@contextmanager
def set_threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def repeated(example_input: Any, size: int) -> Any:
    """The example's rows, repeated in turn or cut to a batch of that size."""
    return tree_map_only(Tensor, lambda t: t[torch.arange(size, device=t.device) % len(t)], example_input)
