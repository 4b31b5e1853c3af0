"""How much is to be removed, and the channels that this takes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from netslim.engine.cut.savings import predicted
from netslim.engine.decide.coupling import Units
from netslim.engine.decide.liveness import solve
from netslim.engine.graph.graph import Graph
from netslim.method.threshold import Floor, is_number, remove_lowest


@dataclass(frozen=True)
class Amount:
    """ratio: share of the prunable channels; or target_macs: share of the multiply-adds that may be left. floor,
    round_to and strict as in ``threshold``."""

    ratio: float | None
    target_macs: float | None
    floor: Floor
    round_to: int
    strict: bool

    def choose(self, graph: Graph, units: Units) -> tuple[float, dict[str, Tensor]]:
        """The ratio, and the channels to keep.

        Raises:
            ValueError: a ratio or a target out of range or out of reach.
        """
        ratio = self._ratio_for(graph, units) if self.ratio is None else self.ratio
        return ratio, self._keep(units, ratio)

    def _keep(self, units: Units, ratio: float) -> dict[str, Tensor]:
        return remove_lowest(
            units.score, ratio, floor=self.floor, groups=units.number, round_to=self.round_to, strict=self.strict
        )

    def _ratio_for(self, graph: Graph, units: Units) -> float:
        """The smallest k/N whose slim network has at most the target's share of the multiply-adds, by bisection."""
        target = self.target_macs
        if not (is_number(target) and target is not None and 0 < target <= 1):
            raise ValueError(f"target_macs must be in (0, 1], got {target!r}")
        prunable = sum(int((number >= 0).sum()) for number in units.number.values())
        dense = best = self._macs(graph, units, 0.0)
        low, high = 0, prunable - 1
        while low < high:
            k = (low + high) // 2
            macs = self._macs_or_none(graph, units, k / prunable)
            best = best if macs is None else min(best, macs)
            low, high = (low, k) if macs is None or macs <= target * dense else (k + 1, high)
        reached = self._macs_or_none(graph, units, low / prunable)
        if reached is None or reached > target * dense:
            share = best / dense
            raise ValueError(f"target_macs {target:g} is out of reach: at least {share:.3f} of the multiply-adds stay")
        return low / prunable

    def _macs_or_none(self, graph: Graph, units: Units, ratio: float) -> float | None:
        """None: the floor keeps more than that."""
        try:
            return self._macs(graph, units, ratio)
        except ValueError:
            return None

    def _macs(self, graph: Graph, units: Units, ratio: float) -> float:
        return predicted(graph, solve(graph, self._keep(units, ratio)).exist)
