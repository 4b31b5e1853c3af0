"""Run by test_distributed.py, once per rank: what becomes of a job of two nodes in which one rank fails.

python ddp_failures.py RANK PORT SCENARIO
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
from lightning import Trainer

from netslim.training import distributed


def reduce_for_ever() -> None:
    while True:
        dist.all_reduce(torch.zeros(1))


def raises(me: int) -> None:
    """While the other waits in a collective of the training."""
    distributed.on_all_ranks(lambda: fail() if me == 1 else reduce_for_ever())


def raises_before_a_nested_call(me: int) -> None:
    distributed.on_all_ranks(lambda: fail() if me == 1 else distributed.on_rank_zero(lambda: reduce_for_ever()))


def fail() -> None:
    dist.all_reduce(torch.zeros(1))
    raise ValueError("bad image")


def breaks(me: int) -> None:
    """By an error that nobody explains."""
    distributed.on_all_ranks(lambda: {}["key"] if me == 1 else reduce_for_ever())


def is_killed(me: int) -> None:
    distributed.on_all_ranks(lambda: os.kill(os.getpid(), signal.SIGKILL) if me == 1 else reduce_for_ever())


def exits(me: int) -> None:
    distributed.on_all_ranks(lambda: sys.exit(3) if me == 1 else reduce_for_ever())


def leaves(me: int) -> None:
    """Outside of all that the ranks do together."""
    if me == 1:
        sys.exit(3)
    distributed.on_rank_zero(lambda: time.sleep(1000))


def gets_sigterm(me: int) -> None:
    """Rank 1 does, while it waits for rank 0, which waits for a stage of another job."""
    if me == 1:
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    distributed.on_rank_zero(lambda: time.sleep(1000))


def settings(me: int) -> None:
    """Not reached: the ranks have different ones."""


def folder(me: int) -> None:
    """Not reached: the ranks write to different ones."""


def data(me: int) -> None:
    try:
        distributed.agreed("the content", lambda: {"data.root": str(me)})
    except ValueError as error:
        sys.exit(str(error))


def main(rank: int, port: str, scenario: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, NODE_RANK=str(rank), LOCAL_RANK="0")
    trainer = Trainer(
        accelerator="cpu", devices=1, num_nodes=2, strategy="ddp", logger=False, enable_checkpointing=False
    )
    distributed.explain_with(lambda error: (2, str(error)) if isinstance(error, ValueError) else None)
    distributed.tell_before_end(lambda line: print(f"told: {line}", flush=True))
    try:
        distributed.launch(
            trainer, {"seed": rank if scenario == "settings" else 0}, Path(f"out{rank if scenario == 'folder' else ''}")
        )
    except (ValueError, TimeoutError) as error:
        sys.exit(str(error))
    print(f"from here on: {time.time()}", flush=True)
    globals()[scenario](rank)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
