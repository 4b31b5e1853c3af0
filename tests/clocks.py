"""A clock for tests of latency that tells the same on every machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import netslim
from netslim.measure import latency_table, measured_times, one_layer, runtimes
from netslim.nets import VGG


def multiply_adds(patch: pytest.MonkeyPatch, cache: Path) -> list[Any]:
    """In PyTorch a millisecond is a multiply-add, of a whole network half of one, a call nothing; what is measured."""
    seen: list[Any] = []

    def shown(run: Any, x: Any, seconds: float) -> float:
        seen.append(run)
        macs = netslim.count(run, x).macs
        return macs / 2 if isinstance(run, VGG) else macs if macs > 1 else 0.0

    patch.setenv("XDG_CACHE_HOME", str(cache))
    for module in (latency_table, measured_times):
        patch.setattr(module, "fastest", shown)
    plain = runtimes.Runtime("PyTorch", lambda model, _: model, one_layer.module, ("torch",))  # type: ignore
    patch.setitem(runtimes.RUNTIMES, "eager", plain)
    return seen
