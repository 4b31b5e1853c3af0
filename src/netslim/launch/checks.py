"""What is refused before anything is computed: a job is turned into the objects that it will run with, which are made
here and thrown away. A sweep checks all its jobs before the first one trains."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, flag_override

from netslim.launch import command_line, config, quiet
from netslim.method.schedules import check_schedule

# Settings of the Trainer with which a training would end early and be recorded as whole, or could not be recorded.
REFUSED = {
    "fast_dev_run": "write epochs=1 +trainer.limit_train_batches=1",
    "overfit_batches": "write +trainer.limit_train_batches=…",
    "max_steps": "write epochs=…",
    "max_time": "stop the command whenever you like; the same command goes on from the last whole epoch",
    "barebones": "netslim records its runs",
}
AT_LEAST_ONE = ("limit_train_batches", "limit_test_batches")  # nothing trained, nothing tested: nothing to record


def check(job: DictConfig) -> None:
    """Refuse a job that cannot run.

    Args:
        job: its configuration, Hydra's own part included.

    Raises:
        ValueError: a setting has no value, one that cannot be, or names what does not exist.
    """
    quiet.quiet()
    HydraConfig.instance().set_config(job)
    command_line.folder(job)
    settings = copy.deepcopy(job)
    with flag_override(settings, ["struct", "readonly"], [False, False]):
        del settings["hydra"]
    _check_trainer(settings)
    _check_targets(settings)
    asked = config.job(settings, command="")
    check_schedule(asked.schedule, asked.ratio, asked.epochs)
    asked.slimming(ratio=asked.ratio, network="network", split="test")
    _make(asked.trainer, "trainer", logger=False, enable_checkpointing=False)


def _check_trainer(settings: DictConfig) -> None:
    asked = settings.trainer
    for key, remedy in REFUSED.items():
        if asked.get(key):
            raise ValueError(f"trainer.{key}={asked[key]} is not served; {remedy}")
    for key in AT_LEAST_ONE:
        if asked.get(key) == 0:
            raise ValueError(f"trainer.{key}={asked[key]} leaves nothing to record; give 1 or more")


def _check_targets(settings: DictConfig) -> None:
    """Every class or function that is named can be imported."""
    plain = OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
    for key, name in _targets(plain, ""):
        try:
            get_object(name)
        except Exception as error:
            raise ValueError(f"{key}={name} cannot be imported: {_root(error)}") from None


def _targets(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            path = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                yield path, inner
            yield from _targets(inner, path)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _targets(inner, f"{key}[{number}]")


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _make(build: Any, group: str, **given: Any) -> Any:
    try:
        return build(**given)
    except TypeError as error:
        raise ValueError(f"{group}: {error}") from None
