"""λ that is found in the training: as strong as it must be for a share of the γ to die by a set epoch.

First the approach. The size of a γ is taken over the mean of its layer at the start, so it begins near 1. Of all sizes
the ``ratio``-quantile q is to fall in a straight line from 1 to 0, and λ follows it after every epoch:

    λ ← λ · exp(2 (q − wanted)),    wanted = 1 − epochs done / epochs of the approach

by at most a factor e. While nothing moves, λ grows, faster the later it is; as q falls faster than it should, λ falls.
Then the release: λ := 0, the lowest γ beside their layer's mean (a share ``ratio`` of all, each layer keeps its floor)
fade to 0 within an epoch and stay there, and all others are free.

Source: netslim's own. The update is that of a Lagrange multiplier, as in Gallego-Posada et al. 2022, "Controlled
Sparsity via Constrained Optimization" (λ ← max(0, λ + η · violation), λ := 0 once the constraint holds), but of log λ,
because the λ of two recipes differ by powers of ten; the release is the projection onto the constraint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from netslim.method.scale_bins import DEAD
from netslim.method.scoring.layer_mean import over_mean
from netslim.method.threshold import Floor, is_number, remove_lowest

START = 1e-4  # λ of the first epoch: the paper's, and small enough for any recipe
GAIN = 2.0


def check_auto(ratio: float, by: float = 0.5) -> None:
    """Raise ValueError where no share can be reached, or not by then."""
    if not (is_number(ratio) and 0 < ratio < 1):
        raise ValueError(f"lambda=auto brings a share of the γ to 0, and the ratio is {ratio}; give 0 < ratio < 1")
    if not (is_number(by) and 0 < by < 1):
        raise ValueError(f"by={by}: λ is released after this share of the epochs; give 0 < by < 1, such as 0.5")


def next_strength(strength: float, size: float, wanted: float) -> float:
    """λ of the next epoch.

    Args:
        size: q, the size that the last γ to die has now, 1 at the start.
        wanted: what it should be, 1 to 0.

    >>> next_strength(1e-4, size=1.0, wanted=1.0), round(next_strength(1e-4, size=1.0, wanted=0.5), 6)
    (0.0001, 0.000272)
    """
    return strength * math.exp(min(max(GAIN * (size - wanted), -1.0), 1.0))


def last_to_die(scales: Sequence[Tensor], means: Sequence[float], crossed: Sequence[Tensor], ratio: float) -> float:
    """q: the size |γ| / mean at the start of which a share ``ratio`` of all γ are not larger.

    crossed: bool (C,) per layer, the γ that have crossed 0 in this epoch. They count as 0: a subgradient lets a dead γ
    swing about 0 as far as a step goes.
    """
    layers = zip(scales, means, crossed, strict=True)
    sizes = torch.cat([(gamma.detach().abs() / max(mean, 1e-30)).masked_fill(at, 0.0) for gamma, mean, at in layers])
    return float(sizes.sort().values[max(1, math.floor(ratio * len(sizes) + 1e-9)) - 1])


def has_died(size: float) -> bool:
    """Whether q says that the share is reached."""
    return size <= DEAD


def to_hold(scales: Sequence[Tensor], ratio: float, floor: Floor) -> list[Tensor]:
    """The γ that are brought to 0, bool (C,) per layer: the lowest |γ| / layer mean, a share ``ratio`` of all, or as
    many as the floors allow.

    >>> to_hold([torch.tensor([0.5, 0.1]), torch.tensor([0.01, 0.09])], 0.5, floor=1)
    [tensor([False,  True]), tensor([ True, False])]
    """
    sizes = {str(number): over_mean(gamma.detach().abs()) for number, gamma in enumerate(scales)}
    keep = remove_lowest(sizes, ratio, floor=floor, strict=False)
    return [~kept.to(gamma.device) for kept, gamma in zip(keep.values(), scales, strict=True)]
