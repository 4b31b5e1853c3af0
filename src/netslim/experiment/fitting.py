"""A task made of what a job says, and one training of it, as every stage that trains needs them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from lightning import Callback, LightningDataModule, LightningModule
from torch import nn

from netslim.experiment import checks
from netslim.experiment.job import Job
from netslim.experiment.networks import network_after
from netslim.experiment.plan import epochs_after
from netslim.experiment.records import Metric, Run, Test
from netslim.experiment.stage import Finished
from netslim.training.fit import fit
from netslim.training.progress import History
from netslim.training.sparsity import Sparsity
from netslim.training.training_cost import TrainingCost


def make_task(job: Job, network: nn.Module, optimizer: Any, strength: float, **more: Any) -> LightningModule:
    """The task, given what its constructor takes of what there is. ``more``: what there is besides or instead."""
    offers = {"optimizer": optimizer, "scheduler": job.scheduler, "strength": strength, "penalty": job.penalty, **more}
    takes = inspect.signature(job.task).parameters
    return job.task(network=network, **{name: offer for name, offer in offers.items() if name in takes})


def finetuned(job: Job, network: nn.Module, images: Any, trained: Finished) -> LightningModule:
    """The task of a fine-tuning. ``trained``: the training, whose network teaches if the job asks for distillation."""
    own = {"optimizer": job.finetune_optimizer, "scheduler": job.finetune_scheduler or job.scheduler}
    return make_task(job, network, strength=0.0, **own, **taught(job, images, trained))


def taught(job: Job, images: Any, trained: Finished) -> dict[str, Any]:
    """The job's distillation from the network of its training, for ``make_task``; nothing where it asks for none."""
    if job.distillation is None:
        return {}
    return {"distillation": job.distillation(network_after(job, images, [trained]))}


def fit_task(
    job: Job, folder: Path, module: LightningModule, images: LightningDataModule, epochs: int, strength: float,
    more: Sequence[Callback] = (), cost: TrainingCost | None = None,
) -> tuple[History, dict[str, Any]]:  # fmt: skip
    """One training: what was logged, and the fields that the record of each training has.

    Args:
        more: callbacks of the stage, beside those of the job.
        cost: counts what the training costs; default one of its own.
    """
    callbacks, cost = [make() for make in job.callbacks], cost or TrainingCost()
    checks.check_callbacks(callbacks)
    if strength > 0 and "strength" not in inspect.signature(job.task).parameters:  # else the task adds λ itself
        callbacks.append(Sparsity(strength, job.penalty))
    history, left = fit(
        folder,
        module,
        images,
        trainer=job.trainer,
        command=job.command,
        seed=job.seed,
        epochs=epochs,
        loggers=job.loggers,
        callbacks=[*callbacks, cost, *more],
        **job.checkpoint,
        epochs_after=lambda: [epochs_after(plan, folder) for plan in job.plans],
    )
    left |= {"metric": Metric(**vars(history.metric)), "test": test_of(left["test"]), "train_macs": cost.train_macs}
    return history, {**left, "run": msgspec.convert(left["run"], Run), "limits": limits_of(job)}


def limits_of(job: Job) -> dict[str, Any]:
    """What of the Trainer's settings cuts every stage of the job short; 1.0 is the whole, 1 is one batch."""
    settings = job.settings["train"].get("trainer", {}).items()
    given = {key: value for key, value in settings if key.startswith("limit_") and value is not None}
    return {key: value for key, value in given.items() if repr(value) != "1.0"}


def test_of(numbers: Mapping[str, Any]) -> Test:
    """A loss that is not a finite number is none; it may be that of a network right after pruning."""
    return Test(**{name: value for name, value in numbers.items() if name != "loss" or math.isfinite(value)})
