"""How much a training in which the network gets smaller is to remove, and what is left of that to be done."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from netslim.engine import select_channels
from netslim.engine.cut.plan import rows_of
from netslim.engine.decide.choose import target_of
from netslim.measure.cost import count
from netslim.method.threshold import is_number

Kept = dict[str, list[int]]  # BN layer -> channels, in the numbers of the dense network


class Goal:
    """A share of the dense network's prunable channels, or until no more of its cost is left than a target allows.

    share: of the channels, or of the multiply-adds or parameters, that is to be gone. prunable, removed: channels.
    """

    def __init__(self, ratio: float | None, target_macs: float | None, target_params: float | None) -> None:
        self.target = target_of(ratio, target_macs, target_params)
        if ratio is not None and not (is_number(ratio) and 0 < ratio < 1):
            raise ValueError(f"prune ratio {ratio!r} is outside 0 < ratio < 1; for 50 % give 0.5")
        self.share, self.dense, self.prunable, self.removed = ratio or 0.0, 0, 0, 0

    def begin(self, network: nn.Module, example: Any, options: dict[str, Any]) -> None:
        """Look at the dense network.

        Raises:
            ValueError: the goal is out of reach, or removes nothing.
        """
        name, value = ("ratio", self.share) if self.target is None else (self.target.name, self.target.value)
        asked: dict[str, Any] = {name: value}
        chosen = select_channels(network, example_input=example, **asked, **options)
        if not chosen.removed:
            remedy = "give a larger one" if self.target is None else "give a smaller one"
            raise ValueError(f"{name} {value:g} removes none of {chosen.prunable} channels; {remedy}")
        self.prunable = chosen.prunable
        if self.target is not None:
            self.dense = self._cost(network, example)
            self.share = 1 - self.target.limit(self.dense) / self.dense

    def asked(self, network: nn.Module, example: Any, gone: float, options: dict[str, Any]) -> dict[str, Any] | None:
        """What ``select_channels`` must be asked for, so that this share is gone; None where it is already."""
        if self.target is None:
            wanted = math.floor(gone * self.prunable + 1e-9) - self.removed
            left = select_channels(network, 0.0, example, **options).prunable if wanted > 0 else 0
            return {"ratio": wanted / left} if left else None
        limit = math.floor(self.dense * (1 - gone) + 1e-6)
        return {self.target.name: max(2, limit)} if self._cost(network, example) > limit else None

    def end(self, network: nn.Module, example: Any, options: dict[str, Any], limits: dict[str, Any]) -> Kept:
        """What would be kept if all that is left to be done were done now."""
        asked = self.asked(network, example, self.share, options) or {"ratio": 0.0}
        keep = select_channels(network, example_input=example, **asked, **limits, **options)
        rows = rows_of(network)
        found = {name: kept.nonzero().flatten() for name, kept in keep.items()}
        dense = {name: rows.get(f"{name}.weight") for name in keep}
        return {n: (here if (of := dense[n]) is None else of[here]).tolist() for n, here in found.items()}

    def _cost(self, network: nn.Module, example: Any) -> int:
        assert self.target is not None
        found = count(network, example)
        return found.macs if self.target.name == "target_macs" else found.params

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("share", "dense", "prunable", "removed")}
