"""Does a plan fit a dense network? Asked of a plan from a file before anything is built, because files can be edited.

The shapes of the network's tensors are followed from pass to pass, without the tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from netslim.engine.cut.plan import Pass, Plan
from netslim.engine.cut.signature import SETTING, differences, settings, signature, within
from netslim.modules import Network


def check(path: str, plan: Plan, dense: Network) -> None:
    """Raise where the plan of a file is of another network, or cannot have come from slimming this one.

    Raises:
        ValueError: with the file's name and what does not fit first.
    """
    for ours, theirs in ((plan.dense, signature(dense)), (plan.settings, settings(dense))):
        if ours is not None:
            for name in differences(ours, theirs, plan.apart):
                raise ValueError(
                    f"{path} is of another architecture: {name} is {_line(name, ours)} in the file, "
                    f"{_line(name, theirs)} in dense_model"
                )
    try:
        shapes = _Shapes(dense, plan.apart)
        for name in plan.apart:
            _require(name.rpartition(".")[0] in dense.modules and name != "", f"{name!r} lies in no module")
        for step in plan.passes:
            shapes.follow(step)
    except _Misfit as misfit:
        raise ValueError(f"{path} holds a plan that cannot be followed: {misfit}; save the network again") from None


def _line(name: str, lines: dict[str, str]) -> str:
    return lines.get(name) or ("default" if name.startswith(SETTING) else "missing")


class _Misfit(Exception):
    """What does not fit."""


def _require(fits: bool, otherwise: str) -> None:
    if not fits:
        raise _Misfit(otherwise)


@dataclass
class _Shapes:
    """The shapes of a network's tensors and the groups of its convolutions while passes are followed."""

    network: Network
    apart: Sequence[str]

    def __post_init__(self) -> None:
        self.shape = {name: list(tensor.shape) for name, tensor in self.network.state.items()}
        self.dense = {name: list(shape) for name, shape in self.shape.items()}
        self.groups = {
            f"{name}.weight" if name else "weight": module.groups
            for name, module in self.network.modules.items()
            if isinstance(module, _ConvNd)
        }

    def follow(self, step: Pass) -> None:
        cut = [(name, dim) for name, dim, _ in step.keep]
        _require(len(set(cut)) == len(cut), "a dimension is cut twice")
        for name, dim, kept in step.keep:
            if self.told(name):
                self.cut(name, dim, kept)
        self.group(step.groups)
        for name, positions in step.select.items():
            if self.told(name):
                self.select(name, positions)
        for name, (owner, places, width) in step.scatter.items():
            if self.told(name):
                self.scatter(name, owner, places, width)
        for name, attribute, size in step.sizes:
            if self.told(name):
                _check_size(self.network, name, attribute, size)

    def told(self, name: str) -> bool:
        return not any(within(name, module) for module in self.apart)

    def cut(self, name: str, dim: int, kept: list[Any]) -> None:
        _require(name in self.shape, f"there is no tensor {name!r}")
        shape = self.shape[name]
        _require(0 <= dim < len(shape), f"{name} has no dimension {dim}")
        rows = kept if kept and isinstance(kept[0], list) else [kept]
        for row in rows:
            _check_indices(f"dimension {dim} of {name}", row, shape[dim])
            _require(len(row) == len(rows[0]), f"dimension {dim} of {name} is cut unevenly")
        if rows is kept:
            grouped = len(shape) > 1 and dim in (0, 1) and shape[1 - dim] % len(rows) == 0
            _require(grouped, f"{name} is not in {len(rows)} groups")
        shape[dim] = len(rows[0])

    def group(self, groups: dict[str, int]) -> None:
        for name, number in groups.items():
            if self.told(name):
                most = self.groups.get(name) or self.dense.get(name, [0])[0]  # of no module: one per channel
                _require(1 <= number <= most, f"{name} cannot have {number} groups")
                self.groups[name] = number
        for name, number in self.groups.items():
            rows = self.shape.get(name, [number])[0]
            _require(rows % number == 0 or not self.told(name), f"{rows} channels of {name} in {number} groups")

    def select(self, name: str, positions: list[int]) -> None:
        _check_indices(f"the selection of {name}", positions, self.dense_width(name), distinct=False)
        _require(len(positions) == self.width(name), f"{name} selects {len(positions)} channels")

    def scatter(self, name: str, owner: str, places: list[int], width: int) -> None:
        _require(owner in self.network.modules, f"there is no module {owner!r}")
        _require(1 <= width <= self.dense_width(name), f"{name} scatters to {width} channels")
        _check_indices(f"the scatter of {name}", places, width)
        _require(len(places) == self.width(name), f"{name} scatters {len(places)} channels")

    def width(self, norm: str) -> int:
        return self._width(norm, self.shape)

    def dense_width(self, norm: str) -> int:
        return self._width(norm, self.dense)

    def _width(self, norm: str, shapes: dict[str, list[int]]) -> int:
        fits = isinstance(self.network.modules.get(norm), _BatchNorm)
        _require(fits, f"{norm!r} is no BatchNorm layer")
        sizes = shapes.get(f"{norm}.weight" if norm else "weight")
        _require(bool(sizes), f"{norm!r} has no γ")
        assert sizes is not None
        return sizes[0]


def _check_indices(where: str, indices: list[Any], size: int, distinct: bool = True) -> None:
    plain = all(isinstance(index, int) for index in indices)
    _require(plain and len(indices) > 0, f"{where} holds no list of indices")
    wrong = [index for index in indices if not 0 <= index < size]
    _require(not wrong, f"{where} has no channel {wrong[:1]}: it has {size}")
    _require(not distinct or len(set(indices)) == len(indices), f"{where} keeps a channel twice")


SIZED_BY_TENSORS = (_ConvNd, _BatchNorm, nn.Linear)


def _check_size(network: Network, name: str, attribute: str, size: Any) -> None:
    """Only numbers that a module remembers, none of its other attributes, and none that its tensors decide."""
    module = network.modules.get(name)
    _require(module is not None and not isinstance(module, SIZED_BY_TENSORS), f"{name!r} remembers no sizes")
    old = vars(module).get(attribute)
    kept, given = (value if isinstance(value, (list, tuple)) else [value] for value in (old, size))
    fits = isinstance(old, (list, tuple)) == isinstance(size, list) and len(kept) == len(given)
    fits &= all(type(a) is type(b) is int and (a == b or 1 <= b <= a) for a, b in zip(kept, given, strict=False))
    _require(fits and not attribute.startswith("_"), f"{name}.{attribute} cannot become {size}")
