"""Around a run or a sweep: the list of its jobs, what became of them, and the report at the end."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from netslim import report
from netslim.experiment import paths, records
from netslim.launch import command_line, gpu_lease, job_status
from netslim.measure.environment import processor_cores
from netslim.training import distributed

log = logging.getLogger("netslim")

# conf/hydra/launcher/ overrides the plugins' defaults under the plugins' names; that they validate it is welcome.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")

PLUGINS = {  # choice -> the extra that installs it, what it installs
    "launcher=joblib": ("joblib", "hydra_plugins.hydra_joblib_launcher"),
    "launcher=submitit_slurm": ("slurm", "hydra_plugins.hydra_submitit_launcher"),
    "launcher=ray": ("ray", "hydra_plugins.hydra_ray_launcher"),
    "sweeper=optuna": ("optuna", "hydra_plugins.hydra_optuna_sweeper"),
}
started: dict[Path, list[list[str]]] = {}  # folder -> jobs: what is due when this process ends


class Sweep(Callback):
    """Writes ``sweep.json`` before the first job, and notes what becomes of each job, with the command that repeats it.

    The first half runs in the process of the sweep, the second where the launcher runs the job.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        folder = _folder(config)
        if not distributed.is_rank_zero():
            return
        if paths.load_sweep(folder) is None:  # else it repeats, or adds to, what is there
            paths.write_sweep(folder, command_line.typed(), [list(config.hydra.overrides.task)])
        started[folder] = []

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        folder, jobs = _folder(config), grid(config)
        _check_installed(config)
        if not distributed.is_rank_zero() or folder in started:  # the latter: it goes on after a worker was killed
            return
        paths.write_sweep(folder, command_line.typed(), jobs, earlier=_earlier(folder, jobs))
        job_status.forget(folder, jobs)
        started[folder] = jobs
        signal.signal(signal.SIGTERM, _stop)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        known = failure(_folder(config), config.hydra.overrides.task)
        if config.hydra.mode == RunMode.MULTIRUN and distributed.is_rank_zero() and known is None:
            _note(config, job_status.RUNNING)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN or not distributed.is_rank_zero():
            return
        if job_return.status == JobStatus.COMPLETED:
            _note(config, job_status.FINISHED, value=job_return.return_value)
            return
        error = job_return._return_value  # the property of that name raises it
        _note(config, job_status.FAILED, reason=" ".join(str(error).split()) or type(error).__name__)
        log.error("job failed; to repeat just this one: %s", command_line.repeat(config.hydra))


def failure(folder: Path, overrides: Sequence[str]) -> str | None:
    """Why this job has failed in this sweep already, which goes on after a worker was killed; None if it has not."""
    known = job_status.read(folder, overrides)
    return known["reason"] if known is not None and known["state"] == job_status.FAILED else None


def report_all() -> None:
    """Build the report of what this process started; jobs that are missing are named in it."""
    for folder in started:
        if paths.load_jobs(folder):
            shown = shlex.quote(str(folder))
            print(f"\nReport:      {report.build(folder)}\nTensorBoard: tensorboard --logdir {shown}", flush=True)


def withdraw() -> None:
    """Forget a command that was refused before it began anything, so that no report waits for its jobs."""
    for folder in started:
        if not any(folder.glob("*/settings.json")):
            (folder / "sweep.json").unlink(missing_ok=True)


def summary() -> int:
    """Name every job of this process's sweeps that did not finish, why, and what repeats it. Returns their number."""
    missing = 0
    for folder, jobs in started.items():
        known = [(overrides, job_status.read(folder, overrides)) for overrides in jobs]
        lost = [
            (overrides, record) for overrides, record in known if not record or record["state"] != job_status.FINISHED
        ]
        missing += len(lost)
        if lost:
            print(f"\nnetslim: {len(lost)} of {len(jobs)} jobs did not finish:", file=sys.stderr)
        for overrides, record in lost:
            again = record["command"] if record else command_line.alone(overrides)
            print(f"  {job_status.reason(record)}\n    {again}", file=sys.stderr)
    if missing:
        print("The same command runs only what is missing.", file=sys.stderr)
    return missing


def grid(config: DictConfig) -> list[list[str]]:
    """The overrides of every job of a grid sweep, in the order in which they run."""
    if "BasicSweeper" not in config.hydra.sweeper._target_:
        return []  # a sweeper that decides as it goes
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*params, *config.hydra.overrides.task])
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [list(job) for job in jobs]


def workers(threads: int | None, devices: Any, accelerator: str) -> int:
    """How many jobs this machine runs side by side: one per ``devices`` GPUs, or without any, per ``threads`` cores."""
    gpus = [] if accelerator == "cpu" else gpu_lease.visible()
    if gpus:
        each = devices if isinstance(devices, int) and devices > 0 else len(gpus)
        return max(1, len(gpus) // each)
    return max(1, processor_cores() // threads) if threads else 1


OmegaConf.register_new_resolver("netslim.workers", workers, replace=True)


def _check_installed(config: DictConfig) -> None:
    for group in ("launcher", "sweeper"):
        choice = f"{group}={config.hydra.runtime.choices[f'hydra/{group}']}"
        extra, plugin = PLUGINS.get(choice, ("", "hydra"))
        if find_spec(plugin) is None:
            raise ValueError(f"hydra/{choice} is not installed: pip install 'netslim[{extra}]'")


def _earlier(folder: Path, jobs: list[list[str]]) -> list[records.Asked]:
    """What earlier commands asked for in this folder and this one does not: their jobs, with the command of each."""
    known = paths.load_sweep(folder)
    if known is None:
        return []
    left = [
        records.Asked(command=part.command, jobs=[job for job in part.jobs if job not in jobs])
        for part in (known, *known.earlier)
    ]
    return [part for part in left if part.jobs]


def _folder(config: DictConfig) -> Path:
    HydraConfig.instance().set_config(config)  # `name` may ask for it; Hydra itself sets it only when a job starts
    return paths.sweep_folder(config.outputs, config.name)


def _note(config: DictConfig, state: str, **result: Any) -> None:
    again = command_line.repeat(config.hydra)
    job_status.note(_folder(config), config.hydra.overrides.task, state, command=again, **result)


def _stop(*_: Any) -> None:
    raise SIGTERMException
