"""The door for controls: trainings that a result must be compared with, such as the slim network from scratch.

    name          network                                    weights      trained for
    scratch       the method's widths                        new          all epochs that the job trains
    scratch_b     the method's widths                        new          all multiply-adds that the job trains
    uniform       an equal share of every layer is removed,  new          the same
                  as many channels as the method removes
    uniform_macs  the same, as many MACs as the method's     new          the same
    random        as many channels per layer as the method,  inherited    what the job trains after its first cut
                  drawn at random
    dense         the dense network                          new, or the  all epochs that the job trains
                                                             job's own

They train without the penalty, with the recipe of the training (``random``: of the fine-tuning). Where fine-tuning
learns from the dense network (``finetune.distill``), all but ``dense`` do. New weights are those of a network that is
made with these widths (``nets.initialisation.renew``). Each control is a stage with a record of its own, done once for
all jobs that share it: there is one ``dense`` per seed, whatever λ and ratio. Where methods left the same widths, the
second takes over what the first has trained (``trained_once``).

A control is a function ``control(job, stages) -> Stage``: ``stages`` are those of the job so far, and what it reads of
them it names in ``after`` and in ``settings``. One of one's own, ``controls=[{_target_: my.control}]``, is shown in the
report beside these if its record is a ``ControlRecord``. If it has an attribute ``check``, that is called with the
dense network before the first training, to refuse it (ValueError).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
from torch import nn

from netslim.experiment import paths, trained_once
from netslim.experiment.control_networks import drawn, renewed, uniform_network
from netslim.experiment.fitting import fit_task, make_task, taught
from netslim.experiment.job import Job
from netslim.experiment.measurements import Cut
from netslim.experiment.networks import dense_network, example_of, network_after, save_network
from netslim.experiment.records import ControlRecord, FinetuneRecord, SlimRecord, StageRecord, TrainRecord
from netslim.experiment.stage import Finished, Stage
from netslim.measure.cost import count
from netslim.modules import bn_layers
from netslim.nets.initialisation import check_renewable
from netslim.training import distributed

log = logging.getLogger("netslim")
Control = Callable[[Job, tuple[Stage, ...]], Stage]
Done = Mapping[str, Finished]
Make = Callable[[Any, Done], nn.Module]  # of the data module, and the stages that are done


def from_new_weights(control: Control) -> Control:
    """Mark a control that starts from new weights: a network that cannot have any is refused before the training."""
    control.check = check_renewable  # type: ignore[attr-defined]
    return control


@from_new_weights
def scratch(job: Job, stages: tuple[Stage, ...]) -> Stage:
    """The method's widths from new weights: what are the inherited weights worth? (Liu et al. 2019, Scratch-E)."""
    after = _network_of(stages)
    settings = {**_new(job, stages), **_taught(job, stages), "widths": after[-1]}
    return _stage(job, "scratch", "its widths from scratch", after, settings, _labels(job), _widths(job))


@from_new_weights
def scratch_b(job: Job, stages: tuple[Stage, ...]) -> Stage:
    """``scratch`` for as many epochs as cost what the job's trainings cost (Liu et al. 2019, Scratch-B, without its
    limit of twice the epochs)."""
    after = tuple(stage.name for stage in stages if stage.record in (TrainRecord, SlimRecord, FinetuneRecord))
    settings = {**_new(job, stages), **_taught(job, stages), "widths": _network_of(stages)[-1], "cost_of": list(after)}
    del settings["epochs"]
    words = "its widths from scratch, equal multiply-adds of training"
    return _stage(job, "scratch-b", words, after, settings, _labels(job), _widths(job))


@from_new_weights
def uniform(job: Job, stages: tuple[Stage, ...]) -> Stage:
    """An equal share of every layer removed, from new weights: is the allocation between layers worth anything?"""
    after = (stages[0].name,) if job.distillation else ()
    settings = {**_new(job, stages), **_taught(job, stages), **_slimming(job), **job.amount}
    labels = {**({"lambda": job.strength} if after else {}), **job.amount, "seed": job.seed}

    def widths(images: Any, done: Done) -> nn.Module:
        return uniform_network(job, images, **job.amount)

    return _stage(job, "uniform", "uniform widths from scratch", after, settings, labels, widths)


