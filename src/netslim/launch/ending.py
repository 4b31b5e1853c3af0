"""After a run or a sweep: the report, what is missing and what repeats it, and a refused command taken back."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from netslim.experiment import paths
from netslim.launch import command_line, errors, job_status

started: dict[Path, list[list[str]]] = {}  # folder -> jobs: what is due when this process ends
wrote: set[Path] = set()  # folders in which no command before this one asked for anything


def end(work: errors.Answer) -> errors.Answer:
    """Build the reports of what this process started and sum its sweeps up; how the command ends.

    work: how the jobs ended. What is worse counts, and what was first is said.
    """
    if work.code in (errors.INTERRUPTED, errors.TERMINATED, errors.UNREAD):
        return work
    ended = max(work, errors.attempt(report_all), key=lambda answer: answer.code)
    failed = summary() > 0
    if ended.code == errors.MISTAKE:
        withdraw()
        return ended
    return errors.Answer(errors.FAILED) if failed else ended


def report_all() -> None:
    """Build the report of what this process started, show its table and say where it is; it names missing jobs."""
    for folder in started:
        if paths.load_jobs(folder):
            from netslim import report  # here: matplotlib, and every command that starts nothing comes by

            shown = shlex.quote(str(folder))
            page = report.build(folder)
            print(f"\n{report.summary(folder)}\n", flush=True)
            print(f"Report:      {page}\nTensorBoard: tensorboard --logdir {shown}", flush=True)


def withdraw() -> None:
    """Forget a command that was refused before it trained anything, so that no report waits for its jobs."""
    for folder in wrote:
        if not any(folder.glob("*/last.ckpt")) and not any(folder.glob("*/record.json")):
            (folder / "sweep.json").unlink(missing_ok=True)


def summary() -> int:
    """Name every job of this process's sweeps that did not finish, why, and what repeats it. Returns their number."""
    missing = 0
    for folder, jobs in started.items():
        states = [job_status.read(job_status.folder(folder), overrides) for overrides in jobs]
        lost = [
            (overrides, status)
            for overrides, status in zip(jobs, states, strict=True)
            if status is None or status.state != job_status.FINISHED
        ]
        missing += len(lost)
        if lost:
            print(f"\nnetslim: {len(lost)} of {len(jobs)} jobs did not finish:", file=sys.stderr)
        for overrides, status in lost:
            again = status.command if status is not None and status.command else command_line.alone(overrides)
            print(f"  {job_status.reason(status)}\n    {again}", file=sys.stderr)
    if missing:
        print("The same command runs only what is missing.", file=sys.stderr)
    return missing
