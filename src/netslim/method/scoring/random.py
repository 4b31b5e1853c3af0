"""A control: which channels of a layer are removed is left to chance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from netslim.method.scores import Connected, Magnitude, Score, Scores, evaluate, needs_connections, needs_labels


@dataclass(frozen=True)
class Random:
    """The values of another score, dealt out anew among the channels of each layer.

    As many channels of each layer are removed as by the other score, but at random: what the score gains over this is
    what it knows about channels.

    Args:
        of: the other score, default |γ|.

    >>> layer = nn.BatchNorm1d(3); layer.weight.data = torch.tensor([0.1, 0.2, 0.3]); Random()(layer, seed=1).value
    {'': tensor([0.2000, 0.3000, 0.1000])}
    """

    of: Score = Magnitude()  # noqa: RUF009 (it has no state)

    @property
    def needs_data(self) -> bool:
        return self.of.needs_data

    @property
    def needs_labels(self) -> bool:
        return needs_labels(self.of)

    @property
    def needs_connections(self) -> bool:
        return needs_connections(self.of)

    def __call__(
        self, network: nn.Module, batches: Iterable[Any] = (), seed: int = 0, connections: Connected | None = None
    ) -> Scores:
        scores, generator = evaluate(self.of, network, batches, seed, connections or {}), torch.Generator()
        generator.manual_seed(seed)
        value = {n: v[torch.randperm(len(v), generator=generator)] for n, v in scores.value.items()}
        return Scores(value, scores.dead, f"{scores.unit}, shuffled")
