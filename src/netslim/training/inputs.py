"""What a network takes of a batch of its trainer's loaders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from netslim.method.batches import arguments
from netslim.modules import tensors_in


def inputs(network: nn.Module, batch: Any, example: Any) -> Any:
    """What the network takes of a batch: what its forward says, or the one tensor that is like the example."""
    if type(example) is tuple and len(example) == 1 and isinstance(example[0], (Mapping, list, tuple)):
        return (batch,)  # forward takes it apart itself
    batch = list(batch) if type(batch) is tuple else batch  # a loader's: labels may follow
    try:
        arguments(network, batch)
    except ValueError:
        alike = [tensor for tensor in tensors_in(batch) if isinstance(example, Tensor) and _alike(tensor, example)]
        if len(alike) != 1:
            raise
        return alike[0]
    return batch


def _alike(tensor: Tensor, example: Tensor) -> bool:
    """The same but for the number of samples and the precision."""
    return tensor.shape[1:] == example.shape[1:] and tensor.is_floating_point() == example.is_floating_point()
