"""Data loaders, whatever form they were given in, and their batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader


def loaders_in(given: Any) -> list[Any]:
    """Each of the loaders in a list, a dictionary or a CombinedLoader; or the one that was given."""
    return list(given.flattened) if isinstance(given, CombinedLoader) else tree_leaves(given)


def first_batch(loader: Any) -> Any:
    """The first batch, looked at without a trace: with a worker of its own, and with all generators as they were.

    Raises:
        ValueError: there is none, or looking at it would take it away.
    """
    if isinstance(loader, DataLoader):
        loader = copy.copy(loader)
        loader._iterator = None  # persistent workers may be at work for the fit
        loader.num_workers = min(1, loader.num_workers)
    with generators_as_they_were([loader]):
        batches = iter(loader)
        if batches is loader:
            raise ValueError(f"a {type(loader).__name__} can be iterated over only once; use a DataLoader")
        for batch in batches:
            return batch
    raise ValueError(f"a {type(loader).__name__} has no batch")


@contextmanager
def generators_as_they_were(loaders: list[Any]) -> Iterator[None]:
    """Those that order the samples of DataLoaders are set back; the global ones are the caller's."""
    batches = [getattr(loader, "batch_sampler", None) for loader in loaders]
    samplers = [getattr(owner, "sampler", None) for owner in (*loaders, *batches)]
    generators = [getattr(owner, "generator", None) for owner in (*loaders, *batches, *samplers)]
    states = [(found, found.get_state()) for found in generators if isinstance(found, torch.Generator)]
    try:
        yield
    finally:
        for generator, before in states:
            generator.set_state(before)


def of_all_ranks(batches: Iterator[Any]) -> Iterator[Any]:
    """Under DDP the batches of all ranks together, on every rank: all see the same. Else the batches as they are."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        yield from batches
        return
    while True:
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, _next(batches))
        found = [part for part in parts if part is not None]
        for part in found:
            if isinstance(part, Exception):
                raise part
        if not found:
            return
        yield tree_map(_joined, *found)


def _next(batches: Iterator[Any]) -> Any:
    """The next batch, None after the last; an error is told to the other ranks, which wait for this one."""
    try:
        return tree_map(_on_cpu, next(batches, None))
    except Exception as error:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _on_cpu(leaf: Any) -> Any:
    return leaf.cpu() if isinstance(leaf, Tensor) else leaf


def _joined(first: Any, *others: Any) -> Any:
    return torch.cat([first, *others]) if isinstance(first, Tensor) and first.ndim else first
