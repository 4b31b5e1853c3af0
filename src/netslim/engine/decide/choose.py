"""How much is to be removed, and the channels that this takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral

from torch import Tensor

from netslim.engine.cut.layer_shapes import LatencyModel, Times, layers_left
from netslim.engine.cut.savings import macs_left, params_left
from netslim.engine.decide.coupling import Units
from netslim.engine.decide.levels import AUTO, in_levels
from netslim.engine.decide.liveness import solve
from netslim.engine.graph.graph import Graph
from netslim.method.threshold import Floor, is_number, least, remove_lowest
from netslim.modules import Network

LATENCY = "target_latency"
UNITS = {"target_macs": "multiply-adds", "target_params": "parameters", LATENCY: "milliseconds"}
COSTS: dict[str, Callable[[Network, Graph, Tensor], float]] = {"target_macs": macs_left, "target_params": params_left}


@dataclass(frozen=True)
class Target:
    """What may be left of a cost: a share of the dense network's, or over 1 a number of multiply-adds, of parameters
    (whole ones), or of milliseconds.

    Raises:
        ValueError: it is neither.
    """

    name: str
    value: float

    def __post_init__(self) -> None:
        value, whole = self.value, self.name != LATENCY
        number = is_number(value) and value > 1 and (not whole or float(value).is_integer())
        if not number and not (is_number(value) and 0 < value <= 1):
            over = "a whole number over 1 means" if whole else "over 1 it means"
            raise ValueError(f"{self.name} must be in (0, 1], got {value!r}; {over} that many {self.unit}")

    @property
    def unit(self) -> str:
        return UNITS[self.name]

    def check(self, left: float, dense: float) -> None:
        """Raise where more is left than the target allows: the least that there can be."""
        if left > self.limit(dense):
            number = f"{math.ceil(100 * left) / 100:g}" if self.name == LATENCY else f"{left:.0f}"
            least = number if self.value > 1 else f"{left / dense:.3f} of the"
            raise ValueError(f"{self.name} {self.value:g} is out of reach: at least {least} {self.unit} stay")

    def limit(self, dense: float) -> float:
        """So much may be left of a dense network's cost."""
        return self.value if self.value > 1 else self.value * dense


def target_of(
    ratio: float | None,
    target_macs: float | None = None,
    target_params: float | None = None,
    target_latency: float | None = None,
    latency: LatencyModel | None = None,
) -> Target | None:
    """None where the ratio is given; exactly one of them must be.

    Raises:
        ValueError: none is given, or several, or a target that cannot be.
    """
    targets = {"target_macs": target_macs, "target_params": target_params, LATENCY: target_latency}
    given = [Target(name, value) for name, value in targets.items() if value is not None]
    if len(given) + (ratio is not None) != 1:
        raise ValueError(f"give either ratio or {' or '.join(targets)}")
    if target_latency is not None and latency is None:
        raise ValueError("target_latency needs what measures it, such as latency=netslim.LatencyTable('eager')")
    return given[0] if given else None


@dataclass(frozen=True)
class Amount:
    """How much is to be removed: ratio, a share of the prunable channels; or until a target is met. floor, round_to,
    strict and most as in ``threshold``. times: how long layers take, where somebody knows."""

    ratio: float | None
    target: Target | None
    floor: Floor
    round_to: int | str
    strict: bool
    most: float = 1.0
    times: Times | None = None

    def choose(self, network: Network, graph: Graph, units: Units) -> tuple[float, dict[str, Tensor]]:
        """The ratio, and the channels to keep.

        Raises:
            ValueError: a ratio or a target out of range or out of reach.
        """
        if self.round_to == AUTO:
            return replace(self, round_to=1).choose(network, graph, in_levels(units))
        if isinstance(self.round_to, Integral) and self.round_to > 1:
            units = in_levels(units, int(self.round_to))
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
        dense = self._left(target, network, graph, graph.everything)

        def left(k: int) -> float:
            keep = self._keep(units, k / prunable, strict=False)
            return self._left(target, network, graph, solve(graph, keep).exist)

        low, high = 0, prunable - 1
        while low < high:
            k = (low + high) // 2
            low, high = (low, k) if left(k) <= target.limit(dense) else (k + 1, high)
        if self.strict:
            target.check(left(low), dense)
        return low / prunable

    def _left(self, target: Target, network: Network, graph: Graph, exist: Tensor) -> float:
        """What is left of the target's cost if only these ids exist."""
        return self._latency(graph, exist) if target.name == LATENCY else COSTS[target.name](network, graph, exist)

    def _latency(self, graph: Graph, exist: Tensor) -> float:
        assert self.times is not None, "target_of refuses a latency that nobody knows"
        return self.times(layers_left(graph, exist))

    def predicted(self, graph: Graph, exist: Tensor) -> dict[str, float]:
        """Milliseconds of the network and of what these ids are; {} where nobody knows."""
        if self.times is None:
            return {}
        return {"dense": self._latency(graph, graph.everything), "slim": self._latency(graph, exist)}
