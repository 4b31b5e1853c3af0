"""What the slim network must hold: the rules' Context when they run over its tape.

No new ids are made here. What a rule says of an operation is compared with what it said of the dense network's
operation at the same position, and it gets the ids that were promised there, less those that do not exist any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from netslim.engine.cut.emit import Cut
from netslim.engine.graph.flows import AllToAll, PerChannel
from netslim.engine.graph.graph import Graph
from netslim.engine.ops.channel_ids import shrink
from netslim.engine.ops.context import Sym
from netslim.engine.trace.tape import Tape


class Deviation(Exception):
    """The slim network does something else than the dense one at the current position of the dense tape."""


@dataclass
class Orders:
    """Where channels arrive in another order than in the dense network. order: positions along an axis to cut in, as in
    ``emit.cuts``. layouts: BN layer that selects -> the ids of its input as they lie there."""

    order: Cut = field(default_factory=dict)
    layouts: dict[str, Tensor] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.order or self.layouts)


class Promises:
    """See ``Context``. dense_ref: tensor of the slim network -> that of the dense one. position: on the dense tape."""

    def __init__(self, dense: Graph, exist: Tensor, cut: Cut, tape: Tape) -> None:
        self.dense, self.exist, self.cut, self.tape = dense, exist, cut, tape
        self.norms, self.scattering = dense.norms, dense.scattering
        self.position, self.orders = 0, Orders()
        self._promised: dict[int, Sym] = {}
        self.selected: dict[int, int] = {}
        self.sources: dict[str, Tensor] = {}
        self.groups: dict[str, Tensor] = {}
        names = {name: ref for ref, name in dense.tape.state.items()}
        self.dense_ref = {ref: names[name] for ref, name in tape.state.items() if name in names}
        self.dense_ref.update(zip(tape.inputs, dense.tape.inputs, strict=True))
        self.sym = {ref: self._state(name, names.get(name)) for ref, name in tape.state.items()}

    def _state(self, name: str, dense_ref: int | None) -> Sym:
        """What a parameter or buffer holds: the ids it had when the dense network was analysed, less those cut."""
        sym = None if dense_ref is None else self.dense.sym.get(dense_ref)
        if not isinstance(sym, Tensor):
            return sym
        for dim in range(sym.dim()):
            if (name, dim) in self.cut:
                sym = sym.index_select(dim, self.cut[name, dim])
        return sym

    def promise(self, ref: int) -> Sym:
        """What a tensor should hold: its twin's ids that exist, where these lie along one dimension."""
        if ref not in self._promised:
            self._promised[ref] = self._promise(ref)
        return self._promised[ref]

    def _promise(self, ref: int) -> Sym:
        sym = self.dense.sym.get(self.dense_ref[ref])
        if not isinstance(sym, Tensor):
            return sym
        small = shrink(sym)
        if sum(n > 1 for n in small.shape) > 1 or not small.numel():
            return None
        line = small.flatten()
        line = line[self.exist[line]]
        return line.reshape([-1 if n > 1 else 1 for n in small.shape]).expand(self.tape.shape[ref])

    # what rules say ------------------------------------------------------------------------------------------------

    def per_channel(self, ins: list[Tensor], zero: str, tied: list[bool] | None = None, norm: str = "") -> Tensor:
        flow = self.dense.flow_at.get(self.position)
        if flow is None or (isinstance(flow, PerChannel) and len(flow.ins) != len(ins)):
            raise Deviation("it computes something else")
        if isinstance(flow, AllToAll):  # a grouped convolution of which one channel per group is left
            groups = int(self.exist[flow.ins].any(1).sum())
            return self.all_to_all(ins[0].reshape(groups, -1)[:, :1], 1, False)
        if flow.norm and not flow.tied[0]:
            return self._selecting_norm(flow, ins[0])
        lead = flow.tied.index(True) if any(flow.tied) else 0
        dense = [flow.whole(line) for line in flow.ins]
        positions = self._locate(ins[lead], dense[lead])
        if any(not torch.equal(mine, theirs[positions]) for mine, theirs in zip(ins, dense, strict=True)):
            raise Deviation("its inputs hold different channels")
        return flow.whole(flow.out)[positions]

    def _selecting_norm(self, flow: PerChannel, line: Tensor) -> Tensor:
        alive = self.exist[flow.out]
        wanted = flow.ins[0][alive]
        if len(line) != len(wanted):
            raise Deviation(f"{len(line)} channels arrive at {flow.norm}, which keeps {len(wanted)}")
        wrong = (line != wanted) & self.exist[wanted]
        if wrong.any():
            if not torch.isin(wanted[wrong], self.sources[flow.norm]).all():
                raise Deviation(f"channels that {flow.norm} selects are not in its input")
            self.orders.layouts[flow.norm] = self.sources[flow.norm]
        return flow.out[alive]

    def all_to_all(self, ins: Tensor, rows: int, bias: bool) -> Tensor:
        flow = self.dense.flow_at.get(self.position)
        if flow is None:
            raise Deviation("it computes something else")
        if isinstance(flow, PerChannel):  # a depthwise convolution of which one channel is left
            return self.per_channel([ins.flatten().repeat_interleave(rows)], "never")
        if len(flow.ins) > 1:
            self._rows(flow.ins, ins)  # each group its own channels
        return flow.out[self.exist[flow.out]]

    def axis(self, name: str, dim: int, ids: Tensor) -> None:
        """The channels that arrive must be those that the parameter was cut to."""
        promised = self.dense.used.get((self.position, name, dim))
        if promised is None:
            return
        if promised.dim() == 2:
            positions = self._rows(promised, ids.reshape(-1, ids.shape[-1]))
        else:
            positions = self._locate(ids.flatten(), promised)
        now = self.cut.get((name, dim), torch.arange(promised.shape[-1]).expand(promised.shape))
        if now.shape != positions.shape:
            raise Deviation(f"{name} was cut to {tuple(now.shape)} channels, {tuple(positions.shape)} arrive")
        known = self.orders.order.get((name, dim), positions)
        if not torch.equal(now, positions):
            self.orders.order[name, dim] = known
            if not torch.equal(known, positions):
                raise Deviation(f"{name} is used with two orders of channels")

    def _rows(self, promised: Tensor, ids: Tensor) -> Tensor:
        kept = promised[self.exist[promised].any(1)]
        if len(kept) != len(ids):
            raise Deviation(f"{len(ids)} groups instead of {len(kept)}")
        alive = self.exist[kept]
        if torch.equal(kept[alive], ids.flatten()) and bool((alive.sum(1) == ids.shape[1]).all()):  # most often
            return alive.nonzero()[:, 1].reshape(ids.shape)
        return torch.stack([self._locate(row, line) for row, line in zip(ids, kept, strict=True)])

    def _locate(self, ids: Tensor, line: Tensor) -> Tensor:
        """The positions in the dense line of what the slim network holds: all that exist, perhaps in another order."""
        alive = self.exist[line].nonzero().flatten()
        expected = line[alive]
        if torch.equal(ids, expected):
            return alive
        if len(ids) == len(expected) and len(expected.unique()) == len(expected):
            order = expected.argsort()
            found = order[torch.searchsorted(expected[order], ids.contiguous()).clamp(max=len(order) - 1)]
            if torch.equal(expected[found], ids):
                return alive[found]
        raise Deviation(f"{len(ids)} channels arrive, {len(expected)} others were expected")

    def scatter(self, own: Tensor, norm: str, before: tuple[str, Tensor] | None, width: int) -> Tensor:
        """The channels that arrive in the stream must be those that exist, each in its place."""
        promised = self.dense.scattered.get(self.position)
        if promised is None:
            raise Deviation(f"{norm} scatters its channels")
        stream = promised.stream[self.exist[promised.stream]]
        place_of = dict(zip(promised.own.tolist(), promised.places.tolist(), strict=True))
        wanted = torch.tensor([place_of[channel] for channel in own.tolist()])
        if len(stream) != width or not torch.equal(stream if before is None else stream[before[1]], wanted):
            raise Deviation(f"channels of {norm} are not in their places")
        return stream

    def untracked(self, key: tuple[int, int], n: int) -> Tensor:
        line = self.dense.made.get((self.dense_ref.get(key[0], -1), key[1]))
        if line is None or len(line) != n:
            raise Deviation("it reads channels that could be followed before")
        return line

    def parameter_ids(self, name: str, dim: int, n: int) -> Tensor:
        raise Deviation(f"{name} is used in another way")

    # what holds for the slim network because it holds for the dense one --------------------------------------------

    def balance(self, *sides: Tensor) -> None: ...

    def demand(self, why: str, ids: Tensor) -> None: ...

    def pin(self, why: str, ids: Tensor) -> None: ...

    def zeros(self, ids: Tensor) -> None: ...

    def whole(self, name: str) -> None: ...
