"""How long a forward pass takes before and after a cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Literal

import torch
from torch import nn

from netslim.experiment.measurements import Timed
from netslim.measure.latency import latency
from netslim.measure.latency_table import LatencyTable

Which = Literal["dense", "slim"]


def eager(dense: nn.Module, small: nn.Module, example: Any) -> dict[Which, float]:
    """Milliseconds of a forward pass of one input on the CPU, the medians, measured in turns."""
    turns = [[latency(each.cpu().float(), example, seconds=0.05).median for each in (dense, small)] for _ in range(3)]
    before, after = (round(median(each), 3) for each in zip(*turns, strict=True))
    return {"dense": before, "slim": after}


def asked(
    table: LatencyTable | None, result: Mapping[str, Any], networks: Sequence[nn.Module], example: Any
) -> Timed | None:
    """What the table predicted, and what the dense and the slim network take; None where no latency was asked for."""
    if table is None:
        return None
    before, after = table.measured(networks, example)
    predicted = {name: round(milliseconds, 4) for name, milliseconds in result["predicted"].items()}
    return Timed(
        runtime=table.runtime.version,
        batch=table.batch,
        threads=torch.get_num_threads(),
        predicted=predicted,
        measured={"dense": round(before, 4), "slim": round(after, 4)},
    )
