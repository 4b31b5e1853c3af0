"""Replay: the proof. The slim network is recorded too, and the same rules run over its tape.

This time no new ids are made: every operation must be fed exactly the channels that its twin on the dense network's
tape promised to it, in an order that its parameters follow. Three things can come out:

    nothing       each tensor of the slim network holds the channels it should: done
    reorder       a tensor holds the right channels in another order (after a channel shuffle): the parameters that
                  read it are cut anew, in that order
    deviation     a size is written in the code instead of derived from a shape, as in x.view(-1, 512) or x[:, :32]; the
                  channels that this operation touches are frozen, and the engine solves again

So what leaves the engine has been checked, operation by operation, for the network at hand. Most operations need no
rule for that: one that reads the twins of what the dense one reads, whose inputs hold what was promised in the dense
order, and which takes its sizes from them, keeps the promise for its outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from netslim.engine.cut.emit import Cut
from netslim.engine.graph.graph import Each, Graph, Mix
from netslim.engine.ops import arithmetic as c
from netslim.engine.ops import layout, reductions, table
from netslim.engine.ops.channel_ids import Weight, shrink
from netslim.engine.trace.tape import Node, Ref, Tape, leaves

SAME_NUMBERS = {
    *(c.pointwise, c.follows_first, c.choice, c.masked_fill, c.batch_norm),
    *(reductions.per_channel, reductions.reduction, reductions.softmax),
}
SIZES_FROM_INPUTS = SAME_NUMBERS | {
    *(c.barrier, c.convolution, c.filled, c.linear, c.untouched),
    *(layout.concatenate, layout.transpose),
}


class Deviation(Exception):
    """The slim network does something else than the dense one at the current position of the dense tape."""


@dataclass
class Finding:
    """position: where the slim network deviates, on the dense tape (None: nowhere). The rest: orders to cut anew in."""

    position: int | None = None
    reason: str = ""
    order: Cut = field(default_factory=dict)
    layouts: dict[str, Tensor] = field(default_factory=dict)


class Replay(Graph):
    """The rules' view of the slim network: looks up in the dense graph what the dense graph made up."""

    def __init__(self, dense: Graph, exist: Tensor, cut: Cut, reordered: set[str], tape: Tape) -> None:
        """reordered: parameters that are not cut in the dense order."""
        super().__init__(tape, dense.norms, dense.scattering)
        self.dense, self.exist, self.cut, self.finding = dense, exist, cut, Finding()
        names = {name: ref for ref, name in dense.tape.state.items()}
        self.twin = {ref: names[name] for ref, name in tape.state.items() if name in names}  # slim -> dense tensors
        self.twin.update(zip(tape.inputs, dense.tape.inputs, strict=True))
        for ref, name in tape.state.items():
            self.sym[ref] = self._state(name, names.get(name))
        self.kept = set(self.twin) - {ref for ref, name in tape.state.items() if name in reordered}

    def _state(self, name: str, dense_ref: int | None) -> Tensor | Weight | None:
        """What a parameter or buffer holds: the ids it had when the dense network was analysed, less those cut."""
        sym = None if dense_ref is None else self.dense.sym.get(dense_ref)
        if not isinstance(sym, Tensor):
            return sym
        for dim in range(sym.dim()):
            if (name, dim) in self.cut:
                sym = sym.index_select(dim, self.cut[name, dim])
        return sym

    def compare(self, node: Node, twin: Node) -> None:
        """One operation of the slim network beside that of the dense one."""
        rule = table.rule_for(node)
        if rule in SAME_NUMBERS:
            mine, theirs = _numbers(self.tape, node), _numbers(self.dense.tape, twin)
            if mine != theirs:
                raise Deviation(f"it computes with {mine} instead of {theirs}")
        if rule is c.convolution and node.args[3:8] != twin.args[3:8]:  # an attribute that is no size was changed
            raise Deviation("it has another stride, padding or dilation")
        constants = self.tape.numbers.keys() & node.reads
        self.twin.update((a, b) for a, b in zip(node.reads, twin.reads, strict=False) if a in constants)
        self.kept |= constants
        if len(node.reads) != len(twin.reads) or any(map(self._another, node.reads, twin.reads)):
            raise Deviation("it reads other tensors")
        self.twin.update(zip(node.outs, twin.outs, strict=False))
        reads_twins = self.kept.issuperset(node.reads) and [self.twin[ref] for ref in node.reads] == twin.reads
        plain = rule in SIZES_FROM_INPUTS and self._plain(self.dense.flows.get(self.position))
        certain = [ref for ref in node.outs if self._certain(ref, rule is layout.concatenate)]
        if reads_twins and plain and (certain or rule is not layout.concatenate):
            self.kept.update(certain)
        else:
            self.step(node)

    def step(self, node: Node) -> None:
        for ref in self.kept.intersection(node.reads):
            if ref not in self.sym:
                self.sym[ref] = self._promise(ref)
        super().step(node)
        if node.name == "slice" and not self._same_channels(node.outs[0]):
            raise Deviation("it cuts off other channels")
        self.kept.update(ref for ref in node.outs if self._keeps(ref))

    def _another(self, mine: int, theirs: int) -> bool:
        """Is this another tensor than the twin, where nothing else is known of it?"""
        return self.dense.sym.get(theirs) is None and self.twin.get(mine, theirs) != theirs

    def _plain(self, flow: Each | Mix | None) -> bool:
        """Neither a BN layer that selects or scatters nor channels in groups."""
        if isinstance(flow, Each):
            return not flow.norm or (flow.tied[0] and flow.norm not in self.dense.scattered)
        return flow is None or len(flow.ins) == 1

    def _certain(self, ref: int, joined: bool) -> bool:
        """Does an output that should hold what was promised do so? Not certain of channels along two dimensions."""
        if self.dense.sym.get(self.twin[ref]) is None:
            return self.tape.shape[ref] == self.dense.tape.shape[self.twin[ref]]
        return not joined or self._promise(ref) is not None

    def _promise(self, ref: int) -> Tensor | Weight | None:
        """What a tensor should hold: its twin's ids that exist, where these lie along one dimension."""
        sym = self.dense.sym.get(self.twin[ref])
        if not isinstance(sym, Tensor):
            return sym
        small = shrink(sym)
        if sum(n > 1 for n in small.shape) > 1 or not small.numel():
            return None
        line = small.flatten()
        line = line[self.exist[line]]
        return line.reshape([-1 if n > 1 else 1 for n in small.shape]).expand(self.tape.shape[ref])

    def _same_channels(self, ref: int) -> bool:
        """Does a tensor hold what was promised, in whatever order? Yes, where nothing is known."""
        mine, promised = self.sym.get(ref), self._promise(ref) if ref in self.twin else None
        if not (isinstance(mine, Tensor) and isinstance(promised, Tensor)):
            return True
        return torch.equal(shrink(mine).unique(), shrink(promised).unique())

    def _keeps(self, ref: int) -> bool:
        mine, promised = self.sym.get(ref), self._promise(ref) if ref in self.twin else None
        if isinstance(mine, Tensor) and isinstance(promised, Tensor):
            return torch.equal(shrink(mine), shrink(promised))
        return isinstance(mine, Weight) and mine == promised

    # what rules call -----------------------------------------------------------------------------------------------

    def untracked(self, key: tuple[int, int], n: int) -> Tensor:
        line = self.dense.made.get((self.twin.get(key[0], -1), key[1]))
        if line is None or len(line) != n:
            raise Deviation("it reads channels that could be followed before")
        return line

    def parameter_ids(self, name: str, dim: int, n: int) -> Tensor:
        raise Deviation(f"{name} is used in another way")

    def axis(self, name: str, dim: int, ids: Tensor) -> None:
        """The channels that arrive must be those that the parameter was cut to."""
        promised = self.dense.used.get((self.position, name, dim))
        if promised is None:
            return
        if promised.dim() == 2:
            positions = self._rows(promised, ids.reshape(-1, ids.shape[-1]))
        else:
            positions = self.locate(ids.flatten(), promised)
        now = self.cut.get((name, dim))
        if now is None:
            now = torch.arange(promised.shape[-1]).expand(promised.shape)
        if now.shape != positions.shape:
            raise Deviation(f"{name} was cut to {tuple(now.shape)} channels, {tuple(positions.shape)} arrive")
        if torch.equal(now, positions):
            return
        if not torch.equal(self.finding.order.setdefault((name, dim), positions), positions):
            raise Deviation(f"{name} is used with two orders of channels")

    def _rows(self, promised: Tensor, ids: Tensor) -> Tensor:
        kept = promised[self.exist[promised].any(1)]
        if len(kept) != len(ids):
            raise Deviation(f"{len(ids)} groups instead of {len(kept)}")
        alive = self.exist[kept]
        if torch.equal(kept[alive], ids.flatten()) and bool((alive.sum(1) == ids.shape[1]).all()):  # most often
            return alive.nonzero()[:, 1].reshape(ids.shape)
        return torch.stack([self.locate(row, line) for row, line in zip(ids, kept, strict=True)])

    def locate(self, ids: Tensor, line: Tensor) -> Tensor:
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

    def each(self, ins: list[Tensor], zero: str, tied: list[bool] | None = None, norm: str = "") -> Tensor:
        flow = self.dense.flows.get(self.position)
        if flow is None or (isinstance(flow, Each) and len(flow.ins) != len(ins)):
            raise Deviation("it computes something else")
        if not isinstance(flow, Each):  # a grouped convolution of which one channel per group is left
            groups = int(self.exist[flow.ins].any(1).sum())
            return self.mix(ins[0].reshape(groups, -1)[:, :1], 1, False)
        if flow.norm and not flow.tied[0]:
            return self._selecting_norm(flow, ins[0])
        lead = flow.tied.index(True) if any(flow.tied) else 0
        positions = self.locate(ins[lead], flow.ins[lead])
        for line, promised in zip(ins, flow.ins, strict=True):
            if not torch.equal(line, promised[positions]):
                raise Deviation("its inputs hold different channels")
        return flow.out[positions]

    def _selecting_norm(self, flow: Each, line: Tensor) -> Tensor:
        alive = self.exist[flow.out]
        wanted = flow.ins[0][alive]
        if len(line) != len(wanted):
            raise Deviation(f"{len(line)} channels arrive at {flow.norm}, which keeps {len(wanted)}")
        wrong = (line != wanted) & self.exist[wanted]
        if wrong.any():
            if not torch.isin(wanted[wrong], self.sources[flow.norm]).all():
                raise Deviation(f"channels that {flow.norm} selects are not in its input")
            self.finding.layouts[flow.norm] = self.sources[flow.norm]
        return flow.out[alive]

    def scatter(self, own: Tensor, norm: str, before: tuple[str, Tensor] | None, width: int) -> Tensor:
        """The channels that arrive in the stream must be those that exist, each in its place."""
        promised = self.dense.scattered.get(norm)
        if promised is None:
            raise Deviation(f"{norm} scatters its channels")
        stream = promised.stream[self.exist[promised.stream]]
        place_of = dict(zip(promised.own.tolist(), promised.places.tolist(), strict=True))
        wanted = torch.tensor([place_of[channel] for channel in own.tolist()])
        if len(stream) != width or not torch.equal(stream if before is None else stream[before[1]], wanted):
            raise Deviation(f"channels of {norm} are not in their places")
        return stream

    def mix(self, ins: Tensor, rows: int, bias: bool) -> Tensor:
        flow = self.dense.flows.get(self.position)
        if flow is None:
            raise Deviation("it computes something else")
        if isinstance(flow, Each):  # a depthwise convolution of which one channel is left
            return self.each([ins.flatten().repeat_interleave(rows)], "never")
        if len(flow.ins) > 1:
            self._rows(flow.ins, ins)  # each group its own channels
        return flow.out[self.exist[flow.out]]

    def balance(self, *sides: Tensor) -> None:
        pass

    def constant_zeros(self, ref: int, side: int, n: int) -> Tensor:
        return self.untracked((ref, side - 2), n)


def _numbers(tape: Tape, node: Node) -> list[float]:
    """All numbers among an operation's arguments."""
    values = leaves([node.args, *node.kwargs.values()])
    numbers = [tape.numbers.get(value.index) if isinstance(value, Ref) else value for value in values]
    return [number for number in numbers if isinstance(number, (int, float))]
