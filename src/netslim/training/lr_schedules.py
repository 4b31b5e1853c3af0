"""Learning-rate schedules that know how many epochs a stage has."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR


def multistep(optimizer: Optimizer, epochs: int, at: Sequence[float] = (0.5, 0.75), factor: float = 0.1) -> LRScheduler:
    """Multiply the learning rate by ``factor`` at these shares of the epochs (section 4.2: 1/10 at 50 % and 75 %).

    A milestone that is not a whole epoch is rounded down, so that short schedules take every drop too (the authors'
    script compares for equality and misses it, e.g. at 50 epochs); the first epoch has the full rate in any case.

    >>> import torch
    >>> sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    >>> sorted(multistep(sgd, epochs=50).milestones)
    [25, 37]
    >>> sorted(multistep(sgd, epochs=1).milestones)
    [1]
    """
    if isinstance(at, (int, float, str)) or not all(isinstance(share, (int, float)) for share in at):
        raise ValueError(f"scheduler.at={at} is no list of shares of the epochs, such as [0.5,0.75]")
    if not isinstance(factor, (int, float)):
        raise ValueError(f"scheduler.factor={factor} is not a number")
    return MultiStepLR(optimizer, milestones=[max(1, int(share * epochs)) for share in at], gamma=factor)
