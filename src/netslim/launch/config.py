"""A Hydra configuration to a ``Job``: plain numbers, and factories of objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from netslim.experiment.controls import CONTROLS
from netslim.experiment.job import Job
from netslim.launch import debug, numbers, pretrained, recorded, running
from netslim.launch.numbers import number, truth
from netslim.launch.settings import SETTINGS, unknown
from netslim.measure.latency_table import LatencyTable
from netslim.method.schedules import OneShot
from netslim.training.distillation import Distillation, check_distillation
from netslim.training.lr_schedules import SCHEDULES

FINETUNE = [["epochs"], ["lr"], ["scheduler"], ["distill"], ["temperature"]]
MEMBERS = {"penalty": ("value", "add_gradient"), "score": ("needs_data",), "schedule": ("rounds", "during")}
OWN = {"max_epochs": "epochs=", "callbacks": "callbacks=", "logger": "logger=", "default_root_dir": "outputs="}


def job(cfg: DictConfig, command: str) -> Job:
    """The job of a configuration: numbers, and factories made by Hydra.

    Raises:
        ValueError: a setting is none, or cannot be.
    """
    _check_added(cfg)
    cfg = pretrained.resolved(cfg)
    _check_rates(cfg)
    for key in ("debug", "quiet"):
        truth(cfg, key)
    cfg = debug.debugged(cfg)
    optimizer, target, epochs = _partial(cfg, "optimizer"), numbers.target(cfg), numbers.epochs(cfg)
    schedule = _other(cfg, "schedule") or OneShot()
    return Job(
        strength=numbers.strength(cfg) if epochs else numbers.no_penalty(cfg),
        ratio=None if target else number(cfg, "ratio", float),
        target=target,
        seed=numbers.seed(cfg),
        epochs=epochs,
        finetune_epochs=numbers.finetune_epochs(cfg, schedule, epochs),
        network=factory(cfg, "net"),
        network_name=_network_name(cfg),
        data=factory(cfg, "data"),
        task=_task(cfg),
        optimizer=optimizer,
        finetune_optimizer=partial(optimizer, lr=number(cfg, "finetune.lr", float)),
        scheduler=_partial(cfg, "scheduler", epochs=1),
        finetune_scheduler=_finetune_scheduler(cfg),
        distillation=_distillation(cfg),
        trainer=_partial(cfg, "trainer"),
        slimming=_slimming(cfg),
        settings=recorded.settings(cfg),
        places=recorded.places(cfg),
        weights=cfg.weights,
        command=command,
        penalty=_other(cfg, "penalty"),
        score=_other(cfg, "score"),
        schedule=schedule,
        method=recorded.method(),
        callbacks=tuple(_makers(cfg, "callbacks", ())),
        loggers=tuple(_named(each, f"logger.{name}", ("folder", None)) for name, each in (cfg.logger or {}).items()),
        checkpoint=running.checkpoint(cfg),
        scan=truth(cfg, "scan"),
        export=numbers.words(cfg, "export"),
        controls=tuple(_makers(cfg, "controls", ("job", "stages"), CONTROLS)),
        stages=tuple(_makers(cfg, "stages", ("job", "stages"))),
    )


def _check_rates(cfg: DictConfig) -> None:
    first = (
        ["optimizer.lr"] if "lr" in cfg.optimizer else []
    )  # else the error would name finetune.lr, which asks for it
    for key in (*first, "finetune.lr"):
        rate = number(cfg, key, float)
        if rate <= 0:  # else it would be found after the training, or never
            raise ValueError(
                f"{key}={rate:g} {'is negative' if rate else 'trains nothing'}; give a positive rate, such as 0.01"
            )
    if "momentum" in cfg.optimizer and not 0 <= number(cfg, "optimizer.momentum", float) < 1:
        raise ValueError(f"optimizer.momentum={cfg.optimizer.momentum} must be at least 0 and under 1, such as 0.9")


def _task(cfg: DictConfig) -> Callable[..., Any]:
    """What makes the task; settings that it does not take must be at their defaults, or they would be ignored."""
    build = _partial(cfg, "task")
    takes = inspect.signature(build).parameters
    if "strength" in takes and "penalty" not in takes and _other(cfg, "penalty") is not None:
        raise ValueError(
            f"penalty={cfg.penalty._target_}: the task {cfg.task._target_} adds λ itself and takes no penalty; leave "
            "the penalty at its default, or let the task take it, or no strength"
        )
    extras = {
        "label_smoothing": (number(cfg, "label_smoothing", float), 0.0),
        "scale_decay": (None if cfg.scale_decay is None else number(cfg, "scale_decay", float), None),
        "channels_last": (truth(cfg, "channels_last"), True),
        "compile": (_compile(cfg), None),
    }
    for name, (value, default) in extras.items():
        if name not in takes and value != default:
            raise ValueError(f"{name}={value}: the task {cfg.task._target_} takes no {name}; leave it at its default")
    return partial(build, **{name: value for name, (value, _) in extras.items() if name in takes})


def _slimming(cfg: DictConfig) -> Callable[..., Any]:
    """What makes the callback; with the table that says how long layers take, where there is a target for that."""
    build, asked = _partial(cfg, "slimming"), numbers.latency(cfg)
    return build if cfg.target_latency is None else partial(build, latency=LatencyTable(**asked))


def _finetune_scheduler(cfg: DictConfig) -> Callable[..., Any] | None:
    """Another schedule for fine-tuning, by its name or as {_target_: ...}; None: that of the training."""
    asked = cfg.finetune.scheduler
    if isinstance(asked, str):
        if asked not in SCHEDULES:
            raise ValueError(
                f"finetune.scheduler={asked} is not known; there is {', '.join(SCHEDULES)}, or {{_target_: ...}}"
            )
        return SCHEDULES[asked]
    if asked is not None and not isinstance(asked, DictConfig):
        raise ValueError(f"finetune.scheduler={asked} is no schedule; give one of {', '.join(SCHEDULES)}")
    return None if asked is None else _partial(cfg, "finetune.scheduler", epochs=1)


def _distillation(cfg: DictConfig) -> Callable[..., Distillation] | None:
    """What makes the distillation of fine-tuning, from a teacher; None where its share of the loss is 0."""
    share, temperature = number(cfg, "finetune.distill", float), number(cfg, "finetune.temperature", float)
    check_distillation(share, temperature)
    if not share:
        return None
    if "distillation" not in inspect.signature(_partial(cfg, "task")).parameters:
        raise ValueError(
            f"finetune.distill={share:g}: the task {cfg.task._target_} takes no distillation; leave it at 0, or let "
            "the task take it"
        )
    return partial(Distillation, share=share, temperature=temperature)


def _other(cfg: DictConfig, group: str) -> Any:
    """The object of a door; None where it is the one that everything behind the door takes by itself."""
    if OmegaConf.to_container(cfg[group], resolve=True) == recorded.DEFAULTS[group]:
        return None
    made = _made(cfg[group], group)
    if lacking := [name for name in MEMBERS[group] if not hasattr(made, name)]:
        raise ValueError(f"{group}: {cfg[group]._target_} is no {group}, it has no {' and no '.join(lacking)}")
    return made


def _made(config: Any, name: str) -> Any:
    try:
        return instantiate(config)
    except InstantiationException as error:
        if isinstance(error.__cause__, TypeError):
            raise ValueError(f"{name}: {config._target_}: {error.__cause__}") from None
        if isinstance(error.__cause__, ValueError):
            raise ValueError(f"{name}: {error.__cause__}") from None
        raise


def _named(config: Any, name: str, given: tuple[Any, ...]) -> Any:
    """The function that a configuration names, which will be called with so many arguments as are given here."""
    if not isinstance(config, DictConfig) or "_target_" not in config:
        raise ValueError(f"{name}={config} names no function or class; give one, such as {{_target_: my.module.name}}")
    build = instantiate(config, _partial_=True)
    _check_signature(partial(build, *given), name, config._target_, complete=True)
    return build


def _makers(
    cfg: DictConfig, key: str, given: tuple[Any, ...], known: Mapping[str, Any] | None = None
) -> Iterator[Callable[..., Any]]:
    """The functions of a list: names of those that are known, or {_target_: ...} of one's own."""
    if not isinstance(cfg[key], ListConfig):
        known_one = known is not None and cfg[key] in known
        raise ValueError(
            f"{key}={cfg[key]} is no list; write {key}=[{cfg[key] if known_one else '{_target_: my.module.name}'}]"
        )
    for place, item in enumerate(cfg[key]):
        if known is not None and isinstance(item, str):
            if item not in known:
                raise ValueError(
                    f"{key}={item} is not known; there is {', '.join(known) or 'none'}, or {{_target_: ...}}"
                )
            yield known[item]
        else:
            yield _named(item, f"{key}[{place}]", given)


