"""The three stages of the paper (section 3): training with sparsity, slimming, fine-tuning."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import msgspec
from lightning import LightningModule

from netslim import files
from netslim.experiment import checks
from netslim.experiment.fitting import finetuned, fit_task, make_task, test_of
from netslim.experiment.job import Amount, Job
from netslim.experiment.networks import network_after, save_slim, scores_of
from netslim.experiment.records import (
    FinetuneRecord,
    Layer,
    Measured,
    Metric,
    Recalibrated,
    Run,
    SlimRecord,
    TrainRecord,
)
from netslim.experiment.stage import Finished, Stage
from netslim.measure.environment import describe_run
from netslim.method.penalties import L1
from netslim.modules import bn_layers
from netslim.training import distributed, task
from netslim.training.measuring import IdleBench
from netslim.training.slim_module import slim_module

log = logging.getLogger("netslim")

Done = Mapping[str, Finished]


def train(job: Job) -> Stage:
    """Sparsity training: the dense network, λ·Σ|γ| beside the loss."""
    settings = {**job.settings["train"], "lambda": job.strength, "seed": job.seed, "epochs": job.epochs}
    labels = {"lambda": job.strength, "seed": job.seed}
    return Stage("train", (), settings, partial(_train, job), labels, TrainRecord, shared=True)


def slim(job: Job, amount: Amount, after: Sequence[Stage]) -> Stage:
    """One threshold over the channels of the network so far, until that amount of the dense one is gone."""
    settings = {**job.settings["slim"], "train": after[-1].name, **amount}
    labels = {"lambda": job.strength, **amount, "seed": job.seed}
    return Stage("slim", _names(after), settings, partial(_slim, job, amount), labels, SlimRecord)


def finetune(job: Job, amount: Amount, after: Sequence[Stage]) -> Stage:
    """Fine-tuning: the slim network, the same recipe, no penalty."""
    more = {"slim": after[-1].name, "epochs": job.finetune_epochs, "seed": job.seed}
    labels = {"lambda": job.strength, **amount, "seed": job.seed}
    settings = {**job.settings["finetune"], **more}
    return Stage("finetune", _names(after), settings, partial(_finetune, job), labels, FinetuneRecord, shared=True)


def _names(stages: Sequence[Stage]) -> tuple[str, ...]:
    return tuple(stage.name for stage in stages)


def _train(job: Job, folder: Path, done: Done) -> TrainRecord:
    lightning.seed_everything(job.seed, verbose=False)
    images = job.data(seed=job.seed)
    dense = job.network(num_classes=images.num_classes)
    module = make_task(job, dense, job.optimizer, job.strength)
    checks.check(job, module, images)
    history, left = fit_task(job, folder, module, images, job.epochs, job.strength)
    if distributed.is_rank_zero():
        files.write_tensors(folder / "weights.pt", dense.state_dict())
        files.write_json(folder / "scales.json", {name: bn.weight.tolist() for name, bn in bn_layers(dense).items()})
    return TrainRecord(
        network=job.network_name,
        data=getattr(images, "title", type(images).__name__),
        classes=images.num_classes,
        budget=_budget(job, module, history.rates),
        **left,
    )


def _slim(job: Job, amount: Amount, folder: Path, done: Done) -> SlimRecord:
    told = describe_run(job.command)
    images = job.data()
    network = network_after(job, images, done.values())
    module = make_task(job, network, job.optimizer, strength=0.0)
    before = [finished.record for finished in done.values() if isinstance(finished.record, SlimRecord)]
    score = {"score": scores_of(job, network, images)} if job.score else {}
    callback = job.slimming(**_of_what_is_left(amount, before), network="network", split="test", **score)
    quiet = job.trainer(
        logger=False, callbacks=[], default_root_dir=folder, enable_checkpointing=False, **distributed.on_one_device()
    )
    small, result = slim_module(
        module,
        IdleBench(quiet, images, "test"),
        network="network",
        recalibration_batches=callback.recalibration_batches,
        **callback.options,
    )
    save_slim(small.get_submodule("network"), folder)
    record = _record(result, task.metric_of(module), msgspec.convert(told(), Run))
    record.train = next(iter(done))
    if before:
        _count_from_dense(record, before[-1])
    log.info("%s | %s", folder.name, _told(record))
    return record


def _finetune(job: Job, folder: Path, done: Done) -> FinetuneRecord:
    lightning.seed_everything(job.seed, verbose=False)
    images = job.data(seed=job.seed)
    small = network_after(job, images, done.values())
    module = finetuned(job, small, images, next(iter(done.values())))
    _, left = fit_task(job, folder, module, images, job.finetune_epochs, strength=0.0)
    if distributed.is_rank_zero():
        save_slim(small, folder)
    return FinetuneRecord(slim=list(done)[-1], **left)


def _budget(job: Job, module: LightningModule, rates: float) -> float | None:
    """How far the penalty alone could move a γ, in units of γ; None where the optimiser's steps do not tell (Adam)."""
    if not job.strength:
        return 0.0
    found = module.optimizers()
    optimizers = found if isinstance(found, list) else [found]
    first: dict[str, Any] = optimizers[0].param_groups[0] if optimizers else {"betas": ()}
    if "betas" in first:
        return None
    return (job.penalty or L1()).budget(job.strength, [rates], first.get("momentum", 0.0))


def _record(result: Mapping[str, Any], metric: task.Metric, run: Run) -> SlimRecord:
    """The record of what ``Slimming`` measured."""

    def measured(key: str) -> dict[str, Any]:
        numbers = {name: value for name, value in result[key].items() if name != "metrics"}
        return {**numbers, "test": test_of(task.record_of_test(result[key]["metrics"], metric))}

    plain = {key: result[key] for key in ("threshold", "removed", "prunable", "uncounted", "unit") if key in result}
    return SlimRecord(
        **plain,
        layers=[Layer(**layer) for layer in result["layers"]],
        dense=Measured(**measured("dense")),
        small=Measured(**measured("slim")),
        recalibrated=Recalibrated(**measured("recalibrated")),
        metric=Metric(**vars(metric)),
        run=run,
    )


def _of_what_is_left(amount: Amount, before: Sequence[SlimRecord]) -> Amount:
    """The share of the channels that are left to be removed, so that a share of the dense network's are gone."""
    if not before:
        return amount
    total, gone = before[-1].prunable, before[-1].removed
    return {"ratio": max(0, math.floor(amount["ratio"] * total + 1e-9) - gone) / (total - gone)}


def _count_from_dense(record: SlimRecord, before: SlimRecord) -> None:
    """Let the record of a later round compare with the dense network, as the first does."""
    kept = {layer.name: layer.kept for layer in record.layers}
    record.layers = [Layer(name=w.name, channels=w.channels, kept=kept.get(w.name, w.kept)) for w in before.layers]
    record.removed += before.removed
    record.prunable, record.dense = before.prunable, before.dense


def _told(record: SlimRecord) -> str:
    tests = {"dense": record.dense.test, "pruned": record.small.test, "recalibrated": record.recalibrated.test}
    scores = [f"{test.score:{record.metric.format}} {what}" for what, test in tests.items()]
    removed = f"removed {record.removed} of {record.prunable} channels, {100 * record.macs_left:.1f} % of MACs left"
    return f"{removed} | test {record.metric.name} {', '.join(scores)}"
