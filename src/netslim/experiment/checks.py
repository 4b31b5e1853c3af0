"""What a network and a data set must have in common, found before the training and not in it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from netslim.engine import select_channels
from netslim.experiment import vote
from netslim.experiment.job import Job
from netslim.experiment.scanning import check_scan
from netslim.modules import bn_layers
from netslim.training.classification import SlimmingTask
from netslim.training.gradual import GradualSlimming


def check(job: Job, module: LightningModule, images: Any) -> None:
    """Refuse a network that cannot be trained on these images, or not slimmed as asked.

    Raises:
        ValueError: the message names what does not fit.
    """
    network = module.get_submodule("network")
    check_channels(network, images)
    for control in job.controls:
        getattr(getattr(control, "func", control), "check", _nothing)(network)
    if isinstance(job.score, vote.Vote):
        vote.check(images)
    if not hasattr(images, "image_shape"):
        return
    check_scan(job, images)
    example = torch.zeros(1, *images.image_shape)
    with torch.random.fork_rng(devices=[]):  # what dropout draws here must not change the training
        score = None if job.score is None or job.score.needs_data else job.score
        select_channels(network, example_input=example, **{**job.slimming(**job.amount).options, "score": score})
        if isinstance(module, SlimmingTask):
            check_outputs(network, example, images.num_classes)
        recipe = job.settings["train"]
        synced = recipe["trainer"].get("sync_batchnorm", False)
        if bn_layers(network) and not synced and smallest_batch(images, recipe.get("processes", 1)) == 1:
            check_single(network, example, images)


def check_recipe(job: Job, module: nn.Module) -> None:
    """Optimisers and schedules can be made of what their settings say."""
    later = job.finetune_scheduler or job.scheduler
    recipes = [(job.optimizer, job.scheduler, job.epochs), (job.finetune_optimizer, later, job.finetune_epochs)]
    for make_optimizer, make_scheduler, epochs in recipes:
        what = "optimizer"
        try:
            optimizer, what = make_optimizer(module.parameters()), "scheduler"
            if epochs:
                make_scheduler(optimizer, epochs=epochs)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{what}: {error}") from None


def _nothing(network: nn.Module) -> None:
    """Most controls have nothing to refuse."""


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """The stages remove the channels: a training that does it by a callback of one's own would leave a network that
    they cannot load."""
    if any(isinstance(callback, GradualSlimming) for callback in callbacks):
        raise ValueError(
            "callbacks: GradualSlimming makes the network smaller inside a training, of which the stages of a job know "
            "nothing; use it with a Trainer of your own, or schedule=gradual"
        )


def check_channels(network: nn.Module, images: Any) -> None:
    """The first convolution takes as many channels as the images have."""
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels == getattr(images, "in_channels", first.in_channels):
        return
    can = "in_channels" in inspect.signature(type(network)).parameters
    remedy = f"set net.in_channels={images.in_channels}" if can else "choose another data set"
    raise ValueError(
        f"{type(network).__name__} expects {first.in_channels}-channel images, "
        f"{images.title} has {images.in_channels}; {remedy} or another network"
    )


def check_outputs(network: nn.Module, example: torch.Tensor, classes: int) -> None:
    """A classifier has an output per class, or more."""
    mode = network.training
    with torch.no_grad():
        logits = network.eval()(example)
    network.train(mode)
    if isinstance(logits, torch.Tensor) and (logits.ndim != 2 or logits.shape[1] < classes):
        raise ValueError(
            f"{type(network).__name__} gives {tuple(logits.shape[1:])} numbers per image for {classes} classes; "
            "it must be made with num_classes outputs"
        )


def smallest_batch(images: Any, processes: int = 1) -> int | None:
    """The size of the smallest training batch of a data module that tells its sizes; None for another.

    With several processes as data/order.py cuts it: equal parts of what all of them see, a rest that is too small for
    one each left out.
    """
    size, count = getattr(images, "batch_size", None), getattr(images, "train_size", None)
    if not isinstance(size, int) or not isinstance(count, int):
        return None
    whole, rest = divmod(count, size * processes)
    return min([size] * (whole > 0) + [rest // processes] * (rest >= processes), default=None)


def check_single(network: nn.Module, example: torch.Tensor, images: Any) -> None:
    """BatchNorm has no statistics of one image whose maps have one pixel: PyTorch ends the training there."""
    trial = copy.deepcopy(network).train()
    for module in trial.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
    try:
        with torch.no_grad():
            trial(example)
    except ValueError as error:
        raise ValueError(
            f"data.batch_size={images.batch_size} of {images.train_size} training images makes a batch of one image, "
            f"of which BatchNorm has no statistics ({error}); choose another batch_size"
        ) from None
