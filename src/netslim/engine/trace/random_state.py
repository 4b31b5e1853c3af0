"""The generators of random numbers that a forward pass may draw from, kept as they were."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Asks = Callable[[], Any]  # a generator for its state
Sets = Callable[[Any], None]


@contextmanager
def kept_generators(drew: Callable[[], bool]) -> Iterator[None]:
    """Afterwards Python's, NumPy's and PyTorch's own generators are where they were; those of the GPUs in use, too.

    So whatever a network draws, it draws the same the next time. Generators that a network keeps as attributes are
    copied with it. drew: did the network draw from PyTorch's? If not, these are left alone, as other threads draw too.
    """
    outside = [(put, ask()) for ask, put in _outside_torch()]
    of_torch, seed = [(put, ask()) for ask, put in _of_torch()], torch.initial_seed()
    try:
        yield
    finally:
        for put, state in outside:
            put(state)
        if drew() or torch.initial_seed() != seed:
            for put, state in of_torch:
                put(state)


def _outside_torch() -> Iterator[tuple[Asks, Sets]]:
    yield random.getstate, random.setstate
    numpy_random = sys.modules.get("numpy.random")  # not imported: nobody draws from it
    if numpy_random is not None:
        yield numpy_random.get_state, numpy_random.set_state


def _of_torch() -> Iterator[tuple[Asks, Sets]]:
    yield torch.get_rng_state, torch.set_rng_state
    if torch.cuda.is_initialized():
        yield torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all
