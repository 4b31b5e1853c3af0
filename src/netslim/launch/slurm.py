"""The Slurm launcher: submitit submits the jobs and requeues them; here the sweep waits for them.

submitit itself asks Slurm's accounting what became of a job. A machine or a small cluster often has none, and a job
that was killed would be waited for without end. So the wait goes by what needs no accounting: the status that each job
writes, and ``squeue``. A job that has left the queue without a word is lost; the others are waited for all the same.
"""

from __future__ import annotations

import getpass
import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from omegaconf import OmegaConf

from netslim.launch import command_line, job_status
from netslim.launch.job_process import JobFailed

log = logging.getLogger("netslim")

POLL = 5.0  # seconds between two looks at the queue
GRACE = 30.0  # seconds for a job's last word to arrive through a network file system


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
    """Submit the jobs of a sweep as one array, and wait for them."""
    config, params = launcher.config, launcher.params
    HydraConfig.instance().set_config(config)
    Path(str(config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    calls = [
        (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
        for number, overrides in enumerate(job_overrides, initial_job_idx)
    ]
    jobs = _executor(params).map_array(launcher, *zip(*calls, strict=True))
    for job, overrides in zip(jobs, job_overrides, strict=True):
        log.info("\tSlurm job %s: %s", job.job_id, " ".join(filter_overrides(overrides)))
    log.info("Output in %s; to give up: scancel %s", params["submitit_folder"], jobs[0].job_id.split("_")[0])
    folders = [command_line.folder(composed) for composed in command_line.compose_all(config, job_overrides)]
    HydraConfig.instance().set_config(config)
    submitted = zip(jobs, folders, job_overrides, strict=True)
    return wait({job.job_id: (job_status.folder(folder), list(words)) for job, folder, words in submitted})


def _executor(params: Mapping[str, Any]) -> submitit.AutoExecutor:
    common = set(OmegaConf.structured(BaseQueueConf).keys())
    settings = dict(params)
    executor = submitit.AutoExecutor(
        settings.pop("submitit_folder"), cluster="slurm", slurm_max_num_timeout=settings.pop("max_num_timeout")
    )
    executor.update_parameters(**{key if key in common else f"slurm_{key}": value for key, value in settings.items()})
    return executor


def wait(jobs: dict[str, tuple[Path, list[str]]]) -> list[JobReturn]:
    """Wait until every job has ended or is lost; what became of each.

    jobs: Slurm's number -> the folder in which the job writes its state, its overrides.
    """
    ended: dict[str, JobReturn] = {}
    gone: dict[str, float] = {}  # since when a job without a last word is not in the queue
    while len(ended) < len(jobs):
        time.sleep(POLL)
        queued = queue()  # before the states: what it no longer holds has written its last word
        for number in jobs.keys() - ended.keys():
            states, overrides = jobs[number]
            status = job_status.read(states, overrides)
            if status is not None and status.state != job_status.RUNNING:
                ended[number] = _returned(overrides, status)
            elif queued is None or number in queued:
                gone.pop(number, None)
            elif time.monotonic() - gone.setdefault(number, time.monotonic()) > GRACE:
                ended[number] = _returned(overrides, _lose(states, number, overrides))
    return [ended[number] for number in jobs]


def queue() -> set[str] | None:
    """The user's jobs that wait or run, as in 17_0; None when Slurm does not answer."""
    asked = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
    answer = subprocess.run(asked, capture_output=True, text=True)
    return set(answer.stdout.split()) if answer.returncode == 0 else None


def _lose(states: Path, number: str, overrides: list[str]) -> job_status.Status:
    known = job_status.read(states, overrides)
    reason = f"Slurm job {number} left the queue without a result (killed, cancelled, or its node failed)"
    again = known.command if known is not None and known.command else command_line.alone(overrides)
    job_status.note(states, overrides, "failed", command=again, reason=reason)
    log.error("%s; to repeat just this one: %s", reason, again)
    return job_status.Status(state="failed", reason=reason)


def _returned(overrides: list[str], status: job_status.Status) -> JobReturn:
    if status.state == job_status.FINISHED:
        return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=status.number)
    return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=JobFailed(status.reason))
