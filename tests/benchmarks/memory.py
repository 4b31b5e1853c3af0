"""How much memory a training step takes, and how much there is. On the CPU; GPUs say themselves when it is too much."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.nn import functional as F

from netslim.launch.command_line import CONF

PROBES = (8, 24)  # batch sizes
WAITING = 1.0  # GB of the process that waits for its turn: libraries, pictures, weights
FRAGMENTED = 1.15  # what a process that keeps freed memory has more (measured: 1.05 to 1.2)


def resident() -> float:
    """The most that this process had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def free() -> float | None:
    """GB that a new process can have without swapping; None where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    return next(int(line.split()[1]) for line in meminfo.read_text().splitlines() if "MemAvailable" in line) / 1e6


def give_back() -> None:
    """Hand freed memory to the system, so that the other side can have it."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def needed(network: str, batch: int) -> float:
    """GB for both sides at that batch size, from a step at each of two small ones. Run it in a process of its own."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        model = instantiate(compose("config", [f"net={network}"]).net, num_classes=10)
    model = model.to(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    peaks = []
    for probe in PROBES:
        images = torch.randn(probe, 3, 32, 32).to(memory_format=torch.channels_last)
        for _ in range(2):  # the first one makes gradients and momenta
            F.cross_entropy(model(images), torch.arange(probe) % 10).backward()
            sgd.step()
        peaks.append(resident())
    small, large = peaks
    per_image = (large - small) / (PROBES[1] - PROBES[0])
    return WAITING + FRAGMENTED * (large + per_image * (batch - PROBES[1]))
