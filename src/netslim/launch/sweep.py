"""Before a run or a sweep: the list of its jobs, all checked before the first one trains; and each job's state.

Hydra imports this module at every start, ``netslim --help`` too, so it loads neither torch nor Lightning.
"""

from __future__ import annotations

import logging
import shlex
import signal
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from netslim.experiment import paths
from netslim.experiment.sweep_record import Asked
from netslim.launch import command_line, ending, errors, job_status, mistakes

if TYPE_CHECKING:
    from netslim.experiment.job import Job
    from netslim.launch import trial

log = logging.getLogger("netslim")

HERE = ("basic", "joblib")  # launchers whose jobs run on this machine, and can be tried on it


class Sweep(Callback):
    """Writes ``sweep.json`` before the first job, and notes what becomes of each job, with the command that repeats it.

    The first half runs in the process of the sweep, the second where the launcher runs the job.
    """

    def __init__(self, call: str, dry_run: bool = False) -> None:
        """call: whose states the jobs write, see job_status.py; dry_run: say what the command would do, and end."""
        self.call, self.dry_run = call, dry_run

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        job = list(config.hydra.overrides.task)
        _check_swept(config)
        made = _check([config], [job])
        folder = command_line.folder(config)
        if self.dry_run:
            _end_dry_run(_try(made, [folder], [job], measure=True), [folder])
        if not _is_rank_zero():
            return
        if paths.load_sweep(folder) is None:  # else it repeats, or adds to, what is there
            _write(folder, [job])
        ending.started[folder] = []

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        _check_installed(config)
        jobs = grid(config)
        configs = command_line.compose_all(config, jobs) if jobs else [config]
        made = _check(configs, jobs)
        if not _is_rank_zero() or ending.started:  # the latter: it goes on after a worker was killed
            return
        folders = [command_line.folder(each) for each in configs]
        here = self.dry_run or config.hydra.runtime.choices["hydra/launcher"] in HERE
        tried = _try(made, folders, jobs, measure=self.dry_run) if jobs and here else []
        if self.dry_run:
            _end_dry_run(tried, folders)
        for folder, own in _by_folder(configs, jobs).items():
            _write(folder, own)
            ending.started[folder] = own
            job_status.note_plan(folder, [each.plan for each in tried])
        HydraConfig.instance().set_config(config)  # it was that of the last job
        signal.signal(signal.SIGTERM, _stop)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN or not _is_rank_zero():
            return
        if job_status.failure(self._states(config), config.hydra.overrides.task) is None:
            self._note(config, "running")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN or not _is_rank_zero():
            return
        if job_return.status == JobStatus.COMPLETED:
            self._note(config, "finished", value=job_return.return_value)
            return
        error = job_return._return_value  # the property of that name raises it
        self._note(config, "failed", reason=" ".join(str(error).split()) or type(error).__name__)
        log.error("job failed; to repeat just this one: %s", command_line.repeat(config.hydra))

    def _note(self, config: DictConfig, state: Any, **result: Any) -> None:
        again = command_line.repeat(config.hydra)
        job_status.note(self._states(config), config.hydra.overrides.task, state, command=again, **result)

    def _states(self, config: DictConfig) -> Path:
        return job_status.folder(command_line.folder(config), self.call)


def grid(config: DictConfig) -> list[list[str]]:
    """The overrides of every job of a grid sweep, in the order in which they run."""
    if "BasicSweeper" not in config.hydra.sweeper._target_:
        return []  # a sweeper that decides as it goes
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*params, *config.hydra.overrides.task])
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [list(job) for job in jobs]


def _check(configs: Sequence[DictConfig], jobs: Sequence[Sequence[str]]) -> list[Job]:
    """The jobs as objects; refused by their settings alone where these cannot be."""
    from netslim.launch import checks, unused  # here, and below: they need torch and Lightning, which cost seconds

    made = []
    for number, config in enumerate(configs):
        try:
            made.append(checks.check(config))
        except Exception as error:
            if (said := errors.mistake(error)) is None:
                raise
            raise _refusal(said, number, jobs) from None
    if jobs:  # else a sweeper decides as it goes
        unused.check(configs, made)
    return made


def _try(
    made: Sequence[Job], folders: Sequence[Path], jobs: Sequence[Sequence[str]], *, measure: bool
) -> list[trial.Tried]:
    """The jobs built and tried, in a process of their own; refused where network, data and ratio do not fit."""
    from netslim.launch import job_process, trial

    pairs = list(zip(folders, made, strict=True))
    tried = job_process.apart(partial(trial.try_all, pairs, measure=measure))
    if isinstance(tried, trial.Refused):
        raise _refusal(tried.why, tried.number, jobs)
    return tried


def _refusal(why: str, number: int, jobs: Sequence[Sequence[str]]) -> ValueError:
    """One line for a job that cannot run, with what tells it from the others."""
    if len(jobs) < 2:
        return ValueError(why)
    own = [word for word in jobs[number] if any(word not in job for job in jobs)]
    return ValueError(f"{why} (job {number + 1} of {len(jobs)}: {shlex.join(own)})")


def _end_dry_run(tried: list[trial.Tried], folders: Sequence[Path]) -> NoReturn:
    from netslim.launch import trial

    print(trial.told(tried, list(dict.fromkeys(folders))))
    raise SystemExit(0)


def _is_rank_zero() -> bool:
    from netslim.training import distributed

    return distributed.is_rank_zero()


def _by_folder(configs: Sequence[DictConfig], jobs: Sequence[list[str]]) -> dict[Path, list[list[str]]]:
    """The jobs that go to each folder: without ``name=`` every network has one of its own."""
    folders: dict[Path, list[list[str]]] = {command_line.folder(config): [] for config in configs}
    for config, job in zip(configs, jobs, strict=False):  # a sweeper that decides as it goes has no jobs yet
        folders[command_line.folder(config)].append(job)
    return folders


def _write(folder: Path, jobs: list[list[str]]) -> None:
    """Note in the folder what was asked for, beside what earlier commands asked for."""
    if not (folder / "sweep.json").exists():
        ending.wrote.add(folder)
    paths.write_sweep(folder, command_line.typed(), jobs, earlier=_earlier(folder, jobs))


def _check_installed(config: DictConfig) -> None:
    for group in ("hydra/launcher", "hydra/sweeper"):
        choice = f"{group}={config.hydra.runtime.choices[group]}"
        extra, plugin = mistakes.PLUGINS.get(choice, ("", "hydra"))
        if find_spec(plugin) is None:
            raise ValueError(f"{choice} is not installed: pip install 'netslim[{extra}]'")


def _check_swept(config: DictConfig) -> None:
    """An experiment that is a sweep needs -m; or a value of what it sweeps, and then it is one job."""
    axes = list(config.hydra.sweeper.get("params") or {})
    if axes and not any(word.lstrip("+").partition("=")[0] in axes for word in config.hydra.overrides.task):
        experiment = f"experiment={config.hydra.runtime.choices.get('experiment')}"
        raise ValueError(
            f"{experiment} is a sweep over {' and '.join(axes)}; write netslim -m {experiment}, or one value of each"
        )


def _earlier(folder: Path, jobs: list[list[str]]) -> list[Asked]:
    """What earlier commands asked for in this folder and this one does not: their jobs, with the command of each."""
    known = paths.load_sweep(folder)
    if known is None:
        return []
    parts = [(part.command, [job for job in part.jobs if job not in jobs]) for part in (known, *known.earlier)]
    return [Asked(command=command, jobs=left) for command, left in parts if left]


def _stop(*_: Any) -> NoReturn:
    raise errors.Stopped(errors.TERMINATED)
