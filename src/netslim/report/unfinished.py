"""What a sweep was to run and no record shows as finished."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cache
from typing import Any

import yaml

from netslim.experiment import paths
from netslim.experiment.measurements import as_written
from netslim.experiment.records import TARGETS, FinishedJob
from netslim.experiment.sweep_record import Asked, SweepRecord
from netslim.report.results import settings


def unfinished(sweep: SweepRecord | None, jobs: Sequence[FinishedJob]) -> list[str]:
    """The command of each job that the sweep was to run and that no record shows as finished, in the sweep's order."""
    return [
        _command(command.command, wanted)
        for command in asked(sweep)
        for swept in [_swept(command.jobs)]
        for wanted in command.jobs
        if not any(_is(job, wanted, swept) for job in jobs)
    ]


def asked(sweep: SweepRecord | None) -> list[Asked]:
    """The commands that asked for jobs in this folder, the last one first, each with its jobs."""
    return [] if sweep is None else [sweep, *sweep.earlier]


def _swept(jobs: Sequence[Sequence[str]]) -> set[str]:
    """The settings in which the jobs of a command differ."""
    return {word.partition("=")[0] for job in jobs for word in job if not all(word in other for other in jobs)}


def _is(job: FinishedJob, overrides: Sequence[str], swept: set[str]) -> bool:
    """Whether a finished job is the one with these overrides. Where its files lie is compared only where that is swept:
    the same files may lie elsewhere today."""
    words, made = _words(job.command), settings(job)
    places = job.train.settings.get("identity", {}).keys()
    asked = job.target or {"ratio": job.ratio}
    own: dict[str, Any] = {**dict.fromkeys(("ratio", *TARGETS)), **asked, "seed": job.seed}
    own["lambda"] = as_written(job.strength)
    set_keys = {word.split("=", 1)[0] for word in words}
    for override in {override.partition("=")[0]: override for override in overrides}.values():  # the last one counts
        key, _, value = override.partition("=")
        if key in paths.WITHOUT_EFFECT or (key in places and key not in swept):
            continue
        if key in own:
            if _parsed(value) != own[key]:
                return False
        elif key == "method" and job.method:
            if value != job.method:
                return False
        elif key in places:
            if override not in words:
                return False
        elif key in made:
            if made[key] != _parsed(value):
                return False
        elif key in set_keys and override not in words:
            return False
    return True


@cache
def _words(command: str) -> list[str]:
    return shlex.split(command)


def _parsed(value: str) -> Any:
    """A value as the command line means it: numbers, lists, null."""
    try:
        return float(value)
    except ValueError:
        return yaml.safe_load(value)


def _command(sweep: str, overrides: Sequence[str]) -> str:
    """The sweep's command with its multirun flag and its swept values replaced by those of one job."""
    keys = {override.split("=", 1)[0] for override in overrides}
    words = [
        word for word in shlex.split(sweep) if word not in ("-m", "--multirun") and word.split("=", 1)[0] not in keys
    ]
    return shlex.join([*words, *overrides])
