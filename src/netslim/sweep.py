"""Around a run or a sweep: what is about to happen, what failed, and the report at the end. A Hydra callback."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import DictConfig

from netslim import artifacts, report

log = logging.getLogger("netslim")


class Sweep(Callback):
    """Writes ``sweep.json`` before the first job, names a failed job, builds the report after the last."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        if artifacts.load_sweep(_folder(config)) is None:  # else it repeats, or adds to, what is there
            artifacts.write_sweep(_folder(config), _command(), [list(config.hydra.overrides.task)])

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        artifacts.write_sweep(_folder(config), _command(), grid(config))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        if job_return.status == JobStatus.FAILED:
            again = shlex.join(["netslim", *(job_return.overrides or [])])
            log.error("job failed; to repeat just this one: %s", again)

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        _report(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        _report(config)


def grid(config: DictConfig) -> list[list[str]]:
    """The overrides of every job of a grid sweep, in the order in which they run."""
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*params, *config.hydra.overrides.task])
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [list(job) for job in jobs]


def _folder(config: DictConfig) -> Path:
    return Path(config.outputs) / config.name


def _command() -> str:
    return shlex.join(["netslim", *sys.argv[1:]])


def _report(config: DictConfig) -> None:
    folder = _folder(config)
    if not artifacts.load_jobs(folder):
        return
    print(f"\nReport:      {report.build(folder)}\nTensorBoard: tensorboard --logdir {folder}")
