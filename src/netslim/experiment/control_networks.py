"""The networks that controls train: the method's widths with new weights, uniform widths, channels drawn at random."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from torch import nn

from netslim.engine import reconstruct, rescale, select_channels, slim
from netslim.experiment.job import Job
from netslim.experiment.measurements import Cut
from netslim.experiment.networks import example_of, inputs, network_after
from netslim.experiment.records import SlimRecord
from netslim.experiment.stage import Finished
from netslim.method.scoring.random import Random
from netslim.method.scoring.uniform import Uniform
from netslim.nets.initialisation import renew

ALL = math.nextafter(1.0, 0.0)  # the largest ratio


def renewed(job: Job, network: nn.Module) -> nn.Module:
    """The network with the weights that one which is made with its widths would start from."""
    lightning.seed_everything(job.seed, verbose=False)
    renew(network)
    return network


def uniform_network(job: Job, images: Any, **amount: float) -> nn.Module:
    """A network of new weights in which every layer has lost the same share, ``ratio`` or to meet ``target_macs``."""
    whole = job.network(num_classes=images.num_classes)
    options = {**job.slimming(**job.amount).options, **dict.fromkeys(job.amount), "score": Uniform(), **amount}
    return renewed(job, _cut(whole, images, **options))


def drawn(job: Job, images: Any, trained: Finished, cut: SlimRecord | Cut) -> nn.Module:
    """The trained network with as many channels per layer as the method has kept, but drawn at random; with what the
    slim stage does before the fine-tuning."""
    whole = network_after(job, images, [trained])
    kept = {layer.name: layer.kept for layer in cut.layers}
    score = Random(Uniform())(whole, seed=job.seed)
    slimming = job.slimming(**job.amount)
    # The floors decide: of every layer as much is removed as they allow.
    limits = {"ratio": ALL, "floor": kept, "strict": False, "coupling": slimming.options["coupling"]}
    small = _cut(whole, images, score=score, **limits)
    if slimming.reconstruct:
        reconstruct(small, whole, inputs(images, whole), images=slimming.reconstruct)
    if slimming.rescale:
        rescale(small, example_of(images, whole))
    return small


def _cut(whole: nn.Module, images: Any, **options: Any) -> nn.Module:
    example = example_of(images, whole)
    with torch.no_grad():
        return slim(whole, select_channels(whole, example_input=example, **options), example)
