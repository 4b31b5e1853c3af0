"""What ``${netslim.…:}`` in a configuration stands for."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from netslim.experiment.records import TARGETS
from netslim.launch import debug, gpu_lease, job_status
from netslim.measure.environment import processor_cores


def workers(threads: int | None, devices: Any, accelerator: str, jobs_per_gpu: int = 1) -> int:
    """How many jobs this machine runs side by side: ``jobs_per_gpu`` for each ``devices`` GPUs, or, without any, one
    per ``threads`` cores."""
    gpus = [] if accelerator == "cpu" else gpu_lease.visible()
    if gpus:
        each = devices if isinstance(devices, int) and devices > 0 else len(gpus)
        return max(1, len(gpus) // each) * jobs_per_gpu
    return max(1, processor_cores() // threads) if threads else 1


def amount(ratio: float | None, *targets: float | None) -> str:
    """How much a job removes, as a part of the name of its folder of logs; the targets in the order of ``TARGETS``.

    >>> amount(0.5, None, None, None), amount(0.5, 0.4, None, None)
    ('ratio=0.5', 'target_macs=0.4')
    """
    asked = {**dict(zip(TARGETS, targets, strict=True)), "ratio": ratio}
    return next((f"{name}={value}" for name, value in asked.items() if value is not None), "ratio=None")


def register() -> None:
    """Make the names known to every configuration of this process."""
    OmegaConf.register_new_resolver("netslim.workers", workers, replace=True)
    OmegaConf.register_new_resolver("netslim.amount", amount, replace=True)
    OmegaConf.register_new_resolver("netslim.suffix", debug.suffix, replace=True)
    # Cached with the configuration, which travels: where a job runs it says which call started the job.
    OmegaConf.register_new_resolver("netslim.call", lambda: job_status.CALL, replace=True, use_cache=True)
