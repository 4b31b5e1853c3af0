"""A copy that is only looked at leaves no traces: what its hooks collect goes into containers of its own.

Objects that hooks belong to are copied with the network. Functions are not: what their closures hold, as a list of
features, or a count, is that of whoever registered them.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from types import CellType, FunctionType
from typing import Any

from torch import nn

Memo = dict[int, Any]  # id of an original -> its copy
HOOKS = frozenset(name for name in vars(nn.Module()) if name.endswith("_hooks"))
SEQUENCES, MAPPINGS = (list, set, deque), (dict, OrderedDict, defaultdict)


def isolate(modules: Iterable[nn.Module]) -> None:
    """Let all functions among the hooks and attributes of these modules write into copies of their containers."""
    memo: Memo = {}
    for module in modules:
        for name, value in vars(module).items():
            if type(value) is FunctionType:
                vars(module)[name] = _own(value, memo)
            elif name in HOOKS and value:
                value.update((key, _own(hook, memo)) for key, hook in value.items())


def _own(function: Any, memo: Memo) -> Any:
    """The function with copies of the containers in its closure, and in those of functions in it."""
    if type(function) is not FunctionType or not function.__closure__:
        return function
    if id(function) in memo:
        return memo[id(function)]
    cells = tuple(CellType() for _ in function.__closure__)
    own = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, cells)
    own.__kwdefaults__, own.__qualname__ = function.__kwdefaults__, function.__qualname__
    own.__dict__.update(function.__dict__)
    memo[id(function)] = own
    for cell, held in zip(cells, function.__closure__, strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            cell.cell_contents = _contents(held.cell_contents, memo)
    return own


def _contents(value: Any, memo: Memo) -> Any:
    """A container is copied with those in it; all else is what it was."""
    if id(value) in memo:
        return memo[id(value)]
    kind = type(value)
    if kind is FunctionType:
        return _own(value, memo)
    if kind is tuple:
        return tuple(_contents(item, memo) for item in value)
    if kind in SEQUENCES:
        own = memo[id(value)] = value.copy()
        own.clear()
        (own.update if kind is set else own.extend)(_contents(item, memo) for item in value)
        return own
    if kind in MAPPINGS:
        own = memo[id(value)] = value.copy()
        own.update((key, _contents(item, memo)) for key, item in value.items())
        return own
    return value
