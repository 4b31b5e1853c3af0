"""Replay: the proof. The slim network is recorded too, and the same rules run over its tape.

This time no new ids are made: every operation must be fed exactly the channels that its twin on the dense network's
tape promised to it, in an order that its parameters follow. Three things can come out:

    nothing       each tensor of the slim network holds the channels it should: done
    reorder       a tensor holds the right channels in another order (after a channel shuffle): the parameters that
    read it
                  are cut anew, in that order
    deviation     a size is written in the code instead of derived from a shape, as in x.view(-1, 512) or x[:, :32]; the
                  channels that this operation touches are frozen, and the engine solves again

So what leaves the engine has been checked, operation by operation, for the network at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from netslim.slim.emit import Cut
from netslim.slim.graph import Each, Graph
from netslim.slim.ids import Weight, shrink
from netslim.slim.tape import Tape, is_own_selection, unread_aliases


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

    def __init__(self, dense: Graph, exist: Tensor, cut: Cut, tape: Tape) -> None:
        super().__init__(tape, dense.norms)
        self.dense, self.exist, self.cut, self.finding = dense, exist, cut, Finding()
        names = {name: ref for ref, name in dense.tape.state.items()}
        self.twin = {ref: names[name] for ref, name in tape.state.items() if name in names}  # slim -> dense tensors
        self.twin.update(zip(tape.inputs, dense.tape.inputs, strict=True))
        for ref, name in tape.state.items():
            self.sym[ref] = self._state(name, names.get(name))

    def _state(self, name: str, dense_ref: int | None) -> Tensor | Weight | None:
        """What a parameter or buffer holds: the ids it had when the dense network was analysed, less those cut."""
        sym = None if dense_ref is None else self.dense.sym.get(dense_ref)
        if not isinstance(sym, Tensor):
            return sym
        for dim in range(sym.dim()):
            if (name, dim) in self.cut:
                sym = sym.index_select(dim, self.cut[name, dim])
        return sym

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
            return self.mix(ins[0].reshape(-1, 1), 1, False)
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

    def mix(self, ins: Tensor, rows: int, bias: bool) -> Tensor:
        flow = self.dense.flows.get(self.position)
        if flow is None:
            raise Deviation("it computes something else")
        if isinstance(flow, Each):  # a depthwise convolution of which one channel is left
            return self.each([ins.flatten().repeat_interleave(rows)], "never")
        return flow.out[self.exist[flow.out]]

    def balance(self, rows: Tensor) -> None:
        pass

    def constant_zeros(self, ref: int, side: int, n: int) -> Tensor:
        return self.untracked((ref, side), n)


def replay(dense: Graph, exist: Tensor, cut: Cut, tape: Tape, error: str) -> Finding:
    """Compare the slim network's tape with the dense graph. error: why the recording ended early, or ""."""
    view = Replay(dense, exist, cut, tape)
    nodes = dense.tape.nodes
    skip = unread_aliases(dense.tape)
    at = 0
    try:
        for node in tape.nodes:
            selection = is_own_selection(tape, node)
            while at < len(nodes) and is_own_selection(dense.tape, nodes[at]) and not selection:
                at += 1
            view.position = at
            if at >= len(nodes):
                raise Deviation("the slim network does more than the dense one")
            if not selection and node.name != nodes[at].name:
                raise Deviation(f"{node.name} instead of {nodes[at].name}")
            if not selection:
                view.twin.update(zip(node.outs, nodes[at].outs, strict=False))
            if at not in skip:
                view.step(node)
            at += not selection or is_own_selection(dense.tape, nodes[at])
        view.position = min(at, len(nodes) - 1)
        if error or at < len(nodes):
            raise Deviation(error or "the slim network does less than the dense one")
        _compare_outputs(dense, view)
    except Deviation as deviation:
        return Finding(view.position, f"{nodes[view.position].name}: {deviation}")
    except (RuntimeError, IndexError) as failure:  # the ids cannot be moved as the data would be
        return Finding(view.position, f"{nodes[view.position].name}: {failure}")
    return view.finding


def _compare_outputs(dense: Graph, view: Replay) -> None:
    ours, theirs = view.tape.outputs, dense.tape.outputs
    if [view.tape.shape[r] for r in ours] != [dense.tape.shape[r] for r in theirs]:
        raise Deviation("the outputs have other shapes")
    for a, b in zip(ours, theirs, strict=True):
        mine, promised = view.sym.get(a), dense.sym.get(b)
        if isinstance(promised, Tensor) and not (isinstance(mine, Tensor) and torch.equal(mine, promised)):
            raise Deviation("the outputs hold other channels")


def touched(dense: Graph, position: int) -> list[Tensor]:
    """The ids that one operation of the dense network reads, and those that it makes."""
    node = dense.tape.nodes[position]
    groups = [[dense.sym.get(ref) for ref in refs] for refs in (node.reads, node.outs)]
    nothing = torch.empty(0, dtype=torch.long)
    return [torch.cat([nothing, *(shrink(s).unique() for s in syms if isinstance(s, Tensor))]) for syms in groups]
