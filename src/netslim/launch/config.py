"""A Hydra configuration to the keyword arguments of ``pipeline.run``: plain numbers, and factories of objects."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from netslim.experiment import paths
from netslim.launch.settings import SETTINGS, unknown
from netslim.training.classification import SlimmingTask

OWN = {"max_epochs": "epochs=", "callbacks": "", "logger": "", "default_root_dir": "outputs="}  # of the trainer

RECIPE = ("net", "data", "optimizer", "scheduler", "trainer", "label_smoothing", "channels_last", "compile")


def arguments(cfg: DictConfig) -> dict[str, Any]:
    """The keyword arguments of ``pipeline.run``: plain numbers, and factories made by Hydra."""
    _check_added(cfg)
    if "lr" in cfg.optimizer:
        number(cfg, "optimizer.lr", float)  # else the error would name finetune.lr, which asks for it
    if number(cfg, "finetune.lr", float) < 0:  # else it would be found after the training
        raise ValueError(f"finetune.lr={cfg.finetune.lr} is negative; give a positive rate, such as 0.01")
    if "momentum" in cfg.optimizer and not 0 <= number(cfg, "optimizer.momentum", float) < 1:
        raise ValueError(f"optimizer.momentum={cfg.optimizer.momentum} must be at least 0 and under 1, such as 0.9")
    optimizer, scheduler = _partial(cfg, "optimizer"), _partial(cfg, "scheduler", epochs=1)
    task = partial(
        SlimmingTask,
        scheduler=scheduler,
        label_smoothing=number(cfg, "label_smoothing", float),
        channels_last=_truth(cfg, "channels_last"),
        compile=_compile(cfg),
    )
    return {
        "strength": number(cfg, "lambda", float),
        "ratio": number(cfg, "ratio", float),
        "seed": number(cfg, "seed", int, least=0),
        "epochs": number(cfg, "epochs", int, least=1),
        "finetune_epochs": number(cfg, "finetune.epochs", int, least=0),
        "network": factory(cfg, "net"),
        "network_name": _network_name(cfg),
        "data": factory(cfg, "data"),
        "task": partial(task, optimizer=optimizer),
        "finetune_task": partial(task, optimizer=partial(optimizer, lr=number(cfg, "finetune.lr", float))),
        "trainer": _partial(cfg, "trainer"),
        "slimming": _partial(cfg, "slimming"),
        "settings": _settings(cfg),
    }


def _check_added(cfg: DictConfig) -> None:
    """A setting that a command adds with + must be one that somebody reads."""
    for word in HydraConfig.get().overrides.task:
        key = word.lstrip("+").partition("=")[0].partition("@")[0]
        top = key.partition(".")[0]
        alien = top not in SETTINGS and key not in HydraConfig.get().runtime.choices
        if word.startswith("+") and (alien or (top == "finetune" and key not in ("finetune.epochs", "finetune.lr"))):
            raise ValueError(unknown(key))
    for key, remedy in OWN.items():
        if key in cfg.trainer:
            raise ValueError(f"trainer.{key} is set by netslim itself" + (f"; use {remedy}" if remedy else ""))


def _network_name(cfg: DictConfig) -> str:
    """Which file of conf/net, or class, and which of its networks: "vgg19", "torchvision resnet34"."""
    choice, target = HydraConfig.get().runtime.choices["net"], str(cfg.net._target_)
    typed = any(word.split("=")[0].lstrip("+") == "net._target_" for word in HydraConfig.get().overrides.task)
    return " ".join([target.rpartition(".")[2] if typed else choice, *([cfg.net.name] if "name" in cfg.net else [])])


def _compile(cfg: DictConfig) -> dict[str, Any] | None:
    """The arguments of torch.compile: ``compile`` is a truth value, one of its modes, or a dictionary of them."""
    asked = OmegaConf.to_container(cfg).get("compile")  # type: ignore[union-attr]
    if not asked:
        return None
    arguments: dict[str, Any] = {"dynamic": False}  # batches come in few sizes, and stay in them
    arguments |= asked if isinstance(asked, dict) else {} if asked is True else {"mode": asked}
    try:
        torch.compile(torch.nn.Identity(), **arguments)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"compile={asked}: {error}") from None
    return arguments


def number(cfg: DictConfig, key: str, kind: type[int] | type[float], least: int | None = None) -> Any:
    value = OmegaConf.select(cfg, key, throw_on_missing=True)
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or not math.isfinite(value):
        raise ValueError(f"{key}={value} is not a {'whole ' if kind is int else ''}number")
    if least is not None and value < least:
        raise ValueError(f"{key}={value} is too small; give {least} or more")
    return kind(value)


def _truth(cfg: DictConfig, key: str) -> bool:
    value = OmegaConf.select(cfg, key, throw_on_missing=True)
    if not isinstance(value, bool):
        raise ValueError(f"{key}={value} is neither true nor false")
    return value


def _partial(cfg: DictConfig, group: str, **given: Any) -> Any:
    """A group's ``_partial_`` object; settings that its class does not know are named at once.

    given: what it will be called with by name besides.
    """
    build = instantiate(cfg[group])
    try:
        inspect.signature(build.func).bind_partial(*build.args, **{**build.keywords, **given})
    except TypeError as error:
        remedy = "; a schedule is made by a function of (optimizer, epochs)" if group == "scheduler" else ""
        raise ValueError(f"{group}: {cfg[group]._target_}: {error}{remedy}") from None
    return build


def factory(cfg: DictConfig, group: str) -> Callable[..., Any]:
    """What builds the object of a group; settings that its class does not know are named before it is called."""
    build = instantiate(cfg[group], _partial_=True)

    def checked(**more: Any) -> Any:
        try:
            inspect.signature(build.func).bind(*build.args, **{**build.keywords, **more})
        except TypeError as error:
            raise ValueError(f"{group}: {cfg[group]._target_}: {error}") from None
        return build(**more)

    return checked


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """What determines each stage beside λ, ratio, seed and epochs."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    for group in ("data", "trainer"):
        own = plain[group].items()
        plain[group] = {key: value for key, value in own if f"{group}.{key}" not in paths.WITHOUT_EFFECT}
    recipe = {key: plain[key] for key in RECIPE}
    return {
        "train": recipe,
        "slim": {"slimming": plain["slimming"]},
        "finetune": {**recipe, "lr": plain["finetune"]["lr"]},
    }
