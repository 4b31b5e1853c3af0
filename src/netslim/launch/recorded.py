"""What of a configuration determines each stage, as it is recorded in ``settings.json`` and digested in its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from netslim.experiment import paths

Plain = dict[str, Any]

RECIPE = ("net", "data", "optimizer", "scheduler", "trainer", "label_smoothing", "channels_last", "compile")
# What came later stays out of the names of stages while it is what it always was.
DEFAULTS: dict[str, Any] = {
    "weights": None,
    "penalty": {"_target_": "netslim.method.penalties.L1"},
    "score": {"_target_": "netslim.method.scores.Magnitude"},
    "schedule": {"_target_": "netslim.method.schedules.OneShot"},
    "task": {"_target_": "netslim.SlimmingTask", "_partial_": True},
    "callbacks": [],
    "scale_decay": None,
}
LATER: dict[str, Plain] = {
    "slimming": {"most": 1.0, "reconstruct": 0, "rescale": False},
    "schedule": {"stable": None},
}  # the same of single settings of a group
# Present name -> the one that stands in finished stages' settings, of which their names are made.
FORMER = {"netslim.training.lr_schedules.multistep": "netslim.schedule.multistep"}


def settings(cfg: DictConfig) -> dict[str, Plain]:
    """What determines each stage beside λ, ratio, seed and epochs, as plain data.

    What comes from an environment variable is recorded as it is written (it may be a secret); a digest of its value
    stands under "identity".
    """
    values: Plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    for group, defaults in LATER.items():
        values[group] = {key: value for key, value in values[group].items() if defaults.get(key, ...) != value}
    timed = {} if values["target_latency"] is None else {"latency": values["latency"]}
    chosen = {key: values[key] for key, default in DEFAULTS.items() if values[key] != default}
    cut: Plain = {
        key: chosen.pop(key) for key in ("score", "schedule") if key in chosen
    }  # trainings are shared by them
    # A multiple was once met by rounding each layer up: with the same settings, other channels.
    rounding = {} if values["slimming"].get("round_to", 1) in (1, "auto") else {"rounding": "to the budget"}
    recipe = {**{key: values[key] for key in RECIPE}, **chosen}
    for group in ("data", "trainer"):
        own = recipe[group].items()
        recipe[group] = {key: value for key, value in own if f"{group}.{key}" not in paths.WITHOUT_EFFECT}
    return {
        "train": _written(recipe, cfg),
        "slim": {**_written({"slimming": values["slimming"], **cut, **timed}, cfg), **rounding},
        "finetune": {**_written(recipe, cfg), **_finetune(values["finetune"])},
    }


def _finetune(chosen: Plain) -> Plain:
    """What of the fine-tuning is not as in the training: its first rate, its schedule, what it learns from."""
    scheduler = {} if chosen["scheduler"] is None else {"scheduler": chosen["scheduler"]}
    distilled = {key: float(chosen[key]) for key in ("distill", "temperature")} if chosen["distill"] else {}
    return {"lr": chosen["lr"], **scheduler, **distilled}


def method() -> str:
    """The name of the method that was chosen; "" where the command changes its score, its schedule or the penalty."""
    tops = [re.split(r"[.=]", word.lstrip("+~"))[0] for word in HydraConfig.get().overrides.task]
    own = {"score", "schedule", "penalty"} & set(tops)
    return "" if own else HydraConfig.get().runtime.choices.get("method") or ""


def places(cfg: DictConfig) -> dict[str, str]:
    """The settings of network and data that say where files are: those named so, and those that name a file."""
    values: Plain = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    found = {}
    for name, value in _leaves({group: values[group] for group in ("net", "data", "weights")}):
        named = re.search(r"(root|path|file|folder|dir|train|val|test)$", name) is not None
        if isinstance(value, str) and name not in paths.WITHOUT_EFFECT and (named or Path(value).is_file()):
            found[name] = value
    return found


def _written(values: Plain, cfg: DictConfig) -> Plain:
    """The same values, those from the environment as they are written, and old names for what was renamed."""
    hidden = {}
    for name, value in list(_leaves(values)):
        written = FORMER.get(value, value) if name.endswith("_target_") else _from_environment(cfg, name)
        if written is None or written == value:
            continue
        *above, last = name.split(".")
        inner = values
        for step in above:
            inner = inner[step]
        inner[last] = written
        if not name.endswith("_target_"):
            hidden[name] = paths.digest({"value": value})
    return {**values, "identity": hidden} if hidden else values


def _from_environment(cfg: DictConfig, name: str) -> str | None:
    """How a setting is written whose value comes from an environment variable, directly or by way of another one."""
    above, _, last = name.rpartition(".")
    node = OmegaConf.select(cfg, above) if above else cfg
    written = OmegaConf.to_container(node, resolve=False)[last] if isinstance(node, DictConfig) else None  # type: ignore[index,call-overload]
    if not isinstance(written, str) or "${" not in written:
        return None
    names = re.findall(r"\$\{([\w.]+)\}", written)
    return written if "oc.env" in written or any(_from_environment(cfg, other) for other in names) else None


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
