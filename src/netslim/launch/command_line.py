"""The command line: where the packaged configuration is, what was typed, and what repeats a job."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import cast

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from netslim.experiment import paths
from netslim.launch import debug, help, mistakes

PACKAGED = Path(__file__).parents[1] / "conf"
DRY_RUN = "hydra.callbacks.sweep.dry_run=true"  # what --dry-run stands for
CONF = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[3] / "conf"


def answer() -> None:
    """Answer what needs no configuration: --help and --version (Hydra would say its own), nothing, common mistakes.

    Raises:
        ValueError: a mistake, with what to type instead.
        SystemExit: the command is answered.
    """
    sys.argv[1:] = words = [mistakes.spelt(word) for word in mistakes.in_order(sys.argv[1:])]
    if (said := _answer(words)) is not None:
        print(said, end="")
        sys.exit()
    mistakes.look(words)
    sys.argv[1:] = [DRY_RUN if word == "--dry-run" else word for word in words]


def _answer(words: Sequence[str]) -> str | None:
    """What is said without running anything; None where there is something to run."""
    if "--version" in words:
        return f"netslim {version('netslim')}\n"
    if "--settings" in words:
        return help.settings(CONF)
    if {"--help", "-h"} & set(words):
        return help.HELP
    return None if words else help.START


def folder(config: DictConfig) -> Path:
    """Where everything goes that this configuration makes: the folder outputs/name, with debug=true another one.

    Raises:
        ValueError: one of the two is no name of a folder.
    """
    if "hydra" in config:
        HydraConfig.instance().set_config(config)  # `name` may ask for it; Hydra sets it only when a job starts
    for key in ("outputs", "name"):
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise ValueError(f"{key}={value} is no name of a folder; give one, such as {key}=lab4")
    return paths.sweep_folder(str(config.outputs), f"{config.name}{debug.suffix(config.debug)}")


def compose_all(config: DictConfig, jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """The configuration of every job of a sweep, as its launcher will compose it."""
    loader = GlobalHydra.instance().config_loader()
    return [loader.load_sweep_config(config, list(job)) for job in jobs]


def typed() -> str:
    """The command of this process."""
    return shlex.join(["netslim", *sys.argv[1:]])


def repeat(hydra: DictConfig) -> str:
    """The command that repeats just this job, from Hydra's own configuration, which every worker has."""
    return shlex.join(["netslim", *_flags(hydra), *hydra.overrides.task])


def alone(overrides: Sequence[str]) -> str:
    """The same for a job that never started, in the process of its sweep."""
    return shlex.join(["netslim", *_flags(cast(DictConfig, HydraConfig.get())), *overrides])


def _flags(hydra: DictConfig) -> list[str]:
    """Where else the configuration came from."""
    flags = []
    for source in hydra.runtime.config_sources:
        if source.provider == "main" and Path(source.path) != CONF:
            flags += ["--config-path", source.path]
        elif source.provider == "command-line":
            flags += ["--config-dir", source.path]
    if hydra.job.config_name not in (None, "config"):
        flags += ["--config-name", hydra.job.config_name]
    return flags + [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath")]
