"""What ``${netslim.…:}`` in a configuration stands for."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from netslim.launch import gpu_lease, job_status
from netslim.measure.environment import processor_cores


def workers(threads: int | None, devices: Any, accelerator: str) -> int:
    """How many jobs this machine runs side by side: one per ``devices`` GPUs, or without any, per ``threads`` cores."""
    gpus = [] if accelerator == "cpu" else gpu_lease.visible()
    if gpus:
        each = devices if isinstance(devices, int) and devices > 0 else len(gpus)
        return max(1, len(gpus) // each)
    return max(1, processor_cores() // threads) if threads else 1


def register() -> None:
    """Make the names known to every configuration of this process."""
    OmegaConf.register_new_resolver("netslim.workers", workers, replace=True)
    # Cached with the configuration, which travels: where a job runs it says which call started the job.
    OmegaConf.register_new_resolver("netslim.call", lambda: job_status.CALL, replace=True, use_cache=True)
