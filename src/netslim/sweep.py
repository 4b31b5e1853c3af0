"""Around a run or a sweep: the list of its jobs, which of them failed, and the report at the end."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from netslim import artifacts, ranks, report

log = logging.getLogger("netslim")


started: list[Path] = []  # folders whose report is due when the process ends


class Sweep(Callback):
    """Writes ``sweep.json`` before the first job, and names a job that failed with the command that repeats it."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        folder = _folder(config)
        if not ranks.is_first():
            return
        if artifacts.load_sweep(folder) is None:  # else it repeats, or adds to, what is there
            artifacts.write_sweep(folder, _command(), [list(config.hydra.overrides.task)])
        started.append(folder)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        folder = _folder(config)
        if not ranks.is_first():
            return
        artifacts.write_sweep(folder, _command(), grid(config))
        started.append(folder)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        if job_return.status == JobStatus.FAILED and config.hydra.mode == RunMode.MULTIRUN:
            log.error("job failed; to repeat just this one: %s", shlex.join(["netslim", *(job_return.overrides or [])]))


def report_all() -> None:
    """Build the report of what this process started; jobs that are missing are named in it."""
    for folder in started:
        if artifacts.load_jobs(folder):
            print(f"\nReport:      {report.build(folder)}\nTensorBoard: tensorboard --logdir {folder}", flush=True)


def grid(config: DictConfig) -> list[list[str]]:
    """The overrides of every job of a grid sweep, in the order in which they run."""
    if "BasicSweeper" not in config.hydra.sweeper._target_:
        return []  # a sweeper that decides as it goes
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*params, *config.hydra.overrides.task])
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [list(job) for job in jobs]


def _folder(config: DictConfig) -> Path:
    HydraConfig.instance().set_config(config)  # `name` may ask for it; Hydra itself sets it only when a job starts
    return artifacts.sweep_folder(config.outputs, config.name)


def _command() -> str:
    return shlex.join(["netslim", *sys.argv[1:]])
