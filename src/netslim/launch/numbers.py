"""The numbers of a configuration: checked, and those of them that depend on what else is given."""

from __future__ import annotations

import math
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from netslim.experiment.job import SOME
from netslim.experiment.measurements import AUTO
from netslim.experiment.records import TARGETS
from netslim.method.schedules import Schedule

LATENCY = {"runtime": "eager", "batch": 1}


def target(cfg: DictConfig) -> dict[str, float]:
    """What may be left, where that is given instead of the ratio."""
    found = {key: number(cfg, key, float) for key in TARGETS if cfg[key] is not None}
    given = [*(["ratio"] if _typed("ratio") and cfg.ratio is not None else []), *found]
    if found and len(given) > 1:
        words = " and ".join(f"{key}={cfg[key]}" for key in given)
        raise ValueError(f"{words} both say how much is removed; give one of them (ratio=null takes a sweep's back)")
    return found


def latency(cfg: DictConfig) -> dict[str, Any]:
    """Where and with what batch the latency is measured that ``target_latency`` asks for."""
    asked: dict[str, Any] = OmegaConf.to_container(cfg.latency)  # type: ignore[assignment]
    if cfg.target_latency is None and asked != LATENCY:
        words = " ".join(f"latency.{key}={value}" for key, value in asked.items() if value != LATENCY.get(key))
        raise ValueError(
            f"{words} has no effect without target_latency=…; give that instead of a ratio, or leave it out"
        )
    return asked


def _typed(key: str) -> bool:
    return any(word.lstrip("+").startswith(f"{key}=") for word in HydraConfig.get().overrides.task)


def epochs(cfg: DictConfig) -> int:
    """0 where the network has been trained already: its weights are given, or it is one of the user's own."""
    own = not str(cfg.net._target_).startswith(("netslim.", "torchvision.", "timm."))
    if cfg.epochs == 0 and not (cfg.weights or own):
        raise ValueError("epochs=0 is too small; give 1 or more, or weights=FILE of a network that is trained")
    found: int = number(cfg, "epochs", int, least=0 if cfg.epochs == 0 else 1)
    return found


def seed(cfg: DictConfig) -> int:
    found: int = number(cfg, "seed", int, least=0)
    if found >= 2**32:  # NumPy's takes no more
        raise ValueError(f"seed={found} is too large; give at most {2**32 - 1}")
    return found


def strength(cfg: DictConfig) -> float:
    """λ: a number, or auto."""
    return AUTO if cfg["lambda"] == "auto" else float(number(cfg, "lambda", float))


def no_penalty(cfg: DictConfig) -> float:
    """λ of a job that trains no epoch."""
    if _typed("lambda") and strength(cfg):
        raise ValueError(f"lambda={cfg['lambda']} has no effect with epochs=0; leave it out, or train some epochs")
    return 0.0


def finetune_epochs(cfg: DictConfig, schedule: Schedule, epochs: int) -> int:
    """As they are asked for; else as many as the training has, and none where the network gets smaller inside it."""
    if cfg.finetune.epochs is not None:
        return int(number(cfg, "finetune.epochs", int, least=0))
    ratio = SOME if target(cfg) else number(cfg, "ratio", float)
    return epochs if schedule.rounds(ratio) else 0


def words(cfg: DictConfig, key: str) -> tuple[str, ...]:
    """A list of words, or one alone."""
    given = [] if cfg[key] is None else cfg[key]
    if not isinstance(given, (str, ListConfig, list)):
        raise ValueError(f"{key}={given} is no list of words; leave it out, or see netslim --settings")
    return (given,) if isinstance(given, str) else tuple(map(str, given))


def number(cfg: DictConfig, key: str, kind: type[int] | type[float], least: int | None = None) -> Any:
    value = OmegaConf.select(cfg, key, throw_on_missing=True)
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or not math.isfinite(value):
        raise ValueError(f"{key}={value} is not a {'whole ' if kind is int else ''}number")
    if least is not None and value < least:
        raise ValueError(f"{key}={value} is too small; give {least} or more")
    return kind(value)


def truth(cfg: DictConfig, key: str) -> bool:
    value = OmegaConf.select(cfg, key, throw_on_missing=True)
    if not isinstance(value, bool):
        raise ValueError(f"{key}={value} is neither true nor false")
    return value
