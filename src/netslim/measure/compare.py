"""What two networks cost, side by side."""

from __future__ import annotations

from typing import Any

from torch import nn

from netslim.measure.cost import count
from netslim.measure.latency import latency, repeated


def compare(dense: nn.Module, small: nn.Module, example_input: Any, *, seconds: float = 2.0) -> str:
    """A Markdown table: parameters, MACs per image and latency at batches of 1 and 64, dense beside slim.

    The last column is how many times less the slim network takes, so the speed-up stands below the ratio of the MACs.
    """
    one = repeated(example_input, 1)
    costs = [count(model, one) for model in (dense, small)]
    rows: list[tuple[str, str, list[float]]] = [
        ("parameters", "{:,}", [cost.params for cost in costs]),
        ("MACs", "{:,}", [cost.macs for cost in costs]),
    ]
    for batch in (1, 64):
        times = [latency(model, one, batch=batch, seconds=seconds) for model in (dense, small)]
        rows.append((f"latency in ms, batch of {batch}, median", "{:.2f}", [time.median for time in times]))
        rows.append((f"latency in ms, batch of {batch}, p90", "{:.2f}", [time.p90 for time in times]))
    lines = ["| | dense | slim | dense / slim |", "| --- | ---: | ---: | ---: |"]
    for name, form, (large, little) in rows:
        lines.append(f"| {name} | {form.format(large)} | {form.format(little)} | {large / little:.2f}× |")
    if costs[0].uncounted:
        lines += ["", f"Not counted in the MACs: {', '.join(costs[0].uncounted)}"]
    return "\n".join(lines)
