"""The plan: what was cut, as plain numbers, so that a slim network can be saved and loaded safely.

A slim network carries its plan along (also through deepcopy and pickle). It is JSON: the indices kept of the dense
network's tensors, the BN selections, the groups of convolutions, and what the dense and the slim network are. Slimming
again appends a pass, so a plan always leads from the dense network to the slim one. A saved file is the plan beside the
state_dict: no pickled code, `weights_only=True`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from netslim.engine.cut.clone import clone
from netslim.engine.cut.emit import Changes, emit
from netslim.engine.cut.replaced import Layer, written
from netslim.engine.cut.signature import (
    ROOT,
    SETTING,
    description,
    differences,
    outermost,
    settings,
    signature,
    within,
)
from netslim.modules import Network

Model = TypeVar("Model", bound=nn.Module)
ATTRIBUTE = "netslim_plan"
FORMAT = "netslim 1"


class Pass(msgspec.Struct):
    """One use of ``slim``.

    keep: [tensor name, dimension, indices]; for grouped convolutions one list of indices per group.
    select: BN name -> indices into its input.
    groups: weight name -> groups of its convolution.
    sizes: [module name, attribute, value].
    scatter: BN name -> the layer around which it is done, indices into the stream, and its width; missing in old files.
    """

    keep: list[tuple[str, int, list[int | list[int]]]]
    select: dict[str, list[int]]
    groups: dict[str, int]
    sizes: list[tuple[str, str, int | list[int]]]
    scatter: dict[str, tuple[str, list[int], int]] = {}


class Plan(msgspec.Struct):
    """What leads from a dense network to a slim one. Old files have the first two alone.

    passes: in order. dense: the signature of the network that was cut first; settings: what it computed with. slim: the
    description of what came out. foreign: modules that are none of the dense network's, as they were put in between two
    passes. Only in files: replaced: what makes the modules that are none of the dense network's; removed: modules that
    the slim network is without.
    """

    passes: list[Pass]
    dense: dict[str, str]
    settings: dict[str, str] | None = None
    slim: dict[str, str] | None = None
    foreign: list[str] = []
    replaced: dict[str, Layer] = {}
    removed: list[str] = []

    @property
    def sizes(self) -> list[tuple[str, str, Any]]:
        return [size for step in self.passes for size in step.sizes]

    @property
    def apart(self) -> list[str]:
        """Modules of which neither the dense network nor the passes tell."""
        return [*self.replaced, *self.removed]


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
    carried = getattr(network.model, ATTRIBUTE, None)
    if carried is None:
        plan = Plan([now], signature(network), settings(network))
    else:
        plan = msgspec.convert(carried, Plan)
        plan.foreign = _foreign(network, plan)
        plan.passes = [*plan.passes, now]
    plan.slim = None
    return plan


def _plain(plan: Plan) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(plan)
    return {key: value for key, value in plain.items() if key not in ("replaced", "removed")}


def carry(small: nn.Module, plan: Plan) -> None:
    """Let a slim network carry the plan that led to it, with what it is now, unless the plan says that already."""
    if plan.slim is None:
        plan.slim = description(Network(small), plan.sizes)
    setattr(small, ATTRIBUTE, _plain(plan))


def _passes(model: nn.Module) -> list[Pass]:
    carried = getattr(model, ATTRIBUTE, None)
    return msgspec.convert(carried, Plan).passes if carried else []


def rows_of(small: nn.Module, dense: nn.Module | None = None) -> dict[str, Tensor]:
    """Tensor name -> which rows of the dense network's a slim one has, in its order; of those that lost some.

    dense: the network that it was cut from, which may be slim itself; default the one that was cut first.
    """
    rows: dict[str, Tensor] = {}
    for step in _passes(small)[len(_passes(dense)) if dense else 0 :]:
        for name, dim, kept in step.keep:
            if dim == 0:
                rows[name] = rows[name][_indices(kept)] if name in rows else _indices(kept)
    return rows


def check_pair(small: nn.Module, dense: Network) -> None:
    """Raise ValueError where one is not slim, or the other is not the network that it was cut from."""
    carried = getattr(small, ATTRIBUTE, None)
    if carried is None:
        raise ValueError(f"{type(small).__name__} is not a result of netslim.slim: nothing was removed from it")
    before = _passes(dense.model)
    if before and _passes(small)[: len(before)] == before:
        return
    for name in differences(msgspec.convert(carried, Plan).dense, signature(dense)):
        kind = type(dense.model).__name__
        raise ValueError(f"{kind} is not the dense network that was slimmed: they differ in {name}; give that one")


def _foreign(network: Network, plan: Plan) -> list[str]:
    """The outermost modules of a slim network that it did not have, or had in another form, when it was slimmed."""
    if plan.slim is None:
        return plan.foreign
    now = description(network, plan.sizes)
    modules = {name for lines in (plan.slim, now) for name in lines if not lines[name].startswith(("shape", "size"))}
    changed = (name.removeprefix(SETTING) for name in differences(plan.slim, now))
    return outermost([*plan.foreign, *(name if name in modules else name.rpartition(".")[0] for name in changed)])


def of_file(network: Network) -> str:
    """A slim network's plan as it is saved, with what was put into it, or taken out, since it was slimmed.

    Raises:
        ValueError: something that cannot be made again without code.
    """
    plan = msgspec.convert(getattr(network.model, ATTRIBUTE), Plan)
    for name in _foreign(network, plan):
        if name not in network.modules:
            plan.removed.append(name)
            continue
        layer = None if name in ("", ROOT) else written(network.modules[name])
        if layer is None:
            kind = type(network.modules["" if name == ROOT else name]).__name__
            raise ValueError(
                f"{name or ROOT} ({kind}) was changed after slimming in a way that a file without code cannot hold: "
                "replace it by plain layers of torch.nn, or save its state_dict yourself"
            )
        plan.replaced[name] = layer
    return msgspec.json.encode(plan).decode()


def read(path: str, text: Any) -> Plan:
    """The plan in a file.

    Raises:
        ValueError: it is none; the message names the place.
    """
    try:
        return msgspec.json.decode(text, type=Plan)
    except (msgspec.MsgspecError, RecursionError, TypeError) as error:
        raise ValueError(f"{path} holds no plan of a slim network ({error}); save the network again") from None


def follow(dense: Model, plan: Plan) -> Model:
    """A copy of the dense network, cut by the plan, without the modules that are to be removed."""
    small: nn.Module = clone(dense, {})
    modules = Network(small).modules
    for name in plan.removed:
        parent, _, key = name.rpartition(".")
        modules[parent]._modules.pop(key, None)
    for step in plan.passes:
        small = emit(Network(small), changes_of(step, plan.apart))
    return small  # type: ignore[return-value]


def changes_of(step: Pass, apart: Sequence[str] = ()) -> Changes:
    """What a pass did, but to the modules of which it does not tell (``Plan.apart``)."""

    def told(name: str) -> bool:
        return not any(within(name, module) for module in apart)

    return Changes(
        cut={(name, dim): _indices(kept) for name, dim, kept in step.keep if told(name)},
        select={name: _indices(positions) for name, positions in step.select.items() if told(name)},
        scatter={name: (owner, _indices(at), n) for name, (owner, at, n) in step.scatter.items() if told(name)},
        groups={name: groups for name, groups in step.groups.items() if told(name)},
        sizes={(module, attribute): size for module, attribute, size in step.sizes if told(module)},
    )


def _indices(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long)
