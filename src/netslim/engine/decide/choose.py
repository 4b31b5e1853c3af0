"""How much is to be removed, and the channels that this takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from netslim.engine.cut.savings import macs_left, params_left
from netslim.engine.decide.coupling import Units
from netslim.engine.decide.levels import AUTO, in_levels
from netslim.engine.decide.liveness import solve
from netslim.engine.graph.graph import Graph
from netslim.method.threshold import Floor, is_number, least, remove_lowest
from netslim.modules import Network

COSTS: dict[str, tuple[str, Callable[[Network, Graph, Tensor], float]]] = {
    "target_macs": ("multiply-adds", macs_left),
    "target_params": ("parameters", params_left),
}


@dataclass(frozen=True)
class Target:
    """What may be left of a cost: a share of the dense network's, or from 2 on a number of multiply-adds or parameters.

    Raises:
        ValueError: it is neither.
    """

    name: str
    value: float

    def __post_init__(self) -> None:
        value = self.value
        if not (is_number(value) and (0 < value <= 1 or (value > 1 and float(value).is_integer()))):
            raise ValueError(
                f"{self.name} must be in (0, 1], got {value!r}; a whole number over 1 means that many {self.unit}"
            )

    @property
    def unit(self) -> str:
        return COSTS[self.name][0]

    def left(self, network: Network, graph: Graph, exist: Tensor) -> float:
        """What is left of the cost if only these ids exist."""
        return COSTS[self.name][1](network, graph, exist)

    def check(self, left: float, dense: float) -> None:
        """Raise where more is left than the target allows: the least that there can be."""
        if left > self.limit(dense):
            least = f"{left:.0f}" if self.value > 1 else f"{left / dense:.3f} of the"
            raise ValueError(f"{self.name} {self.value:g} is out of reach: at least {least} {self.unit} stay")

    def limit(self, dense: float) -> float:
        """So much may be left of a dense network's cost."""
        return self.value if self.value > 1 else self.value * dense


def target_of(
    ratio: float | None, target_macs: float | None = None, target_params: float | None = None
) -> Target | None:
    """None where the ratio is given; exactly one of them must be.

    Raises:
        ValueError: none is given, or several, or a target that cannot be.
    """
    targets = {"target_macs": target_macs, "target_params": target_params}
    given = [Target(name, value) for name, value in targets.items() if value is not None]
    if len(given) + (ratio is not None) != 1:
        raise ValueError("give either ratio or target_macs or target_params")
    return given[0] if given else None


@dataclass(frozen=True)
class Amount:
    """How much is to be removed: ratio, a share of the prunable channels; or until a target is met. floor, round_to,
    strict and most as in ``threshold``."""

    ratio: float | None
    target: Target | None
    floor: Floor
    round_to: int | str
    strict: bool
    most: float = 1.0

    def choose(self, network: Network, graph: Graph, units: Units) -> tuple[float, dict[str, Tensor]]:
        """The ratio, and the channels to keep.

        Raises:
            ValueError: a ratio or a target out of range or out of reach.
        """
        if self.round_to == AUTO:
            return replace(self, round_to=1).choose(network, graph, in_levels(units))
        if self.target is None:
            assert self.ratio is not None
            return self.ratio, self._keep(units, self.ratio, self.strict)
        ratio = self._ratio_for(self.target, network, graph, units)
        return ratio, self._keep(units, ratio, strict=False)

    def at_floor(self, keep: dict[str, Tensor]) -> list[str]:
        """The layers that lost as many channels as they may."""
        lowest = least({name: len(kept) for name, kept in keep.items()}, self.floor, self.most)
        return [name for name, kept in keep.items() if not kept.all() and int(kept.sum()) <= lowest[name]]

    def _keep(self, units: Units, ratio: float, strict: bool) -> dict[str, Tensor]:
        return remove_lowest(
            units.score,
            ratio,
            floor=self.floor,
            most=self.most,
            groups=units.number,
            round_to=self.round_to,  # type: ignore[arg-type]  # a text that is none is refused there
            strict=strict,
        )

    def _ratio_for(self, target: Target, network: Network, graph: Graph, units: Units) -> float:
        """The smallest k/N whose slim network meets the target, by bisection; what is left only falls with k."""
        prunable = sum(int((number >= 0).sum()) for number in units.number.values())
        dense = target.left(network, graph, torch.ones(graph.count, dtype=torch.bool))

        def left(k: int) -> float:
            keep = self._keep(units, k / prunable, strict=False)
            return target.left(network, graph, solve(graph, keep).exist)

        low, high = 0, prunable - 1
        while low < high:
            k = (low + high) // 2
            low, high = (low, k) if left(k) <= target.limit(dense) else (k + 1, high)
        if self.strict:
            target.check(left(low), dense)
        return low / prunable
