"""BatchNorm statistics re-estimated from data: what removing channels shifts, without any gradient.

The running mean and variance of a slimmed network were collected on the dense one. Averaging the batch statistics of
some training batches anew brings back much of the accuracy before fine-tuning; the paper does not do it, so it is
reported beside the plain result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from netslim.method.batches import check_batches, run


@contextmanager
def reestimated_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, forward passes re-estimate the statistics of all BN layers as the plain average over the batches seen.

    BN layers train, everything else evaluates (no dropout), no gradients are recorded; also where the code that runs
    the batches calls ``model.eval()`` itself, as a validation loop does. On leaving, modes and momenta are what they
    were; a layer that no batch has reached keeps its statistics, and after an error all do.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    modes = {m: m.training for m in model.modules()}
    before = [(m, m.momentum, {k: b.clone() for k, b in m.named_buffers(recurse=False)}) for m in layers]
    model.eval()
    hooks = [m.register_forward_pre_hook(_train_this_layer) for m in layers]
    for m in layers:
        m.reset_running_stats()
        m.momentum = None  # PyTorch's cumulative average
    failed = False
    try:
        with torch.no_grad():
            yield
    except BaseException:
        failed = True
        raise
    finally:
        for m, momentum, buffers in before:
            m.momentum = momentum
            if failed or m.num_batches_tracked == 0:
                for name, buffer in buffers.items():
                    getattr(m, name).copy_(buffer)
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode


def _train_this_layer(module: nn.Module, args: Any) -> None:
    module.training = True


def recalibrate(model: nn.Module, batches: Iterable[Any], steps: int | None = None) -> None:
    """Re-estimate the running mean and variance of every BN layer from batches, in place.

    Args:
        model: stays on its device; the batches are moved there.
        batches: what a data loader gives: input tensors (N, C, ...) with N·space > 1 values per channel, or lists,
            tuples and mappings of them with or without labels; ``netslim.method.batches.arguments`` tells which of them
            forward takes. The result is the average of the batch statistics, every batch with the same weight.
        steps: use so many batches at most; default all of them.

    Raises:
        ValueError: there are no batches, or forward cannot be called with one.

    >>> bn = nn.BatchNorm1d(1).eval(); recalibrate(bn, [torch.tensor([[1.0], [3.0]])]); bn.running_mean
    tensor([2.])
    """
    check_batches("recalibrate", batches)
    seen = 0
    with reestimated_statistics(model):
        for batch in islice(batches, steps):
            run(model, batch)
            seen += 1
        if seen == 0:
            raise ValueError("recalibrate needs at least one batch, got none")
