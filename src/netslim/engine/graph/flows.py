"""How new channel ids depend on old ones: what the rules leave behind, and all that the sweeps over a graph read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(eq=False)
class PerChannel:
    """out[i] is computed from ins[0][i], ins[1][i], ... alone. All lines have shape (n,).

    position: of the operation on the tape.
    zero: when out[i] is zero whatever the network's input: "all" ins are, "any" of them is, the "first" is, or "never".
    tied: for each input whether it must have the same channels as out (False: broadcast, or selected by a BN).
    norm: the BN layer's name; its out[i] is zero exactly where γ[i] and β[i] were removed.
    places: where the line repeats its channels, as that of a flattened map: which i each of its places is.
    """

    position: int
    out: Tensor
    ins: list[Tensor]
    zero: str
    tied: list[bool]
    norm: str = ""
    places: Tensor | None = None

    def whole(self, line: Tensor) -> Tensor:
        """One of the lines, with all its places."""
        return line if self.places is None else line[self.places]

    @property
    def free(self) -> list[Tensor]:
        """The lines that are read without being tied."""
        return [line for line, tied in zip(self.ins, self.tied, strict=True) if not tied]


@dataclass(eq=False)
class AllToAll:
    """Every channel of out[g] is computed from all channels of ins[g]. Shapes (groups, rows), (groups, columns)."""

    position: int
    out: Tensor
    ins: Tensor
    bias: bool
    norm = ""  # of no BN layer

    @property
    def free(self) -> list[Tensor]:
        return [self.ins.flatten()]


Flow = PerChannel | AllToAll


@dataclass(eq=False)
class Balance:
    """Every row keeps equally many channels. sides: matrices with one row per group; a group that is empty on all
    sides may be dropped as a whole where `droppable`."""

    sides: list[Tensor]
    droppable: bool


@dataclass(eq=False)
class Scattered:
    """One call of a BN layer that writes only some channels of a stream: its own go to `places`, the others are 0.

    own, places: shape (k,); stream: all of it, (n,). owner: the layer around which it is done. before: already in
    the dense network.
    """

    norm: str
    own: Tensor
    places: Tensor
    stream: Tensor
    owner: str
    before: bool
