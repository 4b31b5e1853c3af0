"""A job of a sweep in a process of its own: what kills the job does not kill the sweep, whatever launches it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shlex
import signal
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from multiprocessing.connection import Connection
from types import ModuleType
from typing import TypeVar

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from netslim.training import distributed
from netslim.training.control import end_with

log = logging.getLogger("netslim")

Result = TypeVar("Result")

TERMINATED = 128 + signal.SIGTERM  # the exit code of a process that SIGTERM ended
PATIENCE = 30.0  # seconds for a job to stop by itself
SLURM = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"  # in a job of hydra/launcher=submitit_slurm


def possible() -> bool:
    """Whether jobs run apart: on Linux, where a fork is safe and costs milliseconds, not the seconds of an import.

    The launcher's process computes nothing, so it has no CUDA context that a fork would break.
    """
    return sys.platform == "linux" and not torch.cuda.is_initialized()


class JobFailed(RuntimeError):
    """A job that ended without a result; the message says why in one line."""


def run(work: Callable[[], float], describe: Callable[[BaseException], str | None], command: str) -> float:
    """Call ``work`` in a child process, where that is possible, and return its number.

    Args:
        work: the job.
        describe: one line for an error that the user can fix; None for any other, whose traceback is logged.
        command: what runs just this job; Lightning starts the job's other processes with it (trainer=ddp).

    Raises:
        JobFailed: the job raised, exited or was killed.
        SystemExit: it was stopped by SIGTERM under Slurm, which may start it again: it has neither ended nor failed.
    """
    if not possible():
        return work()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, describe, command, sender, os.getpid()))
    process.start()
    sender.close()
    if SLURM:  # submitit lets SIGTERM pass
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        process.join()
    finally:  # a signal to the parent: the job stops too
        if process.is_alive():
            process.terminate()
            process.join(PATIENCE)
            process.kill()
            process.join()
    with receiver:
        try:
            result = receiver.recv() if receiver.poll() else None
        except EOFError:  # it died before it could say anything
            result = None
    if isinstance(result, float) and process.exitcode == 0:
        return result
    if process.exitcode in (TERMINATED, -signal.SIGTERM):
        if SLURM:
            sys.exit(TERMINATED)
        raise JobFailed("stopped by SIGTERM")
    raise JobFailed(result if isinstance(result, str) else _reason(process.exitcode or 0))


def apart(work: Callable[[], Result]) -> Result:
    """``work()`` in a child process, where that is possible: the threads and the memory that it takes end with it, and
    jobs may be forked afterwards.

    Raises:
        ChildProcessError: it ended without a result.
    """
    if not possible():
        return work()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(work, sender), daemon=False)
    process.start()
    sender.close()
    try:
        with receiver:
            result: Result = receiver.recv()
    except EOFError:
        process.join()
        raise ChildProcessError(f"trying the jobs {_reason(process.exitcode or 0)}") from None
    finally:
        process.terminate()
        process.join()
    return result


def _send(work: Callable[[], object], sender: Connection) -> None:
    _own_signals()
    sender.send(work())


def _child(
    work: Callable[[], float], describe: Callable[[BaseException], str | None], command: str, sender: Connection,
    parent: int,
) -> None:  # fmt: skip
    _own_signals()
    end_with(parent)
    distributed.tell_before_end(sender.send)
    _looks_started_by(command)
    try:
        value = work()
    except SIGTERMException:
        sys.exit(TERMINATED)
    except Exception as error:
        line = describe(error)
        if line is None:
            log.exception("the job failed")
        sender.send(line or f"{type(error).__name__}: {' '.join(str(error).split())}")
        sys.exit(1)
    sender.send(value)


def _own_signals() -> None:
    """The launcher's handlers (submitit's requeue the Slurm job) act in the launcher's process only."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)


def _looks_started_by(command: str) -> None:
    """As if the job had a process from the start: neither the sweep's arguments nor a launcher's main module."""
    sys.argv = [sys.argv[0], *shlex.split(command)[1:]]
    main = ModuleType("__main__")
    main.__spec__ = ModuleSpec(f"{__name__.partition('.')[0]}.__main__", loader=None)  # python -m netslim
    sys.modules["__main__"] = main


def _reason(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code} and no result"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
