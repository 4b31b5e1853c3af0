"""What became of each job of a sweep: a small file per job, written where the job runs, read where the sweep ends.

A job that is killed with the process that runs it leaves "running" behind: that is how the end of the sweep knows.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from netslim.experiment import paths
from netslim.files import Record, read_json, write_json

RUNNING, FINISHED, FAILED = "running", "finished", "failed"


def note(
    sweep: Path, overrides: Sequence[str], state: str, *, command: str, value: float | None = None, reason: str = ""
) -> None:
    """Write the state of the job with these overrides, the command that repeats it, its result or why it failed."""
    where = {"host": platform.node(), "pid": os.getpid()}
    write_json(_path(sweep, overrides), {"state": state, "value": value, "reason": reason, "command": command, **where})


def read(sweep: Path, overrides: Sequence[str]) -> Record | None:
    """What is known of the job; None when it has never started."""
    path = _path(sweep, overrides)
    return read_json(path) if path.exists() else None


def forget(sweep: Path, jobs: Sequence[Sequence[str]]) -> None:
    """These jobs are about to be run (again); no jobs stands for all of them."""
    for path in [_path(sweep, overrides) for overrides in jobs] or _folder(sweep).glob("*.json"):
        path.unlink(missing_ok=True)


def reason(record: Record | None) -> str:
    """Why a job has not finished, in one line."""
    if record is None:
        return "was not started"
    if record["state"] == RUNNING:
        return f"ended without a word (process {record['pid']} on {record['host']} was killed, or still runs)"
    return str(record["reason"])


def _folder(sweep: Path) -> Path:
    return sweep / "logs" / "status"


def _path(sweep: Path, overrides: Sequence[str]) -> Path:
    return _folder(sweep) / f"{paths.digest({'overrides': list(overrides)})}.json"
