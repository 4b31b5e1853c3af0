"""What is refused before anything is computed: a job is turned into the objects that it will run with, which are made
here and thrown away. A sweep checks all its jobs before the first one trains."""

from __future__ import annotations

import copy
import difflib
import operator
from collections.abc import Callable
from importlib import import_module
from typing import Any

from hydra.utils import get_object
from lightning import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, flag_override

from netslim.experiment import pipeline
from netslim.experiment.job import Job
from netslim.launch import command_line, config, errors, quiet, running
from netslim.launch.numbers import number
from netslim.launch.trusted import targets
from netslim.method.steps import checked_strength


def _over_zero(value: Any) -> bool:
    return _at_least(0)(value) and bool(value)


def _at_least(least: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and value >= least


# Settings of the Trainer with which a training would end early and be recorded as whole, or could not be recorded, and
# what Lightning itself answers in the middle of a training: what the value must be, and the remedy.
TRAINER: dict[str, tuple[Callable[[Any], bool], str]] = {
    "fast_dev_run": (operator.not_, "write epochs=1 +trainer.limit_train_batches=1 instead"),
    "overfit_batches": (operator.not_, "write +trainer.limit_train_batches=… instead"),
    "max_steps": (lambda value: value == -1, "write epochs=… instead"),
    "max_time": (operator.not_, f"stop it when you like, with timeout or Ctrl-C; {errors.GO_ON}"),
    "barebones": (operator.not_, "leave it out; netslim records its runs"),
    "enable_checkpointing": (bool, "leave it out; a training that was stopped goes on from its checkpoint"),
    "limit_train_batches": (_over_zero, "give a number over 0, or nothing trains"),
    "limit_test_batches": (_over_zero, "give a number over 0, or nothing is tested"),
    "limit_val_batches": (_at_least(0), "give 0 or a positive number"),
    "accumulate_grad_batches": (_at_least(1), "give 1 or more"),
    "check_val_every_n_epoch": (_at_least(1), "give 1 or more"),
    "val_check_interval": (_over_zero, "give a number over 0"),
    "log_every_n_steps": (_at_least(0), "give 0 or more"),
}


BY_NAME = {  # what makes a network by its name: the setting of that, where the names are
    "torchvision.models.get_model": ("name", "torchvision.models"),
    "netslim.nets.timm_network": ("name", "timm"),
    "timm.create_model": ("model_name", "timm"),
}


def check(job: DictConfig) -> Job:
    """The objects of a job, or a refusal of one that cannot run.

    Args:
        job: its configuration, Hydra's own part included.

    Raises:
        ValueError: a setting has no value, one that cannot be, or names what does not exist.
    """
    quiet.quiet(job.quiet is True)
    command_line.folder(job)
    settings = copy.deepcopy(job)
    with flag_override(settings, ["struct", "readonly"], [False, False]):
        del settings["hydra"]
    if not isinstance(settings.finetune, DictConfig):
        raise ValueError(f"finetune={settings.finetune} names no setting; write finetune.epochs=… or finetune.lr=…")
    _check_trainer(settings.trainer)
    _check_targets(settings)
    _check_name(settings.net)
    running.jobs_per_gpu(settings)
    if settings.threads is not None:
        number(settings, "threads", int, least=1)
    asked = config.job(settings, command="")
    if not asked.auto:
        checked_strength(asked.strength)
    pipeline.check(asked)
    _check_devices(_trainer(asked, settings.trainer), settings.trainer)
    return asked


def _check_trainer(trainer: DictConfig) -> None:
    for key, (serves, remedy) in TRAINER.items():
        value = trainer.get(key)
        if value is not None and not serves(value):
            raise ValueError(f"trainer.{key}={value} cannot be; {remedy}")


def _trainer(asked: Job, trainer: DictConfig) -> Trainer:
    try:
        made: Trainer = _make(asked.trainer, "trainer", logger=False, enable_checkpointing=False)
    except (MisconfigurationException, ModuleNotFoundError) as error:
        if trainer.accelerator in ("auto", "cpu"):
            raise
        raise ValueError(
            f"trainer.accelerator={trainer.accelerator} trainer.devices={trainer.devices} is not to be had on this "
            f"machine ({' '.join(str(error).split())}); leave both out to train on what there is"
        ) from None
    return made


def _check_devices(made: Trainer, trainer: DictConfig) -> None:
    """Several processes are asked for by name; Lightning would start them as soon as there are several devices."""
    if made.world_size > 1 and trainer.strategy == "auto":
        raise ValueError(
            f"trainer.devices={trainer.devices} needs trainer=ddp, which shares a training among {made.world_size} "
            "processes; write trainer=ddp as well, or leave trainer.devices at 1"
        )


def _check_targets(settings: DictConfig) -> None:
    """Every class or function that is named can be imported."""
    plain = OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
    for key, name in targets(plain):
        try:
            get_object(name)
        except Exception as error:
            raise ValueError(f"{key}={name} cannot be imported: {_root(error)}") from None


def _check_name(net: DictConfig) -> None:
    """A network that is asked for by its name is one that its library has."""
    if net._target_ not in BY_NAME:
        return
    key, module = BY_NAME[net._target_]
    library = import_module(module)
    known, name = library.list_models(), str(net.get(key))
    if name.split(".")[0] not in known:  # timm adds a tag of the weights after a point
        close = ", ".join(difflib.get_close_matches(name, known, 3)) or "another"
        raise ValueError(f"net.{key}={name} is no network of {library.__name__.split('.')[0]}; perhaps {close}")


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _make(build: Any, group: str, **given: Any) -> Any:
    try:
        return build(**given)
    except TypeError as error:
        raise ValueError(f"{group}: {error}") from None
