"""The generators of random numbers that a forward pass may draw from, kept as they were."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Kept = tuple[Callable[[], Any], Callable[[Any], None]]  # how to ask a generator for its state, and how to set it


@contextmanager
def kept_generators() -> Iterator[None]:
    """Afterwards Python's, NumPy's and PyTorch's own generators are where they were; those of the GPUs in use, too.

    So whatever a network draws, it draws the same the next time. Generators that a network keeps as attributes are
    copied with it.
    """
    before = [(put, ask()) for ask, put in _generators()]
    try:
        yield
    finally:
        for put, state in before:
            put(state)


def _generators() -> list[Kept]:
    found: list[Kept] = [(random.getstate, random.setstate), (torch.get_rng_state, torch.set_rng_state)]
    numpy_random = sys.modules.get("numpy.random")  # not imported: nobody draws from it
    if numpy_random is not None:
        found.append((numpy_random.get_state, numpy_random.set_state))
    if torch.cuda.is_initialized():
        found.append((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    return found
