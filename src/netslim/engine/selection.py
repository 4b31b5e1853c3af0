"""The channels that were chosen, with what led to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any

from torch import Tensor

from netslim.engine.verify.analyse import Proof
from netslim.method.scales import dead_share
from netslim.method.scores import Scores

ROWS = 20  # layers that the table shows


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
    held: the same by layer. at_floor: layers that lost all that their floor lets go.
    predicted: milliseconds of the "dense" and of the "slim" network, where a latency model was given.
    scattering: BN layers that may write only some channels of their streams -> the layers around which it is done.
    """

    keep: InitVar[Mapping[str, Tensor]]
    asked: float = 0.0
    prunable: int = 0
    removed: int = 0
    carried: int = 0
    delivered: dict[str, float] = field(default_factory=dict)
    held_back: dict[str, int] = field(default_factory=dict)
    held: dict[str, dict[str, int]] = field(default_factory=dict)
    coupling: str = "keep"
    at_floor: list[str] = field(default_factory=list)
    predicted: dict[str, float] = field(default_factory=dict)
    scattering: Mapping[str, str] = field(default_factory=dict)
    scores: Scores | None = None  # by which they were ranked
    proof: Proof | None = None  # for slim()

    def __post_init__(self, keep: Mapping[str, Tensor]) -> None:
        self.update(keep)

    def __repr__(self) -> str:
        left = 100 * (1 - self.delivered.get("macs", 0.0))
        return f"Selection({self.removed} of {self.prunable} channels removed, {left:.1f} % of multiply-adds left)"

    def __str__(self) -> str:
        """A table of at most 30 lines: what is kept, what holds the rest, what is left in all, and advice."""
        widths = {name: (n := sum(why.values()), n) for name, why in self.held.items()}
        widths |= {name: (int(mask.sum()), len(mask)) for name, mask in self.items()}
        order = self.scores.value if self.scores else widths  # the network's
        times = " -> ".join(f"{milliseconds:.3g}" for milliseconds in self.predicted.values())
        left = {what: f"{100 * (1 - share):.1f} %" for what, share in self.delivered.items()}
        return "\n".join(
            [
                *rows({name: widths[name] for name in order if name in widths}, self.held),
                f"removed {self.removed} of {self.prunable} prunable channels ({100 * self.asked:.3g} % asked)",
                f"left: {left.get('parameters')} of the parameters, {left.get('macs')} of the multiply-adds",
                *([f"latency: {times} ms, predicted"] if times else []),
                *(f"! {line}" for line in self.advice()),
            ]
        )

    def advice(self) -> list[str]:
        """What may be better done otherwise, in a line each."""
        total = sum(self.held_back.values()) + self.prunable
        coupled, dead = self.held_back.get("coupled", 0) / total, self._dead_share()
        found = []
        if self.coupling == "keep" and coupled > 0.4:
            out = f"coupling='keep' leaves {100 * coupled:.0f} % of the channels out of the ratio"
            found.append(f"{out}: coupling='group' or 'scatter' reaches them")
        if dead is not None and self.asked - dead > 0.1:
            asked = f"{100 * self.asked:.0f} % are removed, {100 * dead:.0f} % of the γ are dead"
            found.append(f"{asked} (at most 1 % of their layer's mean): train with the penalty first")
        at_floor = [name for name in self.at_floor if name in self]
        if at_floor:
            more = f" and {len(at_floor) - 3} more" * (len(at_floor) > 3)
            ends = ", ".join(f"{name} with {int(self[name].sum())}" for name in at_floor[:3])
            found.append(f"at the floor end {ends}{more}: a higher floor, or a smaller ratio")
        return found

    def _dead_share(self) -> float | None:
        """The share of dead γ, of the layers that can be pruned; None where another score ranks the channels."""
        if self.scores is None or self.scores.unit != "|γ|" or not self:
            return None
        return dead_share([self.scores.value[name] for name in self])

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files hold no network."""
        return {name: value for name, value in vars(self).items() if name != "proof"}


def rows(widths: Mapping[str, tuple[int, int]], held: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A line per layer: its name, channels kept of its width, what holds the others; of many the narrowest.

    Args:
        widths: layer -> channels kept, width.
        held: layer -> what holds channels of it -> how many.
    """
    shown = sorted(widths, key=lambda name: widths[name][0] / widths[name][1])[:ROWS]
    longest = max(len(name) for name in ["layer", *shown])
    table = [f"{'layer':<{longest}}  {'kept':>5} of {'width':<5}"]
    for name in (name for name in widths if name in shown):
        kept, width = widths[name]
        why = ", ".join(f"{n} {reason}" for reason, n in held.get(name, {}).items())
        table.append(f"{name:<{longest}}  {kept:>5} of {width:<5}  {why}".rstrip())
    others = [widths[name] for name in widths if name not in shown]
    if others:
        table.append(f"{len(others)} more layers: {sum(k for k, _ in others)} of {sum(w for _, w in others)}")
    return table
