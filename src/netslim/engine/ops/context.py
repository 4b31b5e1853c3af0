"""What a rule may ask of the network, and what it says of it: the side of the table that is turned to rules.

A rule is a function of a Context and a Node. It reads the ids of the node's inputs, says on which of them its outputs
depend, and returns the ids of its outputs. Two things stand behind this Protocol: ``graph/build.py``, which writes down
what the rules say of the dense network, and ``verify/replay.py``, which compares it with what they say of the slim one.
So every rule is written once and used twice.

``per_channel``, ``all_to_all``, ``axis`` and the like are what a rule says. The functions below the class are what it
asks; they need nothing but the Protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from netslim.engine.ops.channel_ids import Weight, along, broadcast_ids
from netslim.engine.trace.tape import Node, Ref, Tape

Sym = Tensor | Weight | None  # the shadow of a tensor: ids of its shape, an untouched parameter, or nothing known
Syms = Sequence[Sym]
Follow = Callable[["Context", Node], Syms]  # outputs that a rule does not mention are unknown


class Context(Protocol):
    """tape: shapes, dtypes and numbers of all tensors. sym: their shadows so far. norms: name of a γ -> its BN layer.

    scattering: BN layers that may write to some channels of a stream only -> the layer around which it is done.
    selected: output of a BN layer's own selection -> its input. sources: BN layer -> ids of what it selects from.
    groups: weight of a grouped convolution -> ids of its inputs, (groups, columns).
    """

    tape: Tape
    sym: dict[int, Sym]
    norms: dict[str, str]
    scattering: dict[str, str]
    selected: dict[int, int]
    sources: dict[str, Tensor]
    groups: dict[str, Tensor]

    def per_channel(self, ins: list[Tensor], zero: str, tied: list[bool] | None = None, norm: str = "") -> Tensor:
        """New ids (n,); the i-th is computed from the i-th of every line (n,) in `ins` alone. See flows.PerChannel."""

    def all_to_all(self, ins: Tensor, rows: int, bias: bool) -> Tensor:
        """New ids (groups · rows,), all of a group computed from all of its ins (groups, columns)."""

    def axis(self, name: str, dim: int, ids: Tensor) -> None:
        """These ids lie along that dimension of a parameter or buffer, which is cut with them."""

    def parameter_ids(self, name: str, dim: int, n: int) -> Tensor:
        """New ids (n,) along a dimension of a parameter that enters the arithmetic as a value."""

    def untracked(self, key: tuple[int, int], n: int) -> Tensor:
        """n ids, all kept, for (a tensor, a dimension) that could not be followed."""

    def scatter(self, own: Tensor, norm: str, before: tuple[str, Tensor] | None, width: int) -> Tensor:
        """New ids (width,) of a stream that a BN layer writes its own channels to. before: what it has."""

    def balance(self, *sides: Tensor) -> None:
        """Every row of these matrices must keep equally many channels."""

    def demand(self, why: str, ids: Tensor) -> None:
        """These must be there with their right value."""

    def pin(self, why: str, ids: Tensor) -> None:
        """These must be there, whatever their value."""

    def zeros(self, ids: Tensor) -> None:
        """These are zero for every input."""

    def whole(self, name: str) -> None:
        """This parameter is used in a way that no rule describes: it is not cut."""


def known(g: Context, ref: int) -> Tensor | None:
    """The ids of a tensor, or None. A parameter with one dimension of length above 1 gets ids along it."""
    sym = g.sym.get(ref)
    if not isinstance(sym, Weight):
        return sym
    long = [d for d, size in enumerate(g.tape.shape[ref]) if size > 1]
    if len(long) == 1:
        return adopt(g, ref, long[0])
    g.whole(sym.name)
    return None


def adopt(g: Context, ref: int, dim: int) -> Tensor:
    """Give a parameter new ids along one of its dimensions, as the operation sees them."""
    weight, shape = g.sym[ref], g.tape.shape[ref]
    assert isinstance(weight, Weight)
    own = 1 - dim if weight.transposed else dim
    ids = broadcast_ids(g.parameter_ids(weight.name, own, shape[dim]), shape, dim)
    g.sym[ref] = ids
    return ids


def line(g: Context, node: Node, ref: int, dim: int) -> Tensor:
    """The ids (C,) of a tensor along `dim`; where they are unknown, new ones that are all kept."""
    ids = known(g, ref)
    found = None if ids is None else along(ids, dim)
    if found is not None:
        return found
    if ids is not None:
        g.demand(node.name, ids)
    shape = g.tape.shape[ref]
    return g.untracked((ref, dim % len(shape)), shape[dim])


def weight_name(g: Context, ref: Any, transposed: bool = False) -> str:
    """The name of an untouched parameter or buffer, or ""."""
    sym = g.sym.get(ref.index) if isinstance(ref, Ref) else None
    return sym.name if isinstance(sym, Weight) and sym.transposed == transposed else ""


def padding(g: Context, ref: int, side: int, n: int) -> Tensor:
    """n ids for the zeros that are added to a tensor, before its channels (side 0) or after them (1)."""
    ids = g.untracked((ref, side - 2), n)  # -2 and -1 are no dimensions
    g.zeros(ids)
    return ids
