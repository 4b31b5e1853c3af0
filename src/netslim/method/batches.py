"""What of a batch, as a data loader gives it, a network's forward takes: the arguments are told from the labels."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def arguments(model: nn.Module, batch: Any) -> Arguments:
    """The positional and the keyword arguments with which to call ``model`` on a batch.

    - A mapping (a dict, HuggingFace's BatchEncoding): the entries that forward names; all, if it takes ``**kwargs``.
    - A tuple: positional arguments, as everywhere in netslim, if forward takes so many.
    - A list, as DataLoader's collate makes it, or a longer tuple: the arguments that forward requires, at least the
      first; what follows is taken for labels. They may be nested: ``[{"image": ..., "mask": ...}, labels]``.
    - Anything else is the one argument.

    Raises:
        ValueError: forward requires what the batch does not have, or names nothing in it.

    >>> arguments(nn.Linear(2, 1), ["inputs", "labels"])
    (('inputs',), {})
    """
    takes = _takes(model.forward)
    if isinstance(batch, Mapping):
        return _named(model, takes, batch)
    if isinstance(batch, (tuple, list)):
        return _in_order(model, takes, batch)
    return (batch,), {}


def check_batches(who: str, batches: Any) -> None:
    """Raise ValueError where one batch was given instead of several."""
    if isinstance(batches, (Tensor, dict)):
        raise ValueError(f"{who} needs a list of batches or a data loader, got one {type(batches).__name__}: [x]")


def run(model: nn.Module, batch: Any) -> Any:
    """Call ``model`` with what it takes of a batch, moved to its device.

    >>> run(nn.Linear(2, 1), [torch.zeros(3, 2), "labels"]).shape
    torch.Size([3, 1])
    """
    device = next((tensor.device for tensor in chain(model.parameters(), model.buffers())), torch.device("cpu"))
    positional, named = tree_map(lambda leaf: _moved(leaf, device), arguments(model, batch))
    return model(*positional, **named)


def _moved(leaf: Any, device: torch.device) -> Any:
    """Tensors, and the containers of other libraries that can be moved as they can."""
    return leaf.to(device) if callable(getattr(leaf, "to", None)) else leaf


@dataclass(frozen=True)
class _Takes:
    """required: names of the arguments without a default. by_name: those of them that must be named. positional: the
    most positional arguments. names: what may be given by name. anything: whether other names may, too."""

    required: tuple[str, ...]
    by_name: tuple[str, ...]
    positional: float
    names: frozenset[str]
    anything: bool

    def of(self, batch: Mapping[Any, Any]) -> dict[str, Any] | None:
        """The entries that are arguments; None where they are not enough, or none."""
        found = {key: value for key, value in batch.items() if self.anything or key in self.names}
        return found if found and set(self.required) <= found.keys() else None


def _takes(forward: Callable[..., Any]) -> _Takes:
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except ValueError:  # compiled code that does not tell
        return _Takes((), (), math.inf, frozenset(), True)
    kinds = {parameter.kind for parameter in parameters}
    single = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    in_order = [p for p in single if p.kind is not p.KEYWORD_ONLY]
    return _Takes(
        tuple(p.name for p in single if p.default is p.empty),
        tuple(p.name for p in single if p.default is p.empty and p.kind is p.KEYWORD_ONLY),
        math.inf if inspect.Parameter.VAR_POSITIONAL in kinds else len(in_order),
        frozenset(p.name for p in single if p.kind is not p.POSITIONAL_ONLY),
        inspect.Parameter.VAR_KEYWORD in kinds,
    )


def _named(model: nn.Module, takes: _Takes, batch: Mapping[Any, Any]) -> Arguments:
    found = takes.of(batch)
    if found is None:
        has = ", ".join(map(repr, batch)) or "no entry"
        raise ValueError(
            f"forward({', '.join(takes.required) or '...'}) of {type(model).__name__} cannot be called with a batch of "
            f"{has}: give batches whose keys are names of its arguments, or the inputs alone"
        )
    return (), found


def _in_order(model: nn.Module, takes: _Takes, batch: Sequence[Any]) -> Arguments:
    count = len(takes.required)
    first = batch[0] if batch else None
    if isinstance(first, Mapping) and (found := takes.of(first)) is not None:
        return (), found
    if isinstance(first, (tuple, list)) and len(first) == count > 1:
        return tuple(first), {}
    if takes.by_name:
        names = ", ".join(takes.by_name)
        raise ValueError(
            f"forward of {type(model).__name__} requires {names} by its name: give dictionaries as batches"
        )
    if not batch or len(batch) < count:
        raise ValueError(
            f"forward of {type(model).__name__} requires {count} arguments ({', '.join(takes.required)}), a batch has "
            f"{len(batch)}"
        )
    fits = isinstance(batch, tuple) and len(batch) <= takes.positional
    return tuple(batch if fits else batch[: max(1, count)]), {}
