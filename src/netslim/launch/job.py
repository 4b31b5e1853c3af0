"""One job of the command: its configuration as objects, its GPUs, its process, and the pipeline."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from omegaconf import DictConfig

from netslim.experiment import paths, pipeline
from netslim.experiment.job import Job
from netslim.experiment.records import TARGETS, FinetuneRecord, JobRecord, TrainRecord
from netslim.launch import (
    command_line,
    config,
    ending,
    errors,
    gpu_lease,
    job_process,
    job_status,
    numbers,
    quiet,
    running,
)
from netslim.training import allocator, distributed

log = logging.getLogger("netslim")


def run(cfg: DictConfig) -> float:
    """Run one job, in a process of its own where it is one of a sweep. Returns its validation accuracy."""
    quiet.quiet(cfg.quiet)
    if _hydra().mode == RunMode.MULTIRUN:  # the sweep's other jobs go on; Hydra raises the error at its end
        states = job_status.folder(command_line.folder(cfg), _hydra().callbacks.sweep.call)
        if (known := job_status.failure(states, _hydra().overrides.task)) is not None:
            raise job_process.JobFailed(known)
        return job_process.run(partial(_job, cfg, _position(cfg)), errors.mistake, command_line.repeat(_hydra()))
    try:
        return _job(cfg, "1 of 1")
    except Exception as error:
        said = errors.mistake(error)
        if said is None:
            raise
        ending.withdraw()
        errors.leave(errors.Answer(errors.MISTAKE, said))  # Hydra would add lines of its own to an error


def _hydra() -> DictConfig:
    """Hydra's own part of the configuration."""
    return cast(DictConfig, HydraConfig.get())


def _job(cfg: DictConfig, position: str) -> float:
    allocator.keep_freed_memory()
    distributed.explain_with(_explain)
    if cfg.threads is not None:
        torch.set_num_threads(numbers.number(cfg, "threads", int, least=1))
    job = config.job(cfg, command_line.repeat(_hydra()))
    strength = "auto" if job.auto else f"{job.strength:g}"
    log.info("job %s | λ = %s, %s, seed %d", position, strength, _amount(job), job.seed)
    folder = command_line.folder(cfg)
    with ExitStack() as leases:
        if _hydra().mode == RunMode.MULTIRUN:
            if _hydra().runtime.choices["hydra/launcher"] != "basic":
                os.environ["TQDM_DISABLE"] = "1"  # bars of jobs side by side would overwrite each other
            _check_launcher(job.trainer)
            job = _lease(cfg, _with_plan(job, folder), leases)
        return _score(folder, pipeline.run(folder, job))


def _amount(job: Job) -> str:
    if job.ratio is not None:
        return f"prune ratio {100 * job.ratio:g} %"
    ((name, value),) = job.target.items()
    return f"{TARGETS[name]} at most " + (f"{100 * value:g} %" if value <= 1 else f"{value:g}")


def _with_plan(job: Job, folder: Path) -> Job:
    """The job with what its sweep trains, where jobs run one after the other and the time left can be told."""
    if _hydra().runtime.choices["hydra/launcher"] != "basic":
        return job
    return replace(job, plans=(job_status.plan(job_status.folder(folder, _hydra().callbacks.sweep.call)),))


def _explain(error: BaseException) -> tuple[int, str] | None:
    said = errors.mistake(error)
    return None if said is None else (errors.MISTAKE, said)


def _score(folder: Path, job: JobRecord) -> float:
    """Validation score of the small network at the end of its last training: what a search may look at; nan where there
    is none."""
    last: TrainRecord | FinetuneRecord
    if job.finetune is not None:
        last = paths.stage_record(folder / job.finetune, FinetuneRecord)
    elif job.slim is None:
        last = paths.stage_record(folder / job.train, TrainRecord)
    else:
        return math.nan
    return float(last.epochs[-1].get(f"val_{last.metric.name}", math.nan))


def _check_launcher(trainer: Callable[..., Trainer]) -> None:
    """Refuse what would hang: Lightning starts a job's other processes itself only where no scheduler does."""
    launcher = _hydra().runtime.choices["hydra/launcher"]
    devices = trainer(logger=False, enable_checkpointing=False).world_size
    if launcher not in ("basic", "joblib") and devices > 1 and not distributed.started_elsewhere():
        raise ValueError(
            f"{devices} devices per job under hydra/launcher={launcher}, whose processes cannot start others; use "
            f"hydra/launcher=basic or joblib, hydra/launcher=submitit_slurm with tasks_per_node "
            "as many as trainer.devices, or one device per job (trainer=default)"
        )


def _lease(cfg: DictConfig, job: Job, leases: ExitStack) -> Job:
    """The job with its own GPUs, where jobs share a machine's and nobody else hands them out, as Slurm and Ray do."""
    gpus = gpu_lease.visible()
    if _hydra().runtime.choices["hydra/launcher"] in ("submitit_slurm", "ray"):
        return job
    if not gpus or not job_process.possible() or cfg.trainer.accelerator not in ("auto", "gpu", "cuda"):
        return job
    share = running.jobs_per_gpu(cfg)
    if cfg.trainer.devices == 1:  # with the first data, so that a job which waits for another's stage holds none
        return replace(job, data=gpu_lease.before(job.data, 1, leases, share))
    if isinstance(cfg.trainer.devices, (int, str)):  # before the job's other processes start; a list is a choice
        count = int(cfg.trainer.devices) if str(cfg.trainer.devices).isdigit() else len(gpus)
        gpu_lease.take(count, leases, share)
    return job


def _position(cfg: DictConfig) -> str:
    """Which job of the sweep this is, such as "2 of 6"."""
    asked, overrides = paths.load_sweep(command_line.folder(cfg)), list(_hydra().overrides.task)
    if asked is None or overrides not in asked.jobs:
        return str(_hydra().job.num + 1)
    return f"{asked.jobs.index(overrides) + 1} of {len(asked.jobs)}"
