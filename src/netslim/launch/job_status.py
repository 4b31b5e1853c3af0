"""What became of each job of a call of ``netslim -m``: a small file per job, written where the job runs, read where the
sweep ends.

Every call has files of its own, so that a second call of the same sweep, which runs beside the first or is killed,
cannot change what the first one learns. A job that is killed with its process leaves "running" behind.
"""

from __future__ import annotations

import math
import os
import platform
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from netslim import files
from netslim.experiment import paths

RUNNING, FINISHED, FAILED = "running", "finished", "failed"
PLAN = "plan.json"
CALL = uuid.uuid4().hex[:12]  # this process's call; the configuration carries it to where its jobs run


class Status(msgspec.Struct, kw_only=True, frozen=True):
    """The state of a job, the command that repeats it, its result or why it failed, and where it ran."""

    state: Literal["running", "finished", "failed"]
    command: str = ""
    value: float | None = None
    reason: str = ""
    host: str = ""
    pid: int = 0

    @property
    def number(self) -> float:
        """The job's result; nan where it has none."""
        return math.nan if self.value is None else self.value


def folder(sweep: Path, call: str | None = None) -> Path:
    """Where a call keeps the states of its jobs; default: the call of this process."""
    return sweep / "logs" / "status" / (call or CALL)


def note(
    states: Path, overrides: Sequence[str], state: Literal["running", "finished", "failed"], *, command: str,
    value: float | None = None, reason: str = "",
) -> None:  # fmt: skip
    """Write the state of the job with these overrides into the folder of its call."""
    status = Status(
        state=state, command=command, value=value, reason=reason, host=platform.node(), pid=os.getpid()
    )  # fmt: skip
    files.write_bytes(_path(states, overrides), msgspec.json.encode(status) + b"\n")


def note_plan(sweep: Path, plans: Sequence[Mapping[str, int]]) -> None:
    """Write what this call's jobs will train (experiment/plan.py), for the time that is left."""
    files.write_json(folder(sweep) / PLAN, {key: epochs for plan in plans for key, epochs in plan.items()})


def plan(states: Path) -> dict[str, int]:
    """What the jobs of a call will train; {} where that is not known."""
    path = states / PLAN
    return dict(files.read_json(path)) if path.exists() else {}


def read(states: Path, overrides: Sequence[str]) -> Status | None:
    """What is known of the job; None when it has never started. A damaged file is a job that failed, and says so."""
    path = _path(states, overrides)
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Status(state="failed", reason=f"its state is unknown: {path} is damaged ({error})")


def failure(states: Path, overrides: Sequence[str]) -> str | None:
    """Why this job has failed in this call already, which goes on after a worker was killed; None if it has not."""
    known = read(states, overrides)
    return known.reason if known is not None and known.state == FAILED else None


def reason(status: Status | None) -> str:
    """Why a job has not finished, in one line."""
    if status is None:
        return "was not started"
    if status.state == RUNNING:
        return f"ended without a word (process {status.pid} on {status.host} was killed, or still runs)"
    return status.reason


def _path(states: Path, overrides: Sequence[str]) -> Path:
    return states / f"{paths.digest({'overrides': list(overrides)})}.json"
