"""Learning-rate schedules: functions of (optimizer, epochs), stepped once per epoch.

Each multiplies the optimiser's own rate, so ``optimizer.lr`` is the highest rate and ``finetune.lr`` that of
fine-tuning. One of one's own is such a function, or a class that is made like one: scheduler._target_=my.schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import nn, ones
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR


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


def cosine(optimizer: Optimizer, epochs: int, final: float = 0.0) -> LRScheduler:
    """From the full rate down to ``final`` times it along half a cosine (Loshchilov & Hutter 2017, equation 5).

    Epoch e of E has the rate  final + (1 − final)·(1 + cos(π·e/E))/2:

    >>> rates(cosine, epochs=4)
    [1.0, 0.854, 0.5, 0.146]
    """
    _check_share("final", final)
    return LambdaLR(optimizer, lambda epoch: _down(epoch / epochs, final))


def warmup_cosine(optimizer: Optimizer, epochs: int, warmup: int = 5, final: float = 0.0) -> LRScheduler:
    """``warmup`` epochs of a rate that rises linearly (Goyal et al. 2017, section 2.2), then ``cosine`` over the rest.

    Epoch e of the warm-up has (e + 1)/(warmup + 1) of the full rate. A training of at most ``warmup`` epochs warms up
    for all but its last.

    >>> rates(warmup_cosine, epochs=6, warmup=2)
    [0.333, 0.667, 1.0, 0.854, 0.5, 0.146]
    >>> rates(warmup_cosine, epochs=2, warmup=5)
    [0.5, 1.0]
    """
    if not isinstance(warmup, int) or isinstance(warmup, bool) or warmup < 0:
        raise ValueError(f"scheduler.warmup={warmup} is no number of epochs; give 0 or more")
    _check_share("final", final)
    rise = min(warmup, epochs - 1)

    def factor(epoch: int) -> float:
        return (epoch + 1) / (rise + 1) if epoch < rise else _down((epoch - rise) / (epochs - rise), final)

    return LambdaLR(optimizer, factor)


def warmup_linear(optimizer: Optimizer, epochs: int, warmup: float = 0.1) -> LRScheduler:
    """A rate that rises linearly over the share ``warmup`` of the epochs, rounded up, then falls linearly to zero.

    For fine-tuning after much was removed (Li et al. 2020, "Budgeted training"; Zimmer et al. 2023, BIMP). The first
    epoch with the full rate follows the warm-up; the last of the F epochs from there on has 1/F of it.

    >>> rates(warmup_linear, epochs=6, warmup=0.3)
    [0.333, 0.667, 1.0, 0.75, 0.5, 0.25]
    >>> rates(warmup_linear, epochs=1)
    [1.0]
    """
    _check_share("warmup", warmup)
    rise = min(math.ceil(warmup * epochs), epochs - 1)

    def factor(epoch: int) -> float:
        return (epoch + 1) / (rise + 1) if epoch < rise else 1 - (epoch - rise) / (epochs - rise)

    return LambdaLR(optimizer, factor)


def one_cycle(
    optimizer: Optimizer, epochs: int, peak: float = 0.3, start: float = 0.04, final: float = 4e-6
) -> LRScheduler:
    """Up to the full rate, then far down, both along a cosine (Smith & Topin 2018; the numbers are PyTorch's).

    Once per epoch like the others, not per step: an epoch has the rate that the cycle has at its middle. The momentum
    stays as it is, so that the shrinkage budget is exact.

    Args:
        peak: at which share of the training the rate is full.
        start, final: the rate at the two ends, as shares of the full one.

    >>> rates(one_cycle, epochs=5)
    [0.28, 1.0, 0.812, 0.389, 0.05]
    """
    for name, share in (("peak", peak), ("start", start), ("final", final)):
        _check_share(name, share)

    def factor(epoch: int) -> float:
        at = (epoch + 0.5) / epochs
        return _down((at - peak) / (1 - peak), final) if at >= peak else _down(1 - at / peak, start)

    return LambdaLR(optimizer, factor)


# By the names that a command gives.
SCHEDULES: Mapping[str, Callable[..., LRScheduler]] = {
    "multistep": multistep,
    "cosine": cosine,
    "warmup_cosine": warmup_cosine,
    "warmup_linear": warmup_linear,
    "one_cycle": one_cycle,
}


def rates(schedule: Callable[..., LRScheduler], epochs: int, **settings: float) -> list[float]:
    """The learning rate of every epoch, where the optimiser's is 1; to three decimals.

    >>> rates(multistep, epochs=4)
    [1.0, 1.0, 0.1, 0.01]
    """
    sgd = SGD([nn.Parameter(ones(1))], lr=1.0)
    scheduler, found = schedule(sgd, epochs=epochs, **settings), []
    for _ in range(epochs):
        found.append(round(sgd.param_groups[0]["lr"], 3))
        sgd.step()
        scheduler.step()
    return found


def _down(done: float, final: float) -> float:
    """From 1 at done = 0 to ``final`` at done = 1 along half a cosine."""
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


def _check_share(name: str, share: float) -> None:
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
        raise ValueError(f"scheduler.{name}={share} is no share; give a number of at least 0 and under 1")
