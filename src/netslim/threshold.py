"""Which channels stay: one threshold over the |γ| of all layers together (Liu et al. 2017, section 3).

Pure functions on tensors; nothing here knows the network. The paper: "we prune channels with a global threshold across
all layers, which is defined as a certain percentile of all the scaling factor values".

The authors' code sorts all |γ|, takes the one at position int(ratio·N) as the threshold and keeps what is *strictly*
greater. So it removes one channel more than asked, a whole run of equal values at once (an untrained network, where
every γ is 0.5, loses everything), and possibly every channel of a layer, which cuts the network in two. Here exactly
k = floor(ratio·N) channels go, lowest |γ| first, equal ones in order of position, and every layer keeps at least
`floor`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor


def threshold(
    scales: Mapping[str, Tensor],
    ratio: float,
    *,
    floor: int = 1,
    groups: Mapping[str, Tensor] | None = None,
    round_to: int = 1,
) -> dict[str, Tensor]:
    """The channels that stay when `ratio` of all channels is removed by one global threshold on |γ|.

    Args:
        scales: layer name -> γ of shape (C_i,), in registration order; N = Σ C_i.
        ratio: share to remove, in [0, 1). Exactly k = floor(ratio·N) channels go.
        floor: channels that every layer keeps at least (all of them where it has fewer).
        groups: layer name -> group numbers of shape (C_i,). Channels with equal numbers leave together, as soon as the
            largest |γ| among them is below the threshold; number -1: never removed and not counted in N. With groups
            of several channels the last group that would exceed k stays, so up to k go.
        round_to: round the kept count of every layer up to a multiple, by taking back its best removed channels.

    Returns:
        layer name -> bool tensor of shape (C_i,), True where the channel stays. The removed set only grows with ratio.

    Raises:
        ValueError: ratio outside [0, 1), a γ that is not a number, a negative floor, round_to below 1, no channels, or
            a ratio out of reach of the floor (the message names the highest one that can be reached).

    >>> threshold({"a": torch.tensor([0.9, -0.1, 0.3]), "b": torch.tensor([0.2])}, 0.5)
    {'a': tensor([ True, False, False]), 'b': tensor([True])}
    """
    _check(scales, ratio, floor, round_to)
    units = _units(scales, groups)
    total = sum(len(members) for _, members in units)
    k = math.floor(ratio * total + 1e-9)  # 0.29 * 100 is 28.999999999999996
    left = Counter({name: len(gamma) for name, gamma in scales.items()})
    removed: list[list[tuple[str, int]]] = []
    count = 0
    for _, members in sorted(units, key=lambda unit: unit[0]):  # a stable sort: ties stay in order of position
        need = Counter(name for name, _ in members)
        if any(left[name] - n < floor for name, n in need.items()):
            continue
        if count + len(members) > k:
            break
        left.subtract(need)
        removed.append(members)
        count += len(members)
    else:
        if count < k:
            raise ValueError(
                f"ratio {ratio:g} would remove {k} of {total} channels, but with at least {floor} kept per layer only"
                f" {count} can go: the highest reachable ratio is {math.floor(count / total * 1e4) / 1e4:g}"
            )
    _round_up(removed, left, round_to)
    keep = {name: torch.ones(len(gamma), dtype=torch.bool) for name, gamma in scales.items()}
    for name, channel in (member for members in removed for member in members):
        keep[name][channel] = False
    return keep


def _check(scales: Mapping[str, Tensor], ratio: float, floor: int, round_to: int) -> None:
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio must be in [0, 1), got {ratio}")
    if floor < 0:
        raise ValueError(f"floor must be 0 or more channels, got {floor}")
    if round_to < 1:
        raise ValueError(f"round_to must be 1 or more channels, got {round_to}")
    if not scales:
        raise ValueError("there is no BatchNorm channel to choose from")
    check_scales(scales)


def check_scales(scales: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a γ is not a number."""
    for name, gamma in scales.items():
        if gamma.isnan().any():
            raise ValueError(f"γ of {name!r} holds NaN: the training diverged, there is nothing to rank")


def _units(
    scales: Mapping[str, Tensor], groups: Mapping[str, Tensor] | None
) -> list[tuple[float, list[tuple[str, int]]]]:
    """What leaves together, in order of position: (largest |γ|, [(layer, channel), ...])."""
    by_number: dict[object, tuple[float, list[tuple[str, int]]]] = {}
    for name, gamma in scales.items():
        numbers = groups[name].tolist() if groups is not None else [None] * len(gamma)
        for channel, (size, number) in enumerate(zip(gamma.detach().abs().tolist(), numbers, strict=True)):
            if number == -1:
                continue
            key = (name, channel) if number is None else number
            largest, members = by_number.get(key, (0.0, []))
            by_number[key] = (max(largest, size), [*members, (name, channel)])
    return list(by_number.values())


def _round_up(removed: list[list[tuple[str, int]]], left: Counter[str], round_to: int) -> None:
    """Take back the best removed units (they come last) of every layer whose kept count is no multiple of round_to."""
    if round_to == 1:
        return
    for members in reversed(removed.copy()):
        if any(left[name] % round_to for name, _ in members):
            left.update(name for name, _ in members)
            removed.remove(members)
