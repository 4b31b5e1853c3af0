"""The convolutions and linear layers of a slim network that is not written yet: what its latency is found by.

Of a network that is run in several modes, the first run counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn

from netslim.engine.graph.flows import AllToAll, Flow
from netslim.engine.graph.graph import Graph
from netslim.engine.trace.tape import Node, Tape


@dataclass(frozen=True)
class LayerShape:
    """A convolution or a linear layer as it runs on the example input: all that its latency depends on.

    rows: images of the batch, of a linear layer all vectors that it reads. inputs, outputs: channels or features.
    size: of the input map, such as (32, 32); () of a linear layer, as the next five. kernel, stride, padding, dilation,
    added: a number per dimension of the map; added: rows and columns that a transposed convolution adds at the end.
    """

    rows: int
    inputs: int
    outputs: int
    size: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    added: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False


Times = Callable[[Sequence[LayerShape]], float]  # layers of a network -> milliseconds that it takes


class LatencyModel(Protocol):
    """What says how long a network takes that is not written yet; ``netslim.LatencyTable`` measures it."""

    def __call__(self, model: nn.Module, example_input: Any, layers: Sequence[LayerShape]) -> Times:
        """Look at the dense network, whose layers these are; what is returned is asked about layers of other widths."""
        ...


def layers_left(graph: Graph, exist: Tensor) -> list[LayerShape]:
    """The layers in the order in which they run, as wide as they are if only these ids exist."""
    nodes = enumerate(graph.tape.first_run)
    found = ((shape_of(graph.tape, node), graph.flow_at.get(position)) for position, node in nodes)
    return [layer if flow is None else _cut(layer, flow, exist) for layer, flow in found if layer is not None]


def shape_of(tape: Tape, node: Node) -> LayerShape | None:
    """The layer that an operation is, as it was recorded; None where it is none."""
    if node.name == "convolution":
        return _convolution(tape, node)
    if node.name in ("addmm", "mm", "linear"):
        x, y = tape.shape[node.reads[node.name == "addmm"]], tape.shape[node.outs[0]]
        return LayerShape(x[:-1].numel(), x[-1], y[-1])
    return None


def _convolution(tape: Tape, node: Node) -> LayerShape:
    x, weight = (tape.shape[ref] for ref in node.reads[:2])
    stride, padding, dilation, transposed, added, groups = node.args[3:9]
    return LayerShape(
        rows=x[0],
        inputs=x[1],
        outputs=tape.shape[node.outs[0]][1],
        size=tuple(x[2:]),
        kernel=tuple(weight[2:]),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        added=tuple(added),
        groups=groups,
        transposed=transposed,
    )


def _cut(layer: LayerShape, flow: Flow, exist: Tensor) -> LayerShape:
    """A group is gone where it has no channel left."""
    if isinstance(flow, AllToAll):
        out = exist[flow.out]
        return replace(layer, inputs=int(exist[flow.ins].sum()), outputs=int(out.sum()), groups=int(out.any(1).sum()))
    outputs = int(exist[flow.whole(flow.out)].sum())  # depthwise: equally many for each input
    groups = outputs * layer.groups // layer.outputs
    return replace(layer, inputs=groups, outputs=outputs, groups=groups)
