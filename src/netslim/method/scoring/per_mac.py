"""A score per multiply-add: among channels of equal score the dear ones are removed first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from netslim.method.scores import Connected, Score, Scores, evaluate, needs_labels
from netslim.method.scoring.layer_mean import LayerMean
from netslim.method.threshold import is_number


@dataclass(frozen=True)
class PerMac:
    """Another score over the multiply-adds that the network saves with the channel, to a power.

    A global threshold asks every layer for what matters least. Where the aim is a small cost, what matters least per
    multiply-add is to be asked: a channel of an early layer, with large maps, costs many times one of a late layer.

    Args:
        of: the other score, default ``LayerMean``; its values must not be negative.
        power: how much cost counts, default 0.5; 0 not at all, 1: score per multiply-add.

    Source: netslim's own, after the value over weight of a knapsack.

    Raises:
        ValueError: power is not a number of at least 0.
    """

    of: Score = LayerMean()  # noqa: RUF009 (it has no state)
    power: float = 0.5
    needs_connections = True

    def __post_init__(self) -> None:
        if not (is_number(self.power) and 0 <= self.power < math.inf):
            raise ValueError(f"power={self.power}: how much cost counts must be 0 or more, such as 0.5")

    @property
    def needs_data(self) -> bool:
        return self.of.needs_data

    @property
    def needs_labels(self) -> bool:
        return needs_labels(self.of)

    def __call__(self, network: nn.Module, batches: Iterable[Any], seed: int, connections: Connected) -> Scores:
        scores = evaluate(self.of, network, batches, seed, connections)
        macs = {name: connections[name].macs for name in scores.value}
        every = torch.cat([*macs.values()])
        mean = every[every > 0].mean()
        value = {n: v.double().cpu() / (macs[n].clamp_min(1.0) / mean) ** self.power for n, v in scores.value.items()}
        return Scores(value, scores.dead, f"{scores.unit} / MACs^{self.power:g}")
