"""The stages of the paper (section 3): training with sparsity, slimming, fine-tuning, and training between rounds."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import msgspec
from lightning import LightningDataModule, LightningModule
from torch import nn

from netslim import files
from netslim.experiment import checks, paths, shrinking, timing, vote
from netslim.experiment.fitting import finetuned, fit_task, limits_of, make_task, test_of
from netslim.experiment.job import Amount, Job
from netslim.experiment.measurements import Candidate, as_written
from netslim.experiment.networks import dense_network, example_of, network_after, save_network, save_slim, scores_of
from netslim.experiment.records import (
    FinetuneRecord,
    Layer,
    Measured,
    Metric,
    Recalibrated,
    Reconstructed,
    Rescaled,
    Run,
    SlimRecord,
    TrainRecord,
)
from netslim.experiment.stage import Finished, Stage
from netslim.measure.environment import describe_run
from netslim.method.penalties import L1
from netslim.method.schedules import most_per_cut, sparse_epochs
from netslim.method.scores import Scores
from netslim.method.threshold import least
from netslim.modules import bn_layers
from netslim.training import distributed, task
from netslim.training.auto_sparsity import AutoSparsity
from netslim.training.measuring import IdleBench
from netslim.training.slim_module import slim_module
from netslim.training.training_cost import TrainingCost

log = logging.getLogger("netslim")

Done = Mapping[str, Finished]
Work = Callable[[Path, Done], FinetuneRecord]
Make = Callable[[nn.Module, Any, Finished], LightningModule]  # of a network, the data module and the training


def train(job: Job) -> Stage:
    """Sparsity training: the dense network, λ·Σ|γ| beside the loss. One in which the network gets smaller is of one
    ratio, as is one that finds its λ for it; the others are shared by the jobs of all ratios."""
    own = {"lambda": as_written(job.strength), "seed": job.seed, "epochs": job.epochs}
    settings: dict[str, Any] = {**job.settings["train"], **own}
    labels: dict[str, float] = {"lambda": job.strength, "seed": job.seed}
    if job.auto:
        settings, labels = {**settings, **job.amount}, {"lambda": job.strength, **job.amount, "seed": job.seed}
    if job.shrinks:
        settings = _joined(job.settings["slim"], settings, job.amount)
        labels = {"lambda": job.strength, **job.amount, "seed": job.seed}
    return Stage("train", (), settings, partial(_train, job), labels, TrainRecord, shared=True)


def _joined(*settings: Mapping[str, Any]) -> dict[str, Any]:
    """All of these, and what stands in "identity" of any."""
    identity = {key: value for each in settings for key, value in each.get("identity", {}).items()}
    found = {key: value for each in settings for key, value in each.items()}
    return {**found, "identity": identity} if identity else found


def slim(job: Job, amount: Amount, after: Sequence[Stage]) -> Stage:
    """One threshold over the channels of the network so far, until that amount of the dense one is gone."""
    settings = {**job.settings["slim"], "train": after[-1].name, **amount}
    labels = {"lambda": job.strength, **amount, "seed": job.seed}
    return Stage("slim", _names(after), settings, partial(_slim, job, amount), labels, SlimRecord)


def finetune(job: Job, amount: Amount, after: Sequence[Stage]) -> Stage:
    """Fine-tuning: the slim network, the same recipe, no penalty."""
    more = {"slim": after[-1].name, "epochs": job.finetune_epochs, "seed": job.seed}
    settings = {**job.settings["finetune"], **more}
    work = partial(_train_on, job, partial(finetuned, job), job.finetune_epochs, 0.0)
    return _on("finetune", job, amount, after, settings, work)


def retrain(job: Job, amount: Amount, after: Sequence[Stage]) -> Stage:
    """Sparsity training of the slim network between two rounds: the recipe of the first training, λ too."""
    epochs = sparse_epochs(job.schedule, job.epochs)
    more = {"slim": after[-1].name, "lambda": job.strength, "epochs": epochs, "seed": job.seed}
    settings = {**job.settings["train"], **more}

    def sparse(network: nn.Module, images: Any, trained: Finished) -> LightningModule:
        return make_task(job, network, job.optimizer, job.strength)

    return _on("retrain", job, amount, after, settings, partial(_train_on, job, sparse, epochs, job.strength))


def _on(kind: str, job: Job, amount: Amount, after: Sequence[Stage], settings: Mapping[str, Any], work: Work) -> Stage:
    labels = {"lambda": job.strength, **amount, "seed": job.seed}
    return Stage(kind, _names(after), settings, work, labels, FinetuneRecord, shared=True)


def try_out(job: Job) -> tuple[LightningModule, LightningDataModule]:
    """Build what the job trains, and refuse it as its training would.

    Raises:
        ValueError: network, weights, data and ratio do not fit together.
    """
    images = job.data(seed=job.seed)
    module = make_task(job, dense_network(job, images.num_classes), job.optimizer, job.strength)
    checks.check(job, module, images)
    checks.check_recipe(job, module)
    return module, images


def _names(stages: Sequence[Stage]) -> tuple[str, ...]:
    return tuple(stage.name for stage in stages)


def _train(job: Job, folder: Path, done: Done) -> TrainRecord:
    lightning.seed_everything(job.seed, verbose=False)
    images = job.data(seed=job.seed)
    dense = dense_network(job, images.num_classes)
    strength = 0.0 if job.auto else job.strength  # else a callback has it
    module = make_task(job, dense, job.optimizer, strength)
    checks.check(job, module, images)
    cost, gradual = TrainingCost(), [shrinking.callback(job, dense)] if job.shrinks else []
    own = [*gradual, *([AutoSparsity(job.amount["ratio"], penalty=job.penalty)] if job.auto else [])]
    history, left = fit_task(job, folder, module, images, job.epochs, strength, own, cost)
    cuts = [shrinking.cut(job, module, images, each, cost) for each in gradual]
    if distributed.is_rank_zero():
        save_network(dense, folder)
        files.write_json(folder / "scales.json", {name: bn.weight.tolist() for name, bn in bn_layers(dense).items()})
    return TrainRecord(
        network=job.network_name,
        data=getattr(images, "title", type(images).__name__),
        classes=images.num_classes,
        budget=None if cuts or job.auto else _budget(job, module, history.rates),
        gamma_history=history.gammas,
        cut=cuts[0] if cuts else None,
        **left,
    )


def _slim(job: Job, amount: Amount, folder: Path, done: Done) -> SlimRecord:
    told = describe_run(job.command)
    images = job.data()
    network = network_after(job, images, done.values())
    module = make_task(job, network, job.optimizer, strength=0.0)
    before = [finished.record for finished in done.values() if isinstance(finished.record, SlimRecord)]
    callback = job.slimming(**_of_what_is_left(amount, before), network="network", split="test")
    quiet = job.trainer(
        logger=False, callbacks=[], default_root_dir=folder, enable_checkpointing=False, **distributed.on_one_device()
    )
    options = {**callback.options, **_limits(job, callback.options, network, before)}
    options |= {"network": "network", "recalibration_batches": callback.recalibration_batches}

    def candidate(scores: Scores) -> dict[str, Any]:
        return slim_module(module, IdleBench(quiet, images, "val"), **options | {"score": scores})[1]

    options["score"], candidates = _scores(job, network, images, task.metric_of(module), candidate)
    options |= {"reconstruct": callback.reconstruct, "rescale": callback.rescale}
    small, result = slim_module(module, IdleBench(quiet, images, "test"), **options)
    networks = network, small.get_submodule("network")
    save_slim(networks[1], folder)
    record = _record(result, task.metric_of(module), msgspec.convert(told(), Run))
    record.train, record.limits, record.candidates = next(iter(done)), limits_of(job), candidates
    example = example_of(images, network)
    record.run.latency = timing.eager(*networks, example)
    record.latency = timing.asked(options.get("latency"), result, networks, example)
    if before:
        _count_from_dense(record, before[-1])
    log.info("%s | %s", paths.title(folder), _told(record))
    return record


def _scores(
    job: Job, network: nn.Module, images: Any, metric: task.Metric, measure: Callable[[Scores], Mapping[str, Any]]
) -> tuple[Scores | None, list[Candidate]]:
    """What the channels are ranked by, None: |γ|; the candidates, where it was put to a vote."""
    if isinstance(job.score, vote.Vote):
        return vote.elect(job, network, images, metric, measure)
    return (scores_of(job, network, images) if job.score else None), []


def _limits(job: Job, options: Mapping[str, Any], network: nn.Module, before: Sequence[SlimRecord]) -> dict[str, Any]:
    """Where one cut may remove only a part of each layer. What it leaves over, the next round removes; the floors are
    those of the dense network."""
    most = most_per_cut(job.schedule)
    if most >= 1:
        return {}
    now = {name: len(layer.weight) for name, layer in bn_layers(network).items()}
    dense = {layer.name: layer.channels for layer in before[0].layers} if before else now
    return {"floor": least(dense, options["floor"], options["most"]), "most": most, "strict": False}


def _train_on(job: Job, make: Make, epochs: int, strength: float, folder: Path, done: Done) -> FinetuneRecord:
    lightning.seed_everything(job.seed, verbose=False)
    images = job.data(seed=job.seed)
    small = network_after(job, images, done.values())
    module = make(small, images, next(iter(done.values())))
    _, left = fit_task(job, folder, module, images, epochs, strength)
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

    plain = {
        key: result[key]
        for key in ("threshold", "removed", "prunable", "uncounted", "unit", "at_floor")
        if key in result
    }
    return SlimRecord(
        **plain,
        layers=[Layer(**layer) for layer in result["layers"]],
        dense=Measured(**measured("dense")),
        small=Measured(**measured("slim")),
        recalibrated=Recalibrated(**measured("recalibrated")),
        reconstructed=Reconstructed(**measured("reconstructed")) if "reconstructed" in result else None,
        rescaled=Rescaled(**measured("rescaled")) if "rescaled" in result else None,
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
    tests |= {"reconstructed": record.reconstructed.test} if record.reconstructed else {}
    tests |= {"rescaled": record.rescaled.test} if record.rescaled else {}
    scores = [f"{test.score:{record.metric.format}} {what}" for what, test in tests.items()]
    removed = f"removed {record.removed} of {record.prunable} channels, {100 * record.macs_left:.1f} % of MACs left"
    ends = f", {len(record.at_floor)} layers at their floor ({record.at_floor[0]}, …)" if record.at_floor else ""
    time = f", {record.latency}" if record.latency else ""
    return f"{removed}{time}{ends} | test {record.metric.name} {', '.join(scores)}"
