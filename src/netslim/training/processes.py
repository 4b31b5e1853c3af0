"""The processes of a data-parallel job: who starts them, and with whom they end."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable
from typing import Any

from lightning import Trainer
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from netslim.training import rendezvous
from netslim.training.control import Control, end_with

_PARENT = "NETSLIM_RANK_ZERO"  # the process that started this one as another rank


def started() -> int:
    """How many processes torchrun or srun started for this job; 1 where neither did."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)


def end_with_fit(trainer: Trainer) -> bool:
    """Whether this Trainer's processes end with each fit, and all that callbacks hold (ddp_spawn, ddp_fork, …)."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def connect(trainer: Trainer, tell: Callable[[str], object]) -> Control:
    """Start the other ranks of this machine, where nobody else does, and connect all ranks to rank 0.

    Args:
        trainer: with the devices and nodes of the job, and Lightning's DDP.
        tell: gets the reason, in one line, when this process ends because a rank failed.

    Raises:
        TimeoutError, ValueError: as ``rendezvous.meet``.
        ChildProcessError: a rank that was started here has ended.
    """
    launcher: Any = trainer.strategy.launcher
    _end_with_parent()
    control = Control(
        trainer.global_rank, speaks=trainer.local_rank == 0, kill=lambda: launcher.kill(signal.SIGKILL), tell=tell
    )
    control.start()
    atexit.register(control.close)
    try:
        if not launcher.cluster_environment.creates_processes_externally:
            os.environ[_PARENT] = str(os.getpid())
            launcher._call_children_scripts()  # without Lightning's observer, which ends rank 0 by SIGKILL
        control.connect(rendezvous.meet(_place(trainer), lambda: _check_started(launcher)))
    except BaseException:
        launcher.kill(signal.SIGKILL)
        raise
    return control


def _end_with_parent() -> None:
    """A rank that another one or torchrun started ends with it, however that ends."""
    if _PARENT in os.environ and int(os.environ.get("LOCAL_RANK", 0)) > 0:
        end_with(int(os.environ[_PARENT]))
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        end_with(os.getppid())


def _place(trainer: Trainer) -> rendezvous.Place:
    launcher: Any = trainer.strategy.launcher
    where = launcher.cluster_environment
    return rendezvous.Place(
        trainer.global_rank, trainer.world_size, trainer.num_devices, where.main_address, where.main_port
    )


def _check_started(launcher: Any) -> None:
    for rank, process in enumerate(launcher.procs, 1):
        if process.poll() is not None:
            raise ChildProcessError(
                f"rank {rank} ended with exit code {process.returncode} before it joined; its own output says why"
            )
