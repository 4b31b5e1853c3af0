"""The jobs of a command, built and tried before the first one trains; what they will do, and how long that takes."""

from __future__ import annotations

import logging
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from netslim.experiment import paths, pipeline, plan, stages
from netslim.experiment.job import Job
from netslim.launch import errors
from netslim.training.pace import seconds_per_epoch
from netslim.training.progress import about

log = logging.getLogger("netslim")

Measured = tuple[int, float]  # bytes of the network's tensors, seconds per epoch


@dataclass(frozen=True)
class Tried:
    """A job: its plan (experiment/plan.py), and what was measured where that was asked for."""

    plan: dict[str, int]
    measured: Measured = (0, 0.0)


@dataclass(frozen=True)
class Refused:
    """The number of the first job that cannot run, and why in one line."""

    number: int
    why: str


def try_all(jobs: Sequence[tuple[Path, Job]], *, measure: bool) -> list[Tried] | Refused:
    """Build network and data of every job and try them as its training will; jobs that are alike in them once.

    Args:
        jobs: each with the folder that it goes to.
        measure: also train a few steps of each kind of job, for the time that an epoch takes.
    """
    found: list[Tried] = []
    known: dict[str, Measured] = {}
    images: dict[str, Any] = {}
    for number, (folder, job) in enumerate(jobs):
        try:
            key = _kind(job)
            if key not in known:
                known[key] = _try(replace(job, data=_remembered(job, images)), measure)
            found.append(Tried(_plan(folder, job), known[key]))
        except Exception as error:
            said = errors.mistake(error)
            if said is None:
                log.exception("job %d cannot run", number + 1)
            return Refused(number, said or f"{type(error).__name__}: {errors.in_one_line(error)}")
    return found


def _kind(job: Job) -> str:
    """Jobs of one kind are built alike; λ and seed make no difference to whether they run."""
    return paths.digest({**job.settings, "amount": dict(job.amount), "penalised": job.strength > 0})


def _remembered(job: Job, images: dict[str, Any]) -> Callable[..., Any]:
    """What makes the job's data, or gives those of the job before if they are the same."""
    key = paths.digest(job.settings["train"]["data"])

    def make(**given: Any) -> Any:
        if key not in images:
            images.clear()
            images[key] = job.data(**given)
        return images[key]

    return make


def _try(job: Job, measure: bool) -> Measured:
    module, images = stages.try_out(job)
    if not measure:
        return 0, 0.0
    tensors = module.get_submodule("network").state_dict().values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return size, seconds_per_epoch(module, images, job.trainer) / _processes(job)


def _plan(folder: Path, job: Job) -> dict[str, int]:
    return plan.plan_of(folder, pipeline.stages_of(pipeline.identified(folder, job, _processes(job))))


def _processes(job: Job) -> int:
    return int(job.trainer(logger=False, callbacks=[], enable_checkpointing=False).world_size)


def told(tried: Sequence[Tried], folders: Sequence[Path]) -> str:
    """What the jobs will do: stages, what is finished, disk and time."""
    every = {folder: each for job in tried for folder in job.plan for each in [job.measured]}
    plans = {folder: epochs for job in tried for folder, epochs in job.plan.items()}
    left = plan.unfinished(plans)
    seconds = sum(epochs * every[folder][1] for folder, epochs in left.items())
    disk, free = sum(every[folder][0] for folder in left), shutil.disk_usage(_existing(folders[0])).free
    epochs = sum(left.values())
    time = "not known, the data do not tell their size" if math.isnan(seconds) else f"about {about(seconds)}"
    return "\n".join(
        [
            f"jobs:      {len(tried)}, to {', '.join(map(str, folders))}",
            f"stages:    {_counted(plans)}; each is done once, whichever jobs share it",
            f"finished:  {_counted(folder for folder in plans if folder not in left)}",
            f"disk:      at most {_size(disk)} of the {_size(free)} that are free",
            f"time:      {time}, for {epochs} epochs one after the other on this machine",
        ]
    )


def _counted(names: Any) -> str:
    kinds = Counter(Path(name).name.partition("_")[0] for name in names)
    return ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "none"


def _size(size: float) -> str:
    """
    >>> _size(2.5e9), _size(120e6), _size(999)
    ('2.5 GB', '120 MB', '1 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, math.ceil(size / 1e6))} MB"


def _existing(folder: Path) -> Path:
    """The folder, or where it will be made."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
