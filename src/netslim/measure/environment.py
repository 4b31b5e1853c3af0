"""Where and how long something ran: what a published number has to say of itself."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("netslim", "torch", "torchvision", "lightning")


def describe_run(command: str) -> Callable[..., dict[str, object]]:
    """Start the clock; the function returned gives {"started", "seconds", "command", "versions", "hardware"}.

    Its argument ``earlier``: seconds to add, of attempts that were interrupted.
    """
    started, clock = datetime.now(timezone.utc), time.monotonic()
    return lambda earlier=0.0: {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(earlier + time.monotonic() - clock, 1),
        "command": command,
        "versions": versions(),
        "hardware": hardware(),
    }


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def updated(earlier: Mapping[str, str]) -> str:
    """What has another version now, "" if nothing has.

    >>> updated({**versions(), "torch": "1.0"}) == f"torch 1.0, now {version('torch')}"
    True
    """
    now = versions()
    return "; ".join(f"{name} {old}, now {now.get(name)}" for name, old in earlier.items() if now.get(name) != old)


def hardware() -> str:
    """One line: accelerators if torch sees any, the processor cores this process may use, how many processes."""
    import torch  # here: a report asks for versions only, and starts without torch
    import torch.distributed as dist

    cores = f"{processor_cores()} CPU cores ({processor()}), {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        cores = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {cores}"
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        cores = f"{dist.get_world_size()} processes, of rank 0: {cores}"
    return cores


def processor_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The name of the machine's CPU."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
