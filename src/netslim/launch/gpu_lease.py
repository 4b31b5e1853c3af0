"""One job per GPU: whoever computes holds the lock file of a device of this machine.

Jobs that share a machine's GPUs without a scheduler (processes of one sweep, or several sweeps) each take a free device
and wait while there is none. The kernel releases the locks of a process that dies, however it dies.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger("netslim")

POLL = 0.05  # seconds between two looks at the locks


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


@contextmanager
def hold(devices: Sequence[str], count: int = 1) -> Iterator[list[str]]:
    """Wait until ``count`` of ``devices`` are free, hold them, and give their names.

    Raises:
        ValueError: there are fewer than ``count`` devices.
    """
    if count > len(devices):
        raise ValueError(f"{count} devices asked for, {len(devices)} visible ({', '.join(devices) or 'none'})")
    locks = folder()
    locks.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {name: FileLock(locks / f"gpu-{name.replace('/', '_')}.lock", mode=0o666) for name in devices}
    with ExitStack() as held:
        mine: list[str] = []
        # One at a time collects: two that want two devices each would otherwise wait for each other with one each.
        with FileLock(locks / "next.lock", mode=0o666, poll_interval=POLL):
            while True:
                mine += _take(files, count - len(mine), mine, held)
                if len(mine) == count:
                    break
                time.sleep(POLL)
        yield mine


def take(count: int, until: ExitStack) -> None:
    """Wait for ``count`` GPUs and make them all that this process sees, until ``until`` ends."""
    held = until.enter_context(hold(visible(), count))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
    log.info("GPU %s", ", ".join(held))


def before(build: Callable[..., Any], count: int, until: ExitStack) -> Callable[..., Any]:
    """``build``, which takes ``count`` GPUs the first time it is called.

    A job that has nothing to compute, or waits for another that trains the stage it needs, so holds no GPU.
    """
    waiting = [count]

    def build_on_own_devices(*args: Any, **kwargs: Any) -> Any:
        if waiting:
            take(waiting.pop(), until)
        return build(*args, **kwargs)

    return build_on_own_devices


def _take(files: dict[str, FileLock], wanted: int, mine: Sequence[str], held: ExitStack) -> list[str]:
    """Up to ``wanted`` more devices of those that are free now."""
    taken: list[str] = []
    for name, lock in files.items():
        if len(taken) == wanted:
            break
        if name in mine:
            continue
        try:
            held.enter_context(lock.acquire(timeout=0))
        except Timeout:
            continue
        taken.append(name)
    return taken
