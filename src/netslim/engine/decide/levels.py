"""Widths that hardware likes: channels are removed in blocks that lead from one level of a layer's width to the next.

Fast kernels compute 8 or 16 channels at once, and some leave their fast layout for other widths altogether. Rounding
kept counts up afterwards would give back much of what was asked for. Here a unit of removal is what lies between two
levels, the lowest scores of the layer first, ranked by the mean score; so the budget goes where it costs least, what is
removed only grows with it, and the channels asked for are missed by less than a block.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from netslim.engine.decide.coupling import Units

AUTO = "auto"
Numbers = npt.NDArray[np.int64]


def level_below(width: int, step: int | None = None) -> int:
    """The next level under a width: a multiple of the step, by default of 8 up to 32 and of 16 above.

    >>> [level_below(width) for width in (64, 50, 33, 32, 12, 8)], level_below(50, step=12)
    ([48, 48, 32, 24, 8, 0], 48)
    """
    step = step or (16 if width > 32 else 8)
    return (width - 1) // step * step


def in_levels(units: Units, step: int | None = None) -> Units:
    """The same units in blocks, from level to level (``level_below``). Layers whose units other layers have a part of
    only stay as they are."""
    number, score = dict(units.number), dict(units.score)
    for names in _alike(units):
        blocks = _blocks(units, names[0], step)
        if blocks is None:
            continue
        for name in names:
            own = number[name].numpy()
            block, mean = blocks
            some = own >= 0
            where = np.searchsorted(block[0], own[some])
            number[name], score[name] = number[name].clone(), score[name].clone()
            number[name][torch.from_numpy(some)] = torch.from_numpy(block[1][where])
            score[name][torch.from_numpy(some)] = torch.from_numpy(mean[where]).to(score[name].dtype)
    return Units(number, score, units.held)


def _alike(units: Units) -> list[list[str]]:
    """Layers that have the same units, which no other layer has: one layer, or the writers of a stream."""
    sets: dict[bytes, list[str]] = {}
    found = {name: np.unique(number[number >= 0].numpy()) for name, number in units.number.items()}
    for name, ids in found.items():
        sets.setdefault(ids.tobytes(), []).append(name)
    every = np.concatenate([found[names[0]] for names in sets.values()])
    ids, times = np.unique(every, return_counts=True)
    shared = ids[times > 1]
    return [names for names in sets.values() if not np.isin(found[names[0]], shared).any()]


def _blocks(
    units: Units, name: str, step: int | None
) -> tuple[tuple[Numbers, Numbers], npt.NDArray[np.float64]] | None:
    """The units of a layer, sorted, with the first unit of each one's block, and the mean scores of the blocks; None
    where units take different numbers of channels."""
    number, score = units.number[name].numpy(), units.score[name].numpy()
    ids, first, count = np.unique(number, return_index=True, return_counts=True)
    ids, first, count = ids[ids >= 0], first[ids >= 0], count[ids >= 0]
    if len(set(count.tolist())) != 1:
        return None
    order, kept, begin = np.lexsort((first, score[first])), len(number), 0
    block, mean = np.empty_like(ids), np.empty(len(ids))
    while begin < len(order):
        taken = max(1, math.ceil((kept - level_below(kept, step)) / int(count[0])))
        own = order[begin : begin + taken]
        block[own], mean[own] = ids[own[0]], score[first[own]].mean()
        begin, kept = begin + taken, kept - taken * int(count[0])
    return (ids, block), mean
