"""The channels that were chosen, with what led to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any

from torch import Tensor

from netslim.engine.verify.analyse import Proof
from netslim.method.scores import Scores


@dataclass(eq=False, repr=False)
class Selection(dict[str, Tensor]):
    """The channels to keep: BN name -> bool tensor (C,), True where the channel is kept; a dict with attributes.

    asked: the ratio. prunable: BN channels that could be removed; removed: those that are; carried: those of them that
    still take a place in the slim network (grouped convolutions need equally many channels per group, layers at least
    one).
    delivered: share of the prunable "channels", of all "parameters" and of the "macs" that the slim network is without.
    `removed` rises with the ratio; so does `delivered`, except where parts of a tensor that the code splits or shuffles
    must stay equally wide: what holds them at one ratio need not at another.
    held_back: for the other BN channels, what holds them -> how many ("coupled": their residual stream is written by
    others too; an operation; or that the layer was not run).
    scattering: BN layers that may write only some channels of their streams -> the modules whose hooks do it.
    """

    keep: InitVar[Mapping[str, Tensor]]
    asked: float = 0.0
    prunable: int = 0
    removed: int = 0
    carried: int = 0
    delivered: dict[str, float] = field(default_factory=dict)
    held_back: dict[str, int] = field(default_factory=dict)
    scattering: Mapping[str, str] = field(default_factory=dict)
    scores: Scores | None = None  # by which they were ranked
    proof: Proof | None = None  # for slim()

    def __post_init__(self, keep: Mapping[str, Tensor]) -> None:
        self.update(keep)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files hold no network."""
        return {name: value for name, value in vars(self).items() if name != "proof"}
