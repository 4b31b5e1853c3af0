"""|γ| beside the others of its layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from netslim.method.scores import Magnitude, Scores


@dataclass(frozen=True)
class LayerMean:
    """|γ| over the mean |γ| of its layer.

    A layer whose readers have a BatchNorm of their own may be multiplied by any c > 0 without a change of the network's
    function, and the penalty does so for free: |γ| of different layers cannot be compared. This score does not change
    with c.

    Source: netslim's own, for the reason above; the comparison within layers is that of Liu et al. 2017, section 3.

    >>> layer = nn.BatchNorm1d(2); layer.weight.data = Tensor([0.01, -0.03]); LayerMean()(layer).value
    {'': tensor([0.5000, 1.5000])}
    """

    needs_data = False

    def __call__(self, network: nn.Module, batches: Iterable[Any] = (), seed: int = 0) -> Scores:
        scores = Magnitude()(network)
        return Scores({name: over_mean(size) for name, size in scores.value.items()}, scores.dead, "|γ| / layer mean")


def over_mean(size: Tensor) -> Tensor:
    """size, shape (C,), over its mean; 0 where all are 0.

    >>> over_mean(Tensor([1.0, 3.0])), over_mean(Tensor([0.0, 0.0]))
    (tensor([0.5000, 1.5000]), tensor([0., 0.]))
    """
    mean = size.mean()
    return size / mean if mean > 0 else size
