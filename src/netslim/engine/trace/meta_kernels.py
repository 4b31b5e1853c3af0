"""Shapes without numbers: what an ATen operation returns, as tensors of the meta device that hold nothing.

The tape needs no numbers, so the network is run on the meta device, where no arithmetic is done. PyTorch's own shape
functions there are partly written in Python, 0.1 to 2 ms each, more than the small networks' arithmetic. The operations
that make up most of a network therefore have a shortcut here, for the plain case (ops/table.py says which); all others,
and whatever is not plain or not well-formed, go to PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netslim.modules import Network

META = torch.device("meta")
Shortcut = Callable[..., Any]  # the operation's arguments -> its result, or None if this is not the plain case


def suffice(network: Network, inputs: Sequence[Tensor]) -> bool:
    """Can the run on the meta device tell whether the model runs? Not where dtypes or devices are mixed.

    Inputs that are indices count as mixed, because their values matter.
    """
    state = [t for t in network.state.values() if t.is_floating_point() or isinstance(t, nn.Parameter)]
    kinds = {(t.dtype, t.device) for t in [*state, *inputs]}
    plain = all(type(t) in (Tensor, nn.Parameter, nn.Buffer) for t in [*state, *inputs])
    return plain and len(kinds) == 1 and all(dtype.is_floating_point for dtype, _ in kinds)


def infer(shortcut: Shortcut | None, func: Any, args: Any, kwargs: Any, in_place: bool = False) -> Any:
    """The result of an operation: by its shortcut, or by PyTorch."""
    result = shortcut(*args) if shortcut is not None and not kwargs else None
    if result is None or (in_place and result.shape != args[0].shape):
        return func(*args, **kwargs)
    return args[0] if in_place else result


def in_channels_last(x: Tensor) -> bool:
    """Are these images of which all channels of a pixel lie side by side in memory?"""
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def empty(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, device=META)


def plain(*tensors: Any) -> bool:
    return all(
        isinstance(t, Tensor) and t.device == META and t.is_floating_point() and t.is_contiguous() for t in tensors
    )


def pointwise(*operands: Any) -> Tensor | None:
    """One tensor has the shape of the result; the others are scalars, or broadcast to it."""
    tensors = [x for x in operands if isinstance(x, Tensor) and (x.dim() > 0 or x.is_complex())]
    largest = max(tensors, key=Tensor.numel, default=None)
    if largest is None or not plain(*tensors) or not all(_broadcasts(x.shape, largest.shape) for x in tensors):
        return None
    return empty(largest, *largest.shape)


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) == len(to) and all(a in (1, b) for a, b in zip(shape, to, strict=True))


def batch_norm(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    state, training = rest[:4], rest[4]
    if training or not plain(x) or any(t is not None and t.shape != x.shape[1:2] for t in state):
        return None
    return empty(x, *x.shape), empty(x, 0), empty(x, 0)


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor | None:
    stride, padding, dilation, transposed, _, groups = how
    if transposed or not plain(x, weight) or x.dim() != weight.dim() or len(stride) != x.dim() - 2:
        return None
    kernel = weight.shape[2:]
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    fits = x.shape[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0 and min(sizes) > 0
    return empty(x, len(x), len(weight), *sizes) if fits else None


def linear(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor | None:
    """addmm(bias, x, weightᵀ)"""
    fits = x.dim() == weight.dim() == 2 and x.shape[1] == weight.shape[0] and bias.shape == weight.shape[1:]
    return empty(x, len(x), weight.shape[1]) if fits and plain(bias, x) and weight.device == META else None


def max_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor] | None:
    out = pooled(x, kernel, stride, padding, dilation, ceil_mode)
    return None if out is None else (out, torch.empty(out.shape, dtype=torch.long, device=META))


def average_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    *_: Any,
) -> Tensor | None:
    return pooled(x, kernel, stride, padding, (1, 1), ceil_mode)


def pooled(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], up: bool
) -> Tensor | None:
    """up: the last window may stand out over the end, if it begins before that."""
    stride = stride or kernel
    if not plain(x) or x.dim() != 4 or {len(numbers) for numbers in (kernel, stride, padding, dilation)} != {2}:
        return None
    sizes = []
    for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        size = (room + (s - 1 if up else 0)) // s + 1
        sizes.append(size - 1 if up and (size - 1) * s >= n + p else size)
        if sizes[-1] < 1 or 2 * p > k:
            return None
    return empty(x, *x.shape[:2], *sizes)


def adaptive_pool(x: Tensor, size: Sequence[int]) -> Tensor | None:
    return empty(x, *x.shape[: -len(size)], *size) if plain(x) and x.dim() > len(size) else None


def mean(x: Tensor, dims: Sequence[int] | None, keepdim: bool = False) -> Tensor | None:
    if not dims or not plain(x):
        return None
    gone = {d % x.dim() for d in dims}
    return empty(x, *(1 if d in gone else n for d, n in enumerate(x.shape) if keepdim or d not in gone))


def concatenate(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    if not plain(*tensors) or len({(*t.shape[:dim], *t.shape[dim:][1:]) for t in tensors}) != 1 or dim < 0:
        return None
    shape = list(tensors[0].shape)
    shape[dim] = sum(t.shape[dim] for t in tensors)
    return empty(tensors[0], *shape)


def index_copy(to: Tensor, dim: int, index: Tensor, x: Tensor) -> Tensor | None:
    """Not for speed: PyTorch's own refuses an index that is not on the meta device."""
    fits = to.dim() == x.dim() > dim >= 0 and x.shape == (*to.shape[:dim], len(index), *to.shape[dim + 1 :])
    return empty(to, *to.shape) if fits and plain(to) and x.device == META else None
