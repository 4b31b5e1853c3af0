"""The dependency graph of a network: what ``build`` leaves, and all that the later steps ask for.

    sym      the ids of every tensor on the tape (channel_ids.py); None where they could not be followed
    flows    how new ids depend on old ones: channel by channel (PerChannel) or all on all (AllToAll), in the order in
             which they are made; flow_at: position on the tape -> the flow of that operation
    axes     which ids lie along which dimension of which parameter or buffer: what emission slices
    balances places that need equal numbers of channels per row (grouped convolutions, chunks, channel shuffles)
    demands  ids that must be there with their right value (the outputs; the inputs of operations without a rule)

None of it depends on the channels to keep, so one graph serves any number of selections. What a proof learns about the
code of the network is the same for all of them too, and is kept here: `remembering`, and balances that were released.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from netslim.engine.graph.flows import Balance, Flow, PerChannel, Scattered
from netslim.engine.ops.channel_ids import shrink
from netslim.engine.ops.context import Sym
from netslim.engine.trace.tape import Tape


@dataclass
class Graph:
    tape: Tape
    norms: dict[str, str]  # name of the γ -> name of the BN layer
    scattering: dict[str, str] = field(default_factory=dict)  # BN that may scatter -> the layer around which it is done
    sym: dict[int, Sym] = field(default_factory=dict)
    flows: list[Flow] = field(default_factory=list)
    flow_at: dict[int, Flow] = field(default_factory=dict)
    axes: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    used: dict[tuple[int, str, int], Tensor] = field(default_factory=dict)  # (position, tensor, dimension) -> ids
    balances: dict[int, Balance] = field(default_factory=dict)  # by position
    demands: list[tuple[str, Tensor]] = field(default_factory=list)
    pins: list[tuple[str, Tensor]] = field(default_factory=list)  # must exist, the value does not matter
    zeros: list[Tensor] = field(default_factory=list)  # constants that are zero
    groups: dict[str, Tensor] = field(default_factory=dict)  # weight of a grouped convolution -> ids (groups, columns)
    sources: dict[str, Tensor] = field(default_factory=dict)  # BN that selects -> ids of what it selects from
    scattered: dict[int, Scattered] = field(default_factory=dict)  # position of a BN that scatters -> where to
    made: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # (tensor, dimension) -> ids where it has none
    classes: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))  # of every id
    remembering: set[type] = field(default_factory=set)  # classes of modules with sizes as attributes

    @property
    def count(self) -> int:
        """How many ids there are."""
        return len(self.classes)

    @property
    def everything(self) -> Tensor:
        """All ids exist: the dense network."""
        return torch.ones(self.count, dtype=torch.bool)

    @property
    def norm_flows(self) -> list[PerChannel]:
        """Those of BN layers with γ, in the order in which they are called."""
        return [flow for flow in self.flows if isinstance(flow, PerChannel) and flow.norm]

    @property
    def read_freely(self) -> Tensor:
        """Ids that somebody reads by value without being tied to them.

        A BN that selects reads too; where what it reads is zero, its own channel leaves as well, so that does no harm.
        """
        return torch.cat([torch.empty(0, dtype=torch.long), *(line for flow in self.flows for line in flow.free)])

    def release(self, position: int) -> None:
        """The shares that an operation cuts need not be equal, only not empty."""
        outs = [self.sym.get(ref) for ref in self.tape.nodes[position].outs]
        rows = [shrink(out).reshape(1, -1) for out in outs if isinstance(out, Tensor) and out.numel()]
        self.balances[position] = Balance(rows, droppable=False)