@from_new_weights
def uniform_macs(job: Job, stages: tuple[Stage, ...]) -> Stage:
    """``uniform`` with as many multiply-adds as the method's network, not as many channels."""
    after = _network_of(stages)
    settings = {**_new(job, stages), **_taught(job, stages), **_slimming(job), "macs": after[-1]}

    def widths(images: Any, done: Done) -> nn.Module:
        return uniform_network(job, images, target_macs=_cut_before(done).macs_left)

    words = "uniform widths from scratch, equal MACs"
    return _stage(job, "uniform-macs", words, after, settings, _labels(job), widths)


def random(job: Job, stages: tuple[Stage, ...]) -> Stage:
    """As many channels of each layer as the method, drawn at random, then fine-tuned: is the score worth anything?

    Raises:
        ValueError: there is no fine-tuning, or no dense network that was trained.
    """
    after, epochs = _network_of(stages), _epochs(stages[1:])
    if len(after) < 2:
        raise ValueError(
            "controls=random: the channels are removed inside the training, so there is no trained dense network to "
            "draw channels of; leave random out"
        )
    if not epochs:
        raise ValueError("controls=random: there is no fine-tuning (finetune.epochs=0); leave random out")
    settings = {**job.settings["finetune"], "slim": after[-1], "epochs": epochs, "seed": job.seed}

    def network(images: Any, done: Done) -> nn.Module:
        return drawn(job, images, next(iter(done.values())), _cut_before(done))

    own = {"optimizer": job.finetune_optimizer, "scheduler": job.finetune_scheduler or job.scheduler}
    return _stage(job, "random", "random channels", after, settings, _labels(job), network, inherits=True, **own)


def dense(job: Job, stages: tuple[Stage, ...]) -> Stage:
    """The dense network, trained for as many epochs as the job trains in all, from where the job's training starts."""

    def whole(images: Any, done: Done) -> nn.Module:
        return dense_network(job, images.num_classes)

    return _stage(job, "dense", "dense network", (), _new(job, stages), {"seed": job.seed}, whole)


CONTROLS: Mapping[str, Control] = {
    "scratch": scratch,
    "scratch_b": scratch_b,
    "uniform": uniform,
    "uniform_macs": uniform_macs,
    "random": random,
    "dense": dense,
}


def _labels(job: Job) -> dict[str, float]:
    return {"lambda": job.strength, **job.amount, "seed": job.seed}


def _widths(job: Job) -> Make:
    """The method's network, with new weights."""
    return lambda images, done: renewed(job, network_after(job, images, done.values()))


def _network_of(stages: tuple[Stage, ...]) -> tuple[str, ...]:
    """The training, and the last stage that made its network smaller, by name."""
    cuts = [stage.name for stage in stages if stage.record is SlimRecord]
    return (stages[0].name, *cuts[-1:])


def _epochs(stages: tuple[Stage, ...]) -> int:
    """All epochs of the method's trainings."""
    return sum(stage.settings["epochs"] for stage in stages if stage.record in (TrainRecord, FinetuneRecord))


def _cut_before(done: Done) -> SlimRecord | Cut:
    """What the last cut left, or the training in which the network got smaller."""
    found = _cut_in(list(done.values())[-1].record)
    assert found is not None
    return found


def _new(job: Job, stages: tuple[Stage, ...]) -> dict[str, Any]:
    """The settings of a training from new weights: the recipe but for what makes it sparse, all the job's epochs."""
    epochs = _epochs(stages)
    if not epochs:
        raise ValueError(
            "controls: the job trains nothing (epochs=0, finetune.epochs=0), so there is nothing to train for as long; "
            "leave them out, or give finetune.epochs"
        )
    return {**_recipe(job), "epochs": epochs, "seed": job.seed}


def _recipe(job: Job) -> dict[str, Any]:
    """The settings of the job's training but for what makes it sparse."""
    return {key: value for key, value in job.settings["train"].items() if key not in ("penalty", "schedule", "score")}


