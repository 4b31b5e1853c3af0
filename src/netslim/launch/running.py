"""How a job runs, whatever it computes: settings that are in no stage's name."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from netslim.launch import gpu_lease
from netslim.launch.numbers import number, truth


def jobs_per_gpu(cfg: DictConfig) -> int:
    """How many jobs of this machine may be on one GPU at a time."""
    share = int(number(cfg, "jobs_per_gpu", int, least=1))
    if share > gpu_lease.MOST:
        raise ValueError(f"jobs_per_gpu={share} is too large; give {gpu_lease.MOST} or fewer")
    return share


def checkpoint(cfg: DictConfig) -> dict[str, Any]:
    """When checkpoints are written, and whether by a thread."""
    return {
        "every_epochs": number(cfg, "checkpoint.every_epochs", int, least=1),
        "every_seconds": number(cfg, "checkpoint.every_seconds", float, least=0),
        "threaded": truth(cfg, "checkpoint.threaded"),
    }
