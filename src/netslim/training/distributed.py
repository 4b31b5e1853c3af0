"""The processes of one data-parallel job. Rank 0 decides and writes; what comes out, the others hear from it.

Trainings are shared by all ranks (Lightning's DDP); everything else happens on rank 0 alone. The ranks meet before the
first stage and stay connected beside the training (control.py): waiting for rank 0, while another job holds a stage
or the network is slimmed, costs no GPU and runs into no timeout; a rank that fails alone ends the others.
"""

from __future__ import annotations

import atexit
import pickle
import platform
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only

from netslim.training import agreement, processes
from netslim.training.control import Control, Failure

Result = TypeVar("Result")
Outcome = tuple[Any, Exception | None]
Explain = Callable[[BaseException], "tuple[int, str] | None"]

_control: Control | None = None  # this process's connection to the others; None for a job of one process
_explain: Explain | None = None
_tell: Callable[[str], object] | None = None


def is_rank_zero() -> bool:
    """Whether this process is rank 0, or alone."""
    return _rank() == 0


def explain_with(explain: Explain) -> None:
    """``explain`` gives the exit code and a line for an error that the user can fix, None for any other error."""
    global _explain
    _explain = explain


def tell_before_end(tell: Callable[[str], object]) -> None:
    """``tell`` gets the reason, in one line, when this process ends because a rank failed or was stopped."""
    global _tell
    _tell = tell


def launch(trainer: Trainer, settings: Mapping[str, Any] | None = None, folder: Path | None = None) -> int:
    """Connect the processes of this job; start them first, where neither torchrun nor Slurm did. Returns how many.

    Args:
        trainer: a Trainer with the devices, nodes and strategy of the trainings to come.
        settings: plain data, all that determines the job's results: it must be the same on all ranks.
        folder: where rank 0 will write: all ranks must see it.

    Raises:
        ValueError: several devices with another strategy than DDP, processes that the training would not use, ranks
            with different settings, or of different versions.
        TimeoutError: a rank has not come, or does not see the folder.
    """
    wanted, started = trainer.world_size, processes.started()
    if wanted == 1 and started > 1:
        raise ValueError(
            f"{started} processes were started for a training on one device; add trainer=ddp, with trainer.devices and "
            "trainer.num_nodes to match, or start one process"
        )
    if processes.end_with_fit(trainer) or (wanted > 1 and not isinstance(trainer.strategy, DDPStrategy)):
        raise ValueError(
            f"{wanted} devices with {type(trainer.strategy).__name__}: netslim trains data-parallel with "
            "trainer=ddp only; use that, or one device per job (trainer.devices=1)"
        )
    if wanted > 1:
        _join(trainer)
        _compare(settings or {}, folder)
        if folder is not None:
            _look_for(folder)
        if not dist.is_initialized():
            launcher: Any = trainer.strategy.launcher
            on_all_ranks(lambda: launcher.launch(trainer.strategy.setup_environment, trainer=trainer))
            atexit.register(dist.destroy_process_group)  # threads that outlive the interpreter abort it now and then
    return wanted


def started_elsewhere() -> bool:
    """Whether torchrun or srun started this job's processes, so that Lightning need not."""
    return processes.started() > 1


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
    with _control.call() as call:
        outcome = _outcome(work, call) if is_rank_zero() else None
        return _result(pickle.loads(_control.from_rank_zero(call, pickle.dumps(outcome))))


def on_all_ranks(work: Callable[[], Result]) -> Result:
    """``work()``, done by every rank; if it fails on one, every rank raises that error.

    A rank that fails while the others are busy with each other ends the job instead: see control.py.
    """
    if _control is None:
        return work()
    with _control.call() as call:
        outcome = _outcome(work, call)
        if outcome[1] is not None:
            _report(outcome[1], call)
        for error in _everyones(outcome[1], call):
            _result((None, error))
        return _result(outcome)


def agreed(what: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """``work()`` of rank 0, on every rank, once a rank of every other machine has come to the same.

    Args:
        what: what the values are, such as "the content", for a message: "the content of data.root is … on rank 0 …".

    Raises:
        ValueError: on all ranks; the machines have come to different results.
    """
    first = on_rank_zero(work)
    if _control is not None:
        own = on_all_ranks(lambda: work() if _control.speaks and not is_rank_zero() else first)
        with _control.call() as call:
            agreement.check(
                _everyones((platform.node(), {f"{what} of {key}": value for key, value in own.items()}), call)
            )
    return first


def _everyones(value: Any, call: int) -> list[Any]:
    """The values of all ranks, by rank, on every rank."""
    assert _control is not None
    mine = pickle.dumps(value)
    everyones = [pickle.loads(one) for one in (mine, *_control.gather(call, mine))]
    return pickle.loads(_control.from_rank_zero(call, pickle.dumps(everyones)))


def _outcome(work: Callable[[], Any], call: int) -> Outcome:
    try:
        return work(), None
    except Exception as error:  # raised by every rank
        return None, _portable(error)
    except BaseException as error:  # this process ends
        _report(error, call)
        raise


def _result(outcome: Outcome) -> Any:
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def _portable(error: Exception) -> Exception:
    """The error itself, or one with its words if it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
    return error


def _report(error: BaseException, call: int) -> None:
    """Tell the other ranks of an error here."""
    assert _control is not None
    if isinstance(error, RuntimeError) and _control.lost_another():
        threading.Event().wait()  # a collective failed because of it; the connection's thread ends this process
    _control.fail(_failure(error, call))


def _failure(error: BaseException, call: int) -> Failure:
    rank = _rank()
    if KeyboardInterrupt in (type(error), type(error.__context__)):  # the latter: Lightning makes an exit of it
        return Failure(rank, "interrupted", 128 + signal.SIGINT, call)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        return Failure(rank, f"exit with code {code}", code, call)
    known = _explain(error) if _explain is not None else None
    if known is not None:
        return Failure(rank, known[1], known[0], call)
    line = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Failure(rank, line, 1, call, details="".join(traceback.format_exception(error)))


def _join(trainer: Trainer) -> None:
    global _control
    if _control is None:
        _control = processes.connect(trainer, tell=lambda line: _tell and _tell(line))


def _compare(settings: Mapping[str, Any], folder: Path | None) -> None:
    """Every rank raises the same error where the ranks were started for different jobs."""
    assert _control is not None
    with _control.call() as call:
        agreement.check(_everyones((platform.node(), agreement.facts(settings, folder)), call))


def _look_for(folder: Path) -> None:
    """Let every rank see a file that rank 0 wrote."""
    path = on_rank_zero(lambda: agreement.touch(folder))
    try:
        on_all_ranks(lambda: agreement.see(path, _rank()))
    finally:
        if is_rank_zero():
            path.unlink(missing_ok=True)


def _rank() -> int:
    return getattr(rank_zero_only, "rank", 0)  # known from the start: Lightning reads the environment