def _taught(job: Job, stages: tuple[Stage, ...]) -> dict[str, Any]:
    """The settings of the distillation, if there is one, from the job's dense network."""
    if job.distillation is None:
        return {}
    return {**{key: job.settings["finetune"][key] for key in ("distill", "temperature")}, "teacher": stages[0].name}


def _slimming(job: Job) -> dict[str, Any]:
    """What of the slimming counts for a network of new weights: neither the score nor what is done after the cut."""
    found = {key: value for key, value in job.settings["slim"].items() if key not in ("score", "schedule")}
    options = {key: value for key, value in found["slimming"].items() if key not in ("reconstruct", "rescale")}
    return {**found, "slimming": options}


def _stage(
    job: Job,
    kind: str,
    words: str,
    after: tuple[str, ...],
    settings: Mapping[str, Any],
    labels: Mapping[str, float],
    make: Make,
    inherits: bool = False,
    **own: Any,
) -> Stage:
    """A control: a network that is made, trained without the penalty for ``settings["epochs"]``, and tested.

    Without "epochs": for as many as cost what the job's trainings cost.
    inherits: whether its weights come from the job's training, which counts in its cost then.
    own: optimizer and scheduler, where they are not those of the training.
    """

    def work(folder: Path, done: Done) -> ControlRecord:
        lightning.seed_everything(job.seed, verbose=False)
        images = job.data(seed=job.seed)
        network = make(images, done)
        size = count(network, example_of(images, network))
        widths = {name: len(bn.weight) for name, bn in bn_layers(network).items()}
        epochs = settings.get("epochs") or _affordable([finished.record for finished in done.values()], size.macs)
        training = trained_once.identity(network, {**_recipe(job), **settings, "epochs": epochs})
        if (known := distributed.on_rank_zero(lambda: trained_once.take_over(folder, training))) is not None:
            log.info("%s | the training of %s, taken over", paths.title(folder), known.same_as)
            return known
        teacher = taught(job, images, next(iter(done.values()))) if "distill" in settings else {}
        module = make_task(job, network, strength=0.0, **{"optimizer": job.optimizer, **own, **teacher})
        _, left = fit_task(job, folder, module, images, epochs, strength=0.0)
        if distributed.is_rank_zero():
            save_network(network, folder)
        left |= _with_training(left["train_macs"], next(iter(done.values())).record) if inherits else {}
        left |= {"widths": widths, "training": training}
        return ControlRecord(control=words, params=size.params, macs=size.macs, **left)

    return Stage(kind, after, settings, work, labels, ControlRecord, shared=True)


def _with_training(macs: int | None, trained: StageRecord) -> dict[str, Any]:
    """What the record of a control tells whose weights come from this training."""
    assert isinstance(trained, TrainRecord)
    known = [each for each in (macs, trained.train_macs) if each is not None]
    return {"inherited": len(trained.epochs), "train_macs": sum(known) if len(known) == 2 else None}


def _affordable(records: Sequence[StageRecord], macs: int) -> int:
    """How many epochs of a network of so many MACs cost what the trainings among these records cost.

    Raises:
        ValueError: the MACs are not known.
    """
    now = next(cut for record in records if (cut := _cut_in(record))).dense.macs
    spent = 0
    for record in records:
        if isinstance(record, TrainRecord) and record.cut is not None:
            spent += sum(epoch.macs or 0 for epoch in record.cut.epochs)
        elif isinstance(record, (TrainRecord, FinetuneRecord)):
            spent += now * len(record.epochs)
        now = cut.small.macs if (cut := _cut_in(record)) else now
    if not spent or not macs:
        raise ValueError("controls=scratch_b: the network's MACs cannot be counted; leave scratch_b out")
    return max(1, round(spent / macs))


def _cut_in(record: StageRecord) -> SlimRecord | Cut | None:
    """What the stage removed, if it did."""
    return record.cut if isinstance(record, TrainRecord) else record if isinstance(record, SlimRecord) else None
