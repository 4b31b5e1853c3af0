"""The pipeline of the paper's figure 2: train with sparsity, slim, fine-tune, record.

    train(λ, seed) ──► slim(ratio) ──► fine-tune(λ = 0) ──► record of the job
    L1 on γ beside      threshold,       same recipe,
    the loss            emit, measure    slim network

Each arrow is a stage with a folder under ``outputs/``: written once, skipped when finished, shared by all jobs that
need it (three λ and two ratios train three times), resumed at the last whole epoch when it was killed. With several
processes (``trainer=ddp``) both trainings are shared by all of them; rank 0 alone slims and writes.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from netslim import files
from netslim.experiment import paths
from netslim.files import Record
from netslim.measure.environment import describe_run
from netslim.method import penalties
from netslim.modules import bn_layers
from netslim.slim_file import load, save
from netslim.training import distributed
from netslim.training.classification import SlimmingTask
from netslim.training.fit import accuracy, fit, with_test_counts
from netslim.training.slimming import Slimming

log = logging.getLogger("netslim")

Build = Callable[..., Any]


def run(
    sweep: Path,
    *,
    strength: float,
    ratio: float,
    seed: int,
    epochs: int,
    finetune_epochs: int,
    network: Callable[[], nn.Module],
    network_name: str,
    data: Callable[[], LightningDataModule],
    task: Callable[..., SlimmingTask],
    finetune_task: Callable[..., SlimmingTask],
    trainer: Callable[..., Trainer],
    slimming: Callable[..., Slimming],
    settings: Mapping[str, Any],
    command: str,
) -> Record:
    """One job: one λ, one ratio, one seed, through all stages. Returns (and writes) the job's record.

    Args:
        sweep: the folder for everything of this experiment, such as outputs/lab4.
        strength: λ of equation 1.
        ratio: share of the prunable channels to remove, 0 ≤ ratio < 1.
        seed: of initialisation, order, augmentation and dropout.
        epochs, finetune_epochs: lengths of the trainings; ``finetune_epochs=0`` leaves fine-tuning out.
        network, data: make the dense network and the data module.
        network_name: what the report calls the network.
        task, finetune_task: make the SlimmingTask from a network and ``strength``.
        trainer: makes a Trainer from ``max_epochs, callbacks, logger, ...``.
        slimming: makes the Slimming callback from ``ratio``.
        settings: plain data under the keys "train", "slim", "finetune": all that determines each stage beside λ, ratio
            and seed. A stage with other settings is another stage.
        command: repeats just this job; it is recorded.
    """
    callback = slimming(ratio=ratio, network="network", split="test")  # a bad ratio is refused before the training
    asked = {"lambda": strength, "ratio": ratio, "seed": seed, "epochs": epochs, "finetune.epochs": finetune_epochs}
    processes = distributed.launch(
        trainer(logger=False, callbacks=[], enable_checkpointing=False), {**settings, **asked}, sweep
    )
    if processes > 1:  # batches are per process: with another number of them it is another training
        settings = {**settings, **{kind: {**settings[kind], "processes": processes} for kind in ("train", "finetune")}}
    build: dict[str, Any] = {"network": network, "data": data, "trainer": trainer, "command": command}
    pruned = {"lambda_": strength, "ratio": ratio, "seed": seed}

    trained = paths.stage(
        sweep,
        "train",
        {**settings["train"], "lambda": strength, "seed": seed, "epochs": epochs},
        lambda folder: train(
            folder,
            **build,
            network_name=network_name,
            task=task,
            callback=callback,
            strength=strength,
            seed=seed,
            epochs=epochs,
        ),
        lambda_=strength,
        seed=seed,
    )
    slimmed = paths.stage(
        sweep,
        "slim",
        {**settings["slim"], "train": trained["name"], "ratio": ratio},
        lambda folder: distributed.on_rank_zero(
            lambda: slim(folder, sweep / trained["name"], **build, task=task, callback=callback)
        ),
        **pruned,
    )
    if finetune_epochs == 0:
        return distributed.on_rank_zero(lambda: record(sweep, trained, slimmed, None, command=command))
    finetuned = paths.stage(
        sweep,
        "finetune",
        {**settings["finetune"], "slim": slimmed["name"], "epochs": finetune_epochs, "seed": seed},
        lambda folder: finetune(
            folder, sweep / slimmed["name"], **build, task=finetune_task, seed=seed, epochs=finetune_epochs
        ),
        **pruned,
    )
    return distributed.on_rank_zero(lambda: record(sweep, trained, slimmed, finetuned, command=command))


def train(
    folder: Path, *, network: Build, data: Build, trainer: Build, command: str,
    network_name: str, task: Build, callback: Slimming, strength: float, seed: int, epochs: int,
) -> Record:  # fmt: skip
    """Sparsity training (section 3): the dense network, λ·Σ|γ| beside the loss, accuracy after the last epoch."""
    lightning.seed_everything(seed, verbose=False)
    images = data(seed=seed)
    dense = network(num_classes=images.num_classes)
    _check_channels(dense, images)
    if hasattr(images, "image_shape"):
        callback.check(dense, torch.zeros(1, *images.image_shape))
    module = task(dense, strength=strength)
    history, told = fit(folder, module, images, trainer=trainer, seed=seed, epochs=epochs, command=command)
    if distributed.is_rank_zero():
        files.write_tensors(folder / "weights.pt", dense.state_dict())
        files.write_json(folder / "scales.json", {name: bn.weight.tolist() for name, bn in bn_layers(dense).items()})
    momentum = module.optimizers().param_groups[0].get("momentum", 0.0)
    budget = penalties.shrinkage_budget(strength, [history.rates], momentum)
    title = getattr(images, "title", type(images).__name__)
    return {"network": network_name, "data": title, "classes": images.num_classes, "budget": budget, **told}


def slim(
    folder: Path, trained: Path, *, network: Build, data: Build, trainer: Build, command: str,
    task: Build, callback: Slimming,
) -> Record:  # fmt: skip
    """Threshold over all |γ|, channels removed, accuracy before, after, and with BatchNorm statistics re-estimated."""
    told = describe_run(command)
    images = data()
    dense = network(num_classes=images.num_classes)
    try:
        dense.load_state_dict(files.read_tensors(paths.made(trained, "weights.pt")))
    except RuntimeError as error:
        raise ValueError(
            f"{trained / 'weights.pt'} does not fit {type(dense).__name__}, whose code has changed since it was "
            f"trained; remove the folder {trained} to train anew ({error})"
        ) from None
    quiet = trainer(
        logger=False, callbacks=[], default_root_dir=folder, enable_checkpointing=False, **distributed.on_one_device()
    )
    small = callback.run(task(dense, strength=0.0), images, quiet)
    save(small.get_submodule("network"), folder / "slim.pt")
    result = {key: with_test_counts(value) for key, value in callback.result.items()}
    log.info(
        "%s | removed %d of %d channels | test accuracy %.1f %% dense, %.1f %% pruned, %.1f %% recalibrated",
        folder.name,
        result["removed"],
        result["prunable"],
        *(100 * accuracy(result[key]["test"]) for key in ("dense", "slim", "recalibrated")),
    )
    return {"train": trained.name, **result, "run": told()}


def finetune(
    folder: Path, slimmed: Path, *, network: Build, data: Build, trainer: Build, command: str,
    task: Build, seed: int, epochs: int,
) -> Record:  # fmt: skip
    """Fine-tuning (section 3): the slim network, the same recipe, no penalty."""
    lightning.seed_everything(seed, verbose=False)
    images = data(seed=seed)
    small = load(paths.made(slimmed, "slim.pt"), network(num_classes=images.num_classes))
    module = task(small, strength=0.0)
    _, told = fit(folder, module, images, trainer=trainer, seed=seed, epochs=epochs, command=command)
    if distributed.is_rank_zero():
        save(small, folder / "slim.pt")
    return {"slim": slimmed.name, **told}


def record(sweep: Path, trained: Record, slimmed: Record, finetuned: Record | None, *, command: str) -> Record:
    """Write which stages the job consists of, and its final numbers as TensorBoard hyper-parameters."""
    labels = {"lambda_": slimmed["lambda"], "ratio": slimmed["ratio"], "seed": slimmed["seed"]}
    stages = {
        "train": trained["name"],
        "slim": slimmed["name"],
        "finetune": finetuned["name"] if finetuned else None,
    }
    folder = paths.job_folder(sweep, stages, **labels)
    known = paths.finished(folder)
    if known is not None:
        return known
    job = {**{key.rstrip("_"): value for key, value in labels.items()}, **stages, "command": command}
    final = {
        "final/dense accuracy": accuracy(trained["test"]),
        "final/pruned accuracy": accuracy(slimmed["slim"]["test"]),
        "final/recalibrated accuracy": accuracy(slimmed["recalibrated"]["test"]),
        **({"final/fine-tuned accuracy": accuracy(finetuned["test"])} if finetuned else {}),
        "final/parameters": slimmed["slim"]["params"],
        "final/MACs": slimmed["slim"]["macs"],
    }
    logger = TensorBoardLogger(sweep, name="", version=folder.name, default_hp_metric=False)
    logger.log_hyperparams({"λ": labels["lambda_"], "ratio": labels["ratio"], "seed": labels["seed"]}, final)
    logger.finalize("success")
    files.write_json(folder / "record.json", job)
    return job


def _check_channels(network: nn.Module, images: Any) -> None:
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != images.in_channels:
        can = "in_channels" in inspect.signature(type(network)).parameters
        remedy = f"set net.in_channels={images.in_channels}" if can else "choose another data set"
        raise ValueError(
            f"{type(network).__name__} expects {first.in_channels}-channel images, "
            f"{images.title} has {images.in_channels}; {remedy} or another network"
        )
