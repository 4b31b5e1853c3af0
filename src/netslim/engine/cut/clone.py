"""Copies of a network in which some tensors give way to others.

``copy.deepcopy`` with a memo does the same, but looks at every number and at a dozen empty dictionaries of hooks per
module one by one, which takes longer than all else the engine does. Here a module is copied attribute by attribute,
plain values are shared, and only what is neither plain nor empty goes to ``copy.deepcopy``.
"""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Mapping
from types import CellType, FunctionType, MethodType
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from netslim.modules import modules_by_name

Model = TypeVar("Model", bound=nn.Module)
Memo = dict[int, Any]  # id of an original -> its copy, as in copy.deepcopy

PLAIN = frozenset((int, float, bool, str, type(None)))
CONTAINERS = frozenset((dict, OrderedDict, set, list))


def clone(model: Model, replaced: Mapping[Tensor, Tensor], found: Mapping[str, nn.Module] | None = None) -> Model:
    """A copy of the model; where it holds a tensor of `replaced`, by identity, the copy holds what that maps to.

    Other parameters and buffers are copied, their gradients are not. found: its modules, if they are known already.
    """
    memo: Memo = {id(old): new for old, new in replaced.items()}
    modules = list((modules_by_name(model) if found is None else found).values())
    if any(_copies_itself(kind) for kind in {type(module) for module in modules}):
        for module in modules:
            _detach([value for value in vars(module).values() if type(value) not in PLAIN], memo)
        return copy.deepcopy(model, memo)
    for module in modules:
        memo[id(module)] = module.__new__(type(module))
    for module in modules:
        state = module.__getstate__()
        for key, value in state.items():
            kind = type(value)
            if key in OWN:
                state[key] = {name: _member(member, memo) for name, member in value.items()} if value else {}
            elif key in HOOKS and not value:
                state[key] = kind()
            elif kind not in PLAIN:
                state[key] = _value(value, memo, module, key)
        memo[id(module)].__dict__.update(state)
    copied: Model = memo[id(model)]
    return copied


OWN = frozenset(("_parameters", "_buffers", "_modules"))
HOOKS = frozenset(key for key, value in vars(nn.Module()).items() if type(value) in CONTAINERS) - OWN


def _copies_itself(kind: type[nn.Module]) -> bool:
    """Does the class define how its objects are copied, or keep more than their attributes?"""
    methods = ("__reduce__", "__reduce_ex__", "__getstate__")
    defines = any(getattr(kind, method, None) != getattr(nn.Module, method, None) for method in methods)
    return defines or hasattr(kind, "__deepcopy__") or any("__slots__" in vars(base) for base in kind.__mro__)


def _member(member: Any, memo: Memo) -> Any:
    """The copy of a parameter, a buffer or a child."""
    if member is None or id(member) in memo:
        return None if member is None else memo[id(member)]
    if type(member) not in (Tensor, nn.Parameter) or vars(member):
        return copy.deepcopy(member, memo)
    tensor = member.detach().clone()
    memo[id(member)] = nn.Parameter(tensor, member.requires_grad) if isinstance(member, nn.Parameter) else tensor
    return memo[id(member)]


def _value(value: Any, memo: Memo, module: nn.Module, key: str) -> Any:
    """The copy of any other attribute of the module that is not plain."""
    kind = type(value)
    if kind in CONTAINERS and not value:
        return memo.setdefault(id(value), kind())
    if kind is tuple and all(type(item) in PLAIN for item in value):
        return value
    if kind is FunctionType:
        return _rebound(value, memo)
    _detach(value, memo)
    try:
        return copy.deepcopy(value, memo)
    except TypeError as error:
        raise ValueError(
            f"{type(module).__name__}.{key} cannot be copied ({error}): take it off the network, or give its class a "
            "__deepcopy__"
        ) from error


def _detach(value: Any, memo: Memo) -> None:
    """Tensors that autograd made, which deepcopy refuses: a weight that a hook computes before every forward, a loss
    that was kept. Their copies are leaves."""
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor) and not leaf.is_leaf:
            memo.setdefault(id(leaf), leaf.detach().clone())


def _rebound(function: FunctionType, memo: Memo) -> FunctionType:
    """A function that holds modules of the network in its closure: one that holds their copies."""

    def follows(held: Any) -> Any:
        if isinstance(held, MethodType) and id(held.__self__) in memo:
            return MethodType(held.__func__, memo[id(held.__self__)])
        return _rebound(held, memo) if type(held) is FunctionType else memo.get(id(held), held)

    if id(function) in memo or not function.__closure__:
        return memo.get(id(function), function)
    cells = [CellType() for _ in function.__closure__]
    bound = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
    )
    bound.__kwdefaults__, bound.__qualname__ = function.__kwdefaults__, function.__qualname__
    bound.__dict__.update(function.__dict__)
    memo[id(function)] = bound
    for cell, held in zip(cells, function.__closure__, strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            cell.cell_contents = follows(held.cell_contents)
    return bound
