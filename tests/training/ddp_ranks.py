"""Run by test_distributed.py in two processes (torchrun): what a rank learns from the other, a line of output each."""

import sys

from lightning import Trainer

from netslim.training import distributed


class Awkward(Exception):
    """Cannot be sent to another process: pickle calls it with one argument."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def fails_on(rank: int, me: int, error: Exception) -> str:
    if me == rank:
        raise error
    return f"fine on {me}"


def said(work) -> str:
    try:
        return str(work())
    except Exception as error:
        return f"{type(error).__name__}({error})"


def main() -> None:
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    assert distributed.launch(trainer) == distributed.launch(trainer) == 2
    me = trainer.global_rank
    lines = [
        said(lambda: distributed.on_rank_zero(lambda: {"told by": me})),
        said(lambda: distributed.on_rank_zero(lambda: fails_on(0, me, ValueError("no")))),
        said(lambda: distributed.on_all_ranks(lambda: f"own {me}")),
        said(lambda: distributed.on_all_ranks(lambda: fails_on(1, me, OSError(28, "No space left on device", "x.pt")))),
        said(lambda: distributed.on_all_ranks(lambda: fails_on(1, me, Awkward("a", "b")))),
        str(distributed.is_rank_zero()),
    ]
    sys.stdout.write(f"{me}: " + " | ".join(lines) + "\n")


if __name__ == "__main__":
    main()