def _check_added(cfg: DictConfig) -> None:
    """A setting that a command adds with + must be one that somebody reads."""
    for word in HydraConfig.get().overrides.task:
        key = word.lstrip("+").partition("=")[0].partition("@")[0]
        top = key.partition(".")[0]
        alien = top not in SETTINGS and key not in HydraConfig.get().runtime.choices
        if word.startswith("+") and (alien or (top == "finetune" and key.split(".")[1:2] not in FINETUNE)):
            raise ValueError(unknown(key, cfg))
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


def _partial(cfg: DictConfig, group: str, **given: Any) -> Any:
    """A group's ``_partial_`` object; settings that its class does not know are named at once.

    given: what it will be called with by name besides.
    """
    asked = OmegaConf.select(cfg, group)
    build = instantiate(asked, _partial_=True)
    try:
        inspect.signature(build.func).bind_partial(*build.args, **{**build.keywords, **given})
    except TypeError as error:
        remedy = "; a schedule is made by a function of (optimizer, epochs)" if group.endswith("scheduler") else ""
        raise ValueError(f"{group}: {asked._target_}: {error}{remedy}") from None
    return build


def factory(cfg: DictConfig, group: str) -> Callable[..., Any]:
    """What builds the object of a group; settings that its class does not know are named before it is called."""
    build = instantiate(cfg[group], _partial_=True)
    for key, value in build.keywords.items():
        if isinstance(value, partial):
            _check_signature(value, f"{group}.{key}", cfg[group][key]._target_, complete=False)

    def checked(**more: Any) -> Any:
        _check_signature(partial(build, **more), group, cfg[group]._target_, complete=True)
        return build(**more)

    return checked


def _check_signature(build: partial, name: str, target: str, *, complete: bool) -> None:
    signature = inspect.signature(build.func)
    try:
        (signature.bind if complete else signature.bind_partial)(*build.args, **build.keywords)
    except TypeError as error:
        raise ValueError(f"{name}: {target}: {error}") from None
