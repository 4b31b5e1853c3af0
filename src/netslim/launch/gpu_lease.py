"""One job per GPU, or so many: whoever computes holds lock files of a device of this machine.

Jobs that share a machine's GPUs without a scheduler (processes of one sweep, or several sweeps) each take a free device
and wait while there is none. A device has ``MOST`` slots, each a lock file: a job that shares its GPU with others holds
one of the first ``jobs_per_gpu``, a job that wants it alone holds all. The kernel releases the locks of a process that
dies, however it dies.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger("netslim")

POLL = 0.05  # seconds between two looks at the locks
MOST = 16  # jobs on one GPU


def visible() -> list[str]:
    """The GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # here: a command that starts no job asks for no GPU, and torch costs two seconds

    count = torch.cuda.device_count()  # asks the driver's management library; CUDA itself stays untouched
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named is not None else [str(number) for number in range(count)]
    return [name.strip() for name in names[:count]]


def folder() -> Path:
    """Where the locks are: on this machine, of this user; NETSLIM_LEASES names another folder, such as a shared one."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return Path(os.environ.get("NETSLIM_LEASES") or Path(tempfile.gettempdir()) / f"netslim-{user}")


@dataclass(frozen=True)
class Slots:
    """The locks of one device that a job may hold, and how many of them it needs."""

    locks: Sequence[FileLock]
    needed: int

    def free(self) -> list[FileLock]:
        """Those that nobody else holds; they are acquired."""
        return [lock for lock in self.locks if _acquired(lock)]


def slots(device: str, jobs_per_gpu: int) -> Slots:
    """Of a job that shares its GPU with ``jobs_per_gpu`` - 1 others.

    Raises:
        ValueError: ``jobs_per_gpu`` is not 1 to MOST.
    """
    if not 1 <= jobs_per_gpu <= MOST:
        raise ValueError(f"jobs_per_gpu={jobs_per_gpu} cannot be; give 1 to {MOST}")
    names = [device.replace("/", "_") + (f".{number}" if number else "") for number in range(MOST)]
    locks = [FileLock(folder() / f"gpu-{name}.lock", mode=0o666) for name in names]
    return Slots(locks, MOST) if jobs_per_gpu == 1 else Slots(locks[:jobs_per_gpu], 1)


@contextmanager
def hold(devices: Sequence[str], count: int = 1, jobs_per_gpu: int = 1) -> Iterator[list[str]]:
    """Wait until ``count`` of ``devices`` are free, or have a free slot, hold them, and give their names.

    Args:
        jobs_per_gpu: default 1: the devices are this job's alone.

    Raises:
        ValueError: there are fewer than ``count`` devices.
    """
    if count > len(devices):
        raise ValueError(f"{count} devices asked for, {len(devices)} visible ({', '.join(devices) or 'none'})")
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {name: slots(name, jobs_per_gpu) for name in devices}
    with ExitStack() as held:
        mine: list[str] = []
        # One at a time collects: two that want two devices each would otherwise wait for each other with one each.
        with FileLock(folder() / "next.lock", mode=0o666, poll_interval=POLL):
            while True:
                mine += _take(files, count - len(mine), mine, held)
                if len(mine) == count:
                    break
                time.sleep(POLL)
        yield mine


def take(count: int, until: ExitStack, jobs_per_gpu: int = 1) -> None:
    """Wait for ``count`` GPUs and make them all that this process sees, until ``until`` ends."""
    held = until.enter_context(hold(visible(), count, jobs_per_gpu))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
    log.info("GPU %s", ", ".join(held))


def before(build: Callable[..., Any], count: int, until: ExitStack, jobs_per_gpu: int = 1) -> Callable[..., Any]:
    """``build``, which takes ``count`` GPUs the first time it is called.

    A job that has nothing to compute, or waits for another that trains the stage it needs, so holds no GPU.
    """
    waiting = [count]

    def build_on_own_devices(*args: Any, **kwargs: Any) -> Any:
        if waiting:
            take(waiting.pop(), until, jobs_per_gpu)
        return build(*args, **kwargs)

    return build_on_own_devices


def _take(files: Mapping[str, Slots], wanted: int, mine: Sequence[str], held: ExitStack) -> list[str]:
    """Up to ``wanted`` more devices of those that are free now; of those with free slots the emptiest."""
    free = {name: device.free() for name, device in files.items() if name not in mine}
    order = sorted(free, key=lambda name: -len(free[name]))
    taken = [name for name in order if len(free[name]) >= files[name].needed][:wanted]
    for name, locks in free.items():
        kept = files[name].needed if name in taken else 0
        for lock in locks[:kept]:
            held.callback(lock.release)
        for lock in locks[kept:]:
            lock.release()
    return taken


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
