"""Weight decay of the BatchNorm scales γ alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from netslim.method.threshold import is_number

Make = Callable[..., Optimizer]


def with_scale_decay(make: Make, decay: float, scales: Sequence[nn.Parameter]) -> Make:
    """The optimiser that ``make`` makes from parameters, with those of ``scales`` in a second group.

    Args:
        make: e.g. ``partial(torch.optim.SGD, lr=0.1, weight_decay=1e-4)``.
        decay: weight decay of the second group, at least 0.
        scales: the γ.

    Raises:
        ValueError: the decay is no number of at least 0; when the optimiser is made, that it knows no weight decay.

    >>> import torch
    >>> layer = nn.BatchNorm1d(2); make = with_scale_decay(torch.optim.SGD, 0.0, [layer.weight])
    >>> [len(group["params"]) for group in make(layer.parameters()).param_groups]
    [1, 1]
    """
    if not (is_number(decay) and 0 <= decay < math.inf):
        raise ValueError(f"scale_decay={decay}: the weight decay of γ must be 0 or more, such as 0")
    own = {id(gamma) for gamma in scales}

    def made(parameters: Iterable[nn.Parameter]) -> Optimizer:
        every = list(parameters)
        others, gammas = ([p for p in every if (id(p) in own) == mine] for mine in (False, True))
        groups: list[dict[str, Any]] = [{"params": others}, {"params": gammas, "weight_decay": decay}]
        optimizer = make([group for group in groups if group["params"]])
        if "weight_decay" not in optimizer.defaults:
            raise ValueError(f"scale_decay={decay}: {type(optimizer).__name__} knows no weight decay; leave it out")
        return optimizer

    return made
