"""A control: an equal share of every layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from netslim.method.scores import Magnitude, Scores


@dataclass(frozen=True)
class Uniform:
    """The place of |γ| among those of its layer, as a share of the layer: the lowest of each layer are removed.

    Every layer loses the ratio of its channels, as nearly as whole channels allow. What a global ranking gains over
    this is what it knows about layers.

    >>> layer = nn.BatchNorm1d(4); layer.weight.data = Tensor([0.3, -0.1, 0.2, 0.9]); Uniform()(layer).value
    {'': tensor([0.6250, 0.1250, 0.3750, 0.8750])}
    """

    needs_data = False

    def __call__(self, network: nn.Module, batches: Iterable[Any] = (), seed: int = 0) -> Scores:
        scores = Magnitude()(network)
        return Scores({name: place(size) for name, size in scores.value.items()}, scores.dead, "place in the layer")


def place(size: Tensor) -> Tensor:
    """(rank + 1/2) / C of every channel, 0 to 1, shape (C,); of equal ones the first has the lower rank."""
    return (size.argsort(stable=True).argsort() + 0.5) / len(size)
