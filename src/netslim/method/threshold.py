"""Which channels are kept: one threshold over the |γ| of all layers together (Liu et al. 2017, section 3).

Pure functions on tensors; nothing here knows the network. The paper: "we prune channels with a global threshold across
all layers, which is defined as a certain percentile of all the scaling factor values".

The authors' code sorts all |γ|, takes the one at position int(ratio·N) as the threshold and keeps what is *strictly*
greater. So it removes one channel more than asked, a whole run of equal values at once (an untrained network, where
every γ is 0.5, loses everything), and possibly every channel of a layer, which cuts the network in two. Here exactly
k = floor(ratio·N) channels are removed, lowest |γ| first, equal ones in order of position, and every layer keeps at
least `floor`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floor = int | float | Mapping[str, int]  # channels, a share of the layer, or channels by layer name


def threshold(
    scales: Mapping[str, Tensor],
    ratio: float,
    *,
    floor: Floor = 1,
    most: float = 1.0,
    groups: Mapping[str, Tensor] | None = None,
    round_to: int = 1,
    strict: bool = True,
) -> dict[str, Tensor]:
    """The channels to keep when `ratio` of all channels is removed by one global threshold on |γ|.

    Args:
        scales: layer name -> γ of shape (C_i,), in registration order; N = Σ C_i.
        ratio: share to remove, in [0, 1). Exactly k = floor(ratio·N) channels are removed.
        floor: channels that every layer keeps at least (all of them where it has fewer): a number; a share of the layer
            between 0 and 1, rounded up; or layer name -> number.
        most: the largest share of a layer that may be removed, in (0, 1], rounded down to channels; default all of it.
            The paper's multi-pass scheme and slimming inside a training remove at most a part of a layer per step.
        groups: layer name -> group numbers of shape (C_i,). Channels with equal numbers are removed together, as soon
            as the largest |γ| among them is below the threshold; number -1: never removed and not counted in N. With
            groups of several channels the last group that would exceed k is kept, so up to k are removed.
        round_to: round the kept count of every layer up to a multiple, by taking back its best removed channels.
        strict: whether a ratio out of reach of the floor is an error (default); else as many are removed as can be.

    Returns:
        layer name -> bool tensor of shape (C_i,), True where the channel is kept. What is removed grows with ratio.

    Raises:
        ValueError: ratio outside [0, 1), a γ that is not a finite number, a negative floor, round_to below 1, a
            `most` outside (0, 1], no channels, or a ratio out of reach of floor and most (the message names the highest
            one that can be reached).

    >>> threshold({"a": torch.tensor([0.9, -0.1, 0.3]), "b": torch.tensor([0.2])}, 0.5)
    {'a': tensor([ True, False, False]), 'b': tensor([True])}
    """
    sizes = {name: gamma.detach().abs() for name, gamma in scales.items()}
    return remove_lowest(sizes, ratio, floor=floor, most=most, groups=groups, round_to=round_to, strict=strict)


def remove_lowest(
    scores: Mapping[str, Tensor],
    ratio: float,
    *,
    floor: Floor = 1,
    most: float = 1.0,
    groups: Mapping[str, Tensor] | None = None,
    round_to: int = 1,
    strict: bool = True,
) -> dict[str, Tensor]:
    """As ``threshold``, for any scores of which the lowest are removed first; they may be negative."""
    _check(scores, ratio, floor, round_to)
    check_most(most)
    widths = np.array([len(score) for score in scores.values()])
    ranking = _rank(scores, groups)
    total = len(ranking.place)
    k = math.floor(ratio * total + 1e-9)  # 0.29 * 100 is 28.999999999999996
    removed, all_tried = _lowest(ranking, _spare(widths, _floors(scores, floor), most), k)
    count = int(removed[ranking.place].sum())
    if count < k and all_tried and strict:
        least = "their floors" if isinstance(floor, Mapping) else f"at least {floor}"
        least += f" and at least {1 - most:g} of its channels" * (most < 1)
        raise ValueError(
            f"ratio {ratio:g} would remove {k} of {total} channels, but with {least} kept per layer only {count} can be"
            f" removed: the highest reachable ratio is {math.floor(count / total * 1e4) / 1e4:g}"
        )
    if round_to > 1:
        _take_back(ranking, removed, widths, round_to)
    kept = np.ones(int(widths.sum()), dtype=bool)
    kept[ranking.channel[removed[ranking.place]]] = False
    return dict(zip(scores, torch.from_numpy(kept).split(widths.tolist()), strict=True))


def _check(scales: Mapping[str, Tensor], ratio: float, floor: Floor, round_to: int) -> None:
    if not (is_number(ratio) and 0 <= ratio < 1):
        raise ValueError(f"ratio must be in [0, 1), got {ratio!r}")
    for number in floor.values() if isinstance(floor, Mapping) else [floor]:
        _check_floor(number)
    if not (isinstance(round_to, Integral) and round_to >= 1):
        raise ValueError(f"round_to must be 1 or more channels, got {round_to!r}")
    if not scales:
        raise ValueError("there is no BatchNorm channel to choose from")
    check_scales(scales)


def _check_floor(number: object) -> None:
    share = isinstance(number, Real) and not isinstance(number, Integral) and 0 < float(number) < 1
    if not share and not (isinstance(number, Integral) and int(number) >= 0):
        raise ValueError(f"floor must be 0 or more channels, got {number!r}; a share of the layer is such as 0.05")


def least(widths: Mapping[str, int], floor: Floor, most: float = 1.0) -> dict[str, int]:
    """Channels that each layer keeps at least, of layers of these widths, where at most a share ``most`` is removed.

    >>> least({"a": 20, "b": 3}, floor=0.1), least({"a": 20, "b": 3}, floor=1, most=0.5)
    ({'a': 2, 'b': 1}, {'a': 10, 'b': 2})
    """
    for number in floor.values() if isinstance(floor, Mapping) else [floor]:
        _check_floor(number)
    counts = np.array(list(widths.values()))
    floors = _floors({name: torch.empty(width) for name, width in widths.items()}, floor)
    return dict(zip(widths, (counts - _spare(counts, floors, most)).tolist(), strict=True))


def _floors(scores: Mapping[str, Tensor], floor: Floor) -> npt.NDArray[np.int64]:
    """Channels that each layer keeps at least, shape (layers,)."""
    if isinstance(floor, Mapping) and (without := [name for name in scores if name not in floor]):
        raise ValueError(f"floor has no number for layer {without[0]!r}; give one for each layer, or one for all")
    least = [floor[name] if isinstance(floor, Mapping) else floor for name in scores]
    widths = [len(score) for score in scores.values()]
    return np.array([math.ceil(n * width) if 0 < n < 1 else n for n, width in zip(least, widths, strict=True)])


def _spare(widths: npt.NDArray[np.int64], floors: npt.NDArray[np.int64], most: float) -> npt.NDArray[np.int64]:
    """Channels that each layer may lose at most, shape (layers,)."""
    return np.clip(widths - floors, 0, np.floor(most * widths + 1e-9).astype(np.int64))


def check_most(most: object) -> None:
    """Raise ValueError where ``most`` is no share of a layer."""
    if not (isinstance(most, Real) and 0 < float(most) <= 1):
        raise ValueError(f"most={most} is no share of a layer; give more than 0 and at most 1, such as 0.5")


def is_number(value: object) -> bool:
    """NumPy's and whole ones too."""
    return isinstance(value, Real)


