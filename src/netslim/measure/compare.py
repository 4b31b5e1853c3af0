"""What two networks cost, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from netslim.measure.cost import count
from netslim.measure.export import FORMATS, INT8, Exported, written
from netslim.measure.formats.format import Run
from netslim.measure.latency import Latency, latency, latency_of, repeated

Timer = Callable[[int], Latency]  # batch size -> how long it takes
Rows = list[tuple[str, str, list[float]]]
SECOND_BATCH = 64


def compare(
    dense: nn.Module,
    small: nn.Module,
    example_input: Any,
    *,
    seconds: float = 2.0,
    batch: int = SECOND_BATCH,
    runtimes: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] | None = None,
) -> str:
    """A Markdown table: parameters, MACs per image and latency at two batch sizes, dense beside slim.

    The last column is how many times less the slim network takes, so the speed-up stands below the ratio of the MACs.
    Where the slim network is not faster, a line below the table says so.

    Args:
        example_input: a tensor, a tuple of positional or a dict of keyword arguments; its first row is taken.
        seconds: time for each latency.
        batch: the second batch size, beside 1; default 64.
        runtimes: besides the networks themselves: runtime -> what runs the dense network there, and the slim one.
    """
    one = repeated(example_input, 1)
    costs = [count(model, one) for model in (dense, small)]
    rows: Rows = [
        ("parameters", "{:,}", [cost.params for cost in costs]),
        ("MACs", "{:,}", [cost.macs for cost in costs]),
    ]
    slow = _time("", [partial(_eager, model, one, seconds) for model in (dense, small)], batch, rows)
    for name, runs in (runtimes or {}).items():
        slow += _time(f" in {name}", [partial(_in_runtime, run, one, seconds) for run in runs], batch, rows)
    lines = ["| | dense | slim | dense / slim |", "| --- | ---: | ---: | ---: |"]
    for name, form, (large, little) in rows:
        lines.append(f"| {name} | {form.format(large)} | {form.format(little)} | {large / little:.2f}× |")
    if costs[0].uncounted:
        lines += ["", f"Not counted in the MACs: {', '.join(costs[0].uncounted)}"]
    if slow:
        remedy = "odd channel counts cost a runtime its fast kernels, round_to=8 or 16 keeps them"
        lines += ["", f"Warning: the slim network is not faster{', nor'.join(slow)}; {remedy}"]
    return "\n".join(lines)


def beside(dense: nn.Module, small: nn.Module, example_input: Any, file: Exported) -> tuple[Run, Run] | None:
    """What runs the dense network in the runtime of a file, in 32 bits, and the file; None for tensors alone."""
    name = "onnx" if file.format == INT8 else file.format
    form = FORMATS[name]
    if not form.program:
        return None
    return form.open(written(dense, example_input, name), dense), form.open(file.path.read_bytes(), small)


def _eager(model: nn.Module, x: Any, seconds: float, batch: int) -> Latency:
    return latency(model, x, batch=batch, seconds=seconds)


def _in_runtime(run: Callable[[Any], Any], x: Any, seconds: float, batch: int) -> Latency:
    return latency_of(run, x, batch=batch, seconds=seconds)


def _time(where: str, timers: list[Timer], second_batch: int, rows: Rows) -> list[str]:
    """Rows of one runtime. Returns where the slim network is not faster."""
    slow = []
    for batch in (1, second_batch):
        times = [timer(batch) for timer in timers]
        rows.append((f"latency{where} in ms, batch of {batch}, median", "{:.2f}", [time.median for time in times]))
        rows.append((f"latency{where} in ms, batch of {batch}, p90", "{:.2f}", [time.p90 for time in times]))
        if times[1].median >= times[0].median:
            slow.append(f"{where or ' in PyTorch'} at a batch of {batch} ({times[0].median / times[1].median:.2f}×)")
    return slow
