"""The plan: what was cut, as plain numbers, so that a slim network can be saved and loaded safely.

A slim network carries its plan along (also through deepcopy and pickle). It is JSON: the indices kept of the dense
network's tensors, the BN selections, the groups of convolutions, and the dense network's signature. Slimming again
appends a pass, so a plan always leads from the dense network to the slim one. A saved file is the plan beside the
state_dict: no pickled code, `weights_only=True`.
"""

from __future__ import annotations

from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from netslim.engine.cut.clone import clone
from netslim.engine.cut.emit import Changes, emit
from netslim.modules import Network

Model = TypeVar("Model", bound=nn.Module)
ATTRIBUTE = "netslim_plan"
FORMAT = "netslim 1"


class Pass(TypedDict):
    """One use of ``slim``.

    keep: [tensor name, dimension, indices]; for grouped convolutions one list of indices per group.
    select: BN name -> indices into its input.
    scatter: BN name -> the module with the hook, indices into its output, and the width of that; missing in old files.
    groups: weight name -> groups of its convolution.
    sizes: [module name, attribute, value].
    """

    keep: list[tuple[str, int, Any]]
    select: dict[str, list[int]]
    scatter: dict[str, tuple[str, list[int], int]]
    groups: dict[str, int]
    sizes: list[tuple[str, str, Any]]


class Plan(TypedDict):
    """passes: in order. dense: the signature of the network that was cut first."""

    passes: list[Pass]
    dense: dict[str, str]


def signature(network: Network) -> dict[str, str]:
    """What tells one architecture from another: class of every module, shape of every parameter and buffer."""
    lines = {name or "the network": _module_line(m) for name, m in network.modules.items()}
    lines.update((name, f"shape {tuple(tensor.shape)}") for name, tensor in network.state.items())
    return lines


def _module_line(module: nn.Module) -> str:
    line = type(module).__name__
    if isinstance(module, nn.modules.conv._ConvNd):
        line += f" stride {module.stride} padding {module.padding} dilation {module.dilation} groups {module.groups}"
    return line


def make(network: Network, changes: Changes) -> Plan:
    """The plan of a network that is about to be cut: one more pass where it is slim already."""
    cut = sorted(changes.cut.items(), key=lambda item: item[0])
    now = Pass(
        keep=[(name, dim, positions.tolist()) for (name, dim), positions in cut],
        select={name: positions.tolist() for name, positions in changes.select.items()},
        scatter={name: (owner, places.tolist(), width) for name, (owner, places, width) in changes.scatter.items()},
        groups=changes.groups,
        sizes=[(module, attribute, size) for (module, attribute), size in changes.sizes.items()],
    )
    previous: Plan | None = getattr(network.model, ATTRIBUTE, None)
    if previous is None:
        return Plan(passes=[now], dense=signature(network))
    return Plan(passes=[*previous["passes"], now], dense=previous["dense"])


def follow(dense: Model, plan: Plan) -> Model:
    """A copy of the dense network, cut by the plan."""
    small: nn.Module = clone(dense, {})
    for step in plan["passes"]:
        changes = Changes(
            cut={(name, dim): _indices(kept) for name, dim, kept in step["keep"]},
            select={name: _indices(positions) for name, positions in step["select"].items()},
            scatter={name: (owner, _indices(at), n) for name, (owner, at, n) in step.get("scatter", {}).items()},
            groups=step["groups"],
            sizes={(module, attribute): size for module, attribute, size in step["sizes"]},
        )
        small = emit(Network(small), changes)
    setattr(small, ATTRIBUTE, plan)
    return small  # type: ignore[return-value]


def _indices(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long)


def check_architecture(path: str, saved: dict[str, str], given: dict[str, str]) -> None:
    for name in [*saved, *given]:
        ours, theirs = saved.get(name, "missing"), given.get(name, "missing")
        if ours != theirs:
            raise ValueError(
                f"{path} is of another architecture: {name} is {ours} in the file, {theirs} in dense_model"
            )
