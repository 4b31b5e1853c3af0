"""A job whose network gets smaller inside its training: the callback that does it, and what its record tells."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule
from torch import nn

from netslim.experiment.job import Job
from netslim.experiment.measurements import Cut, Layer, Shape, Size
from netslim.experiment.networks import example_of
from netslim.measure.cost import count
from netslim.method.threshold import least
from netslim.modules import bn_layers
from netslim.training.gradual import GradualSlimming
from netslim.training.training_cost import TrainingCost


def check(job: Job) -> None:
    """Refuse, before the training, what cannot be done inside one.

    Raises:
        ValueError: rounded widths, a target for latency, a distillation, or a score that needs data.
    """
    if "target_latency" in job.target:
        raise ValueError("target_latency is met in one cut after the training; choose schedule=one_shot")
    options = job.slimming(**job.amount).options
    if options["round_to"] != 1:
        raise ValueError(
            f"slimming.round_to={options['round_to']}: a schedule that cuts inside the training does not round; leave "
            "it at 1, or choose schedule=one_shot"
        )
    if job.distillation is not None:
        raise ValueError(
            "finetune.distill: the network gets smaller inside its training, so there is no dense one to teach; "
            "set it to 0, or choose schedule=one_shot"
        )
    asked = job.slimming(**job.amount)
    for name, value in (("reconstruct", asked.reconstruct), ("rescale", asked.rescale)):
        if value:
            raise ValueError(
                f"slimming.{name}={value}: a schedule that cuts inside the training trains on by itself; leave it at "
                f"{type(value)()}, or choose schedule=one_shot"
            )
    if job.score is not None and job.score.needs_data:
        raise ValueError(
            f"score={type(job.score).__name__} needs data, and a schedule that cuts inside the training ranks without; "
            "choose another score, or schedule=one_shot"
        )


def callback(job: Job, dense: nn.Module) -> GradualSlimming:
    """What removes the channels of this dense network at epoch ends, as the job's schedule and slimming say."""
    options = job.slimming(**job.amount).options
    widths = {name: len(layer.weight) for name, layer in bn_layers(dense).items()}
    return GradualSlimming(
        **job.amount,
        schedule=job.schedule,
        floor=least(widths, options["floor"], options["most"]),
        coupling=options["coupling"],
        score=job.score,
        network="network",
    )


def cut(job: Job, module: LightningModule, images: Any, gradual: GradualSlimming, cost: TrainingCost) -> Cut:
    """What the training left, after it."""
    network = module.get_submodule("network")
    dense = job.network(num_classes=images.num_classes)
    example = example_of(images, network)
    before, after = count(dense, example), count(network, example)
    kept = {name: len(layer.weight) for name, layer in bn_layers(network).items()}
    shapes = [{key: epoch[key] for key in ("params", "macs", "widths")} for epoch in cost.epochs]
    return Cut(
        removed=gradual.goal.removed,
        prunable=gradual.goal.prunable,
        layers=[Layer(name=n, channels=len(bn.weight), kept=kept[n]) for n, bn in bn_layers(dense).items()],
        uncounted=before.uncounted,
        dense=Size(params=before.params, macs=before.macs),
        small=Size(params=after.params, macs=after.macs),
        epochs=[Shape(**shape) for shape in shapes],
    )
