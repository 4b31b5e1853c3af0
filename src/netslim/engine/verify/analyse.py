"""The analysis of a model, and whether it still holds when the model is to be cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from netslim.engine.checks import check_demanded
from netslim.engine.cut import emit
from netslim.engine.decide import size_attributes
from netslim.engine.graph import build
from netslim.engine.graph.graph import Graph
from netslim.engine.ops import table
from netslim.engine.trace import meta_kernels
from netslim.engine.trace.recorder import record
from netslim.engine.trace.tape import Tape
from netslim.engine.verify.prove import Proved
from netslim.modules import Network, tensors_in

MODES = ((True, False), (False,), (True,))
NUMBERS = ("none", "made up", "its own")  # that the network runs with; the first that is enough


def analyse(network: Network, example_input: Any, scattering: Mapping[str, str] | None = None) -> Graph:
    """Run the model once and build its graph. It is a copy that runs, so the model is left as it was.

    scattering: BN layers whose channels need not be those of the streams that they write (streams.can_scatter).

    In both modes, where the model's own code asks which it is in; in one of them, where it cannot run in the other.
    Without numbers (meta_kernels.py) where that is enough, with some that are made up (made_up.py) where that is; if
    such a run fails, with its own, for the true reason.

    Raises:
        ValueError: the model does not run on the example input, or gives nothing back.
    """
    if example_input is None:
        raise ValueError("example_input is missing: give a batch as the model's forward takes it, e.g. one image")
    inputs = tensors_in(example_input)
    errors = {}
    for modes in MODES:
        for numbers in NUMBERS if meta_kernels.suffice(network, inputs) else NUMBERS[-1:]:
            kernels, made_up = None if numbers == "its own" else table.shortcut, numbers == "made up"
            look = emit.outline(network, emit.Changes(), kernels is not None)
            recorded, errors[modes] = record(look, example_input, modes=modes, kernels=kernels, made_up=made_up)
            if not errors[modes]:
                graph = graph_of(network, recorded, scattering or {})
                check_demanded(network, graph.demands)
                return graph
    error = errors[MODES[0] if network.model.training else MODES[1]]
    given = ", ".join(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)} on {t.device}" for t in inputs)
    raise ValueError(
        f"{type(network.model).__name__} does not run on the example input [{given}] (a tuple gives positional, a dict "
        f"keyword arguments): {error.partition(chr(10))[0]}"
    )


def graph_of(network: Network, recorded: Tape, scattering: Mapping[str, str]) -> Graph:
    """The graph of what was recorded of a network."""
    graph = build.build(network, recorded, scattering)
    size_attributes.release_lists(network, graph)
    return graph


class Proof:
    """That these channels can be cut out of this model, found for this input; kept so that it is not found twice."""

    def __init__(
        self,
        network: Network,
        keep: Mapping[str, Tensor],
        example_input: Any,
        graph: Graph,
        proved: Proved,
    ) -> None:
        self.on_meta, self.proved = graph.tape.on_meta, proved
        self.keep = {name: kept.clone() for name, kept in keep.items()}
        self.seen = _look(network, example_input, not self.on_meta)

    def holds(self, network: Network, keep: Mapping[str, Tensor], example_input: Any) -> bool:
        """Is this the same model with the same channels and input, and did nothing change that the proof rests on?

        Weights may have changed: it says nothing about them.
        """
        now = _look(network, example_input, not self.on_meta)
        return (
            len(now) == len(self.seen)
            and all(a is b or _same(a, b) for a, b in zip(now, self.seen, strict=True))
            and self.keep.keys() == keep.keys()
            and all(torch.equal(kept, keep[name].cpu()) for name, kept in self.keep.items())
        )


def _look(network: Network, example_input: Any, numbers: bool) -> list[Any]:
    """All attributes of all modules but the mode, containers entry by entry; the input; sizes and kinds of tensors.

    numbers: also whether any number in a tensor may have changed; that of indices in any case.
    """
    seen: list[Any] = []
    tensors: list[Any] = []
    for module in network.modules.values():
        seen.append(module)
        for name, value in vars(module).items():
            if isinstance(value, dict):
                seen += [*value, *value.values()] if value else []
            elif isinstance(value, (list, set)):
                seen += value
            elif name != "training":
                seen.append(value)
        tensors += [*module._parameters.values(), *module._buffers.values()]
    for leaf in [*tensors, *tree_leaves(example_input)]:
        seen.append(leaf)
        if isinstance(leaf, Tensor):
            seen += (leaf.shape, leaf.dtype, leaf.device)
            if numbers or not leaf.is_floating_point():
                seen.append(object() if leaf.is_inference() else leaf._version)  # no version: count it as changed
    return seen


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and isinstance(a, (int, float, str, torch.Size, torch.device)) and a == b
