"""The processes of one data-parallel job. Rank 0 decides and writes; what comes out, the others hear from it.

Trainings are shared by all ranks (Lightning's DDP); everything else happens on rank 0 alone. The ranks start together,
before the first stage, and talk over a process group of their own on the CPU: waiting for rank 0, while another job
holds a stage or the network is slimmed, costs no GPU and runs into no timeout of the training.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities import rank_zero_only

Result = TypeVar("Result")

STOPPED = "netslim: stopped by SIGTERM; the same command goes on from the last whole epoch"
PATIENCE = timedelta(days=30)  # rank 0 may wait that long for a stage of another job

_control: Any = None  # the process group
_launcher: Any = None  # Lightning's, which knows the processes it started


def is_rank_zero() -> bool:
    """Whether this process is rank 0, or alone."""
    return getattr(rank_zero_only, "rank", 0) == 0  # known from the start: Lightning reads the environment


def launch(trainer: Trainer) -> int:
    """Connect the processes of this job; start them first, where neither torchrun nor Slurm did. Returns how many.

    Args:
        trainer: a Trainer with the devices, nodes and strategy of the trainings to come.

    Raises:
        ValueError: several devices with another strategy than DDP, or processes that the training would not use.
    """
    global _control, _launcher
    wanted, started = trainer.world_size, _started_processes()
    if wanted == 1 and started > 1:
        raise ValueError(
            f"{started} processes were started for a training on one device; add trainer=ddp, with trainer.devices and "
            "trainer.num_nodes to match, or start one process"
        )
    if wanted == 1 or _control is not None:
        return wanted
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy) or isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise ValueError(
            f"{wanted} devices with {type(strategy).__name__}: netslim trains data-parallel with "
            "trainer=ddp only; use that, or one device per job (trainer.devices=1)"
        )
    _launcher = strategy.launcher
    _launcher.launch(strategy.setup_environment, trainer=trainer)
    _control = dist.new_group(backend="gloo", timeout=PATIENCE)
    signal.signal(signal.SIGTERM, _stop)
    atexit.register(dist.destroy_process_group)  # threads that outlive the interpreter abort it now and then
    return wanted


def started_elsewhere() -> bool:
    """Whether torchrun or srun started this job's processes, so that Lightning need not."""
    return _started_processes() > 1


def _started_processes() -> int:
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)


def on_one_device() -> dict[str, Any]:
    """What makes a Trainer of rank 0 alone, on its own device, out of one for all ranks."""
    if _control is None:
        return {}
    device: Any = [torch.cuda.current_device()] if torch.cuda.is_available() else 1
    return {"devices": device, "num_nodes": 1, "strategy": "auto", "plugins": [LightningEnvironment()]}


def on_rank_zero(work: Callable[[], Result]) -> Result:
    """``work()``, done by rank 0; every rank gets its result, or raises its error.

    >>> on_rank_zero(lambda: 6 * 7)
    42
    """
    if _control is None:
        return work()
    told: list[Any] = [_outcome(work) if is_rank_zero() else None]
    _collective(dist.broadcast_object_list, told, src=0)
    result, error = told[0]
    if error is not None:
        raise error
    return result


def on_all_ranks(work: Callable[[], Result]) -> Result:
    """``work()``, done by every rank; if it fails on one, every rank raises that error."""
    if _control is None:
        return work()
    result, error = _outcome(work)
    errors: list[Any] = [None] * dist.get_world_size()
    _collective(dist.all_gather_object, errors, error)
    for error in errors:
        if error is not None:
            raise error
    return result


def _outcome(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # raised by every rank
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error that cannot travel
            return None, RuntimeError(f"{type(error).__name__}: {error}")
        return None, error


def _collective(talk: Callable[..., None], *arguments: Any, **settings: Any) -> None:
    try:
        talk(*arguments, **settings, group=_control)
    except RuntimeError as error:  # nothing that follows could be right
        print(f"netslim: lost another process of this job ({error})", file=sys.stderr, flush=True)
        os._exit(1)


class StopTogether(Callback):
    """On SIGTERM end this process of a data-parallel job at once, and those it started; exit code 143.

    Lightning's handler would broadcast, and ranks that stand at different places wait for each other for ever. Nothing
    is lost: the checkpoint of the last whole epoch is on disk.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _control is not None:
            signal.signal(signal.SIGTERM, _stop)  # in place of Lightning's, for the time of this fit


def _stop(signum: int, frame: object) -> NoReturn:
    if is_rank_zero():
        print(STOPPED, file=sys.stderr, flush=True)
    _launcher.kill(signal.SIGKILL)
    os._exit(128 + signum)