def check_scales(scales: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a γ is not a finite number."""
    for name, gamma in scales.items():
        if not gamma.isfinite().all():
            raise ValueError(f"γ of {name!r} holds NaN or infinity: the training diverged, there is nothing to rank")


@dataclass
class _Ranking:
    """All channels that may be removed, as arrays of one length: their layer, their position in all layers laid end to
    end, and the place of what they are removed with in the order of removal, lowest score first."""

    layer: np.ndarray
    channel: np.ndarray
    place: np.ndarray


def _rank(scores: Mapping[str, Tensor], groups: Mapping[str, Tensor] | None) -> _Ranking:
    value = torch.cat([score.detach().double().cpu() for score in scores.values()]).numpy()
    layer = np.repeat(np.arange(len(scores)), [len(score) for score in scores.values()])
    number = np.arange(len(value)) if groups is None else torch.cat([groups[name] for name in scores]).cpu().numpy()
    channel = np.flatnonzero(number >= 0)
    _, first, unit = np.unique(number[channel], return_index=True, return_inverse=True)
    largest = np.full(len(first), -np.inf)
    np.maximum.at(largest, unit, value[channel])
    place = np.empty(len(first), dtype=np.int64)
    place[np.lexsort((first, largest))] = np.arange(len(first))  # ties stay in order of position
    return _Ranking(layer[channel], channel, place[unit])


def _lowest(ranking: _Ranking, spare: np.ndarray, k: int) -> tuple[np.ndarray, bool]:
    """Which places are removed (bool per place), and whether all were tried.

    Up the ranking, passing over those of which a layer has not enough channels to spare, until the next one would make
    more than k channels in all.
    """
    layer, place = ranking.layer, ranking.place
    sizes = np.bincount(place)
    allowed = np.ones(len(sizes), dtype=bool)
    turn = np.lexsort((place, layer))  # the channels layer by layer, each layer's in the order of removal
    start = np.searchsorted(layer[turn], layer[turn])
    while True:
        total = np.cumsum(sizes * allowed)
        tried = (allowed & (total - sizes <= k))[place]
        before = np.concatenate([[0], np.cumsum(tried[turn])])
        nth = before[1:] - before[start]  # in its layer
        short = tried[turn] & (nth > spare[layer[turn]])
        if not short.any():
            return allowed & (total <= k), bool(total[allowed].max(initial=0) <= k)
        first = place[turn][short].min()
        left = spare - np.bincount(layer[tried & (place < first)], minlength=len(spare))
        allowed[place[(place > first) & (left[layer] == 0)]] = False  # they would all be passed over
        allowed[first] = False


def _take_back(ranking: _Ranking, removed: np.ndarray, widths: np.ndarray, round_to: int) -> None:
    """The best removed places are kept where a layer's kept count is no multiple of round_to."""
    kept = widths - np.bincount(ranking.layer[removed[ranking.place]], minlength=len(widths))
    layers = np.split(ranking.layer[np.argsort(ranking.place, kind="stable")], np.cumsum(np.bincount(ranking.place)))
    for place in np.flatnonzero(removed)[::-1]:
        if (kept[layers[place]] % round_to).any():
            np.add.at(kept, layers[place], 1)
            removed[place] = False
