"""What a slim network does beside its classes' own code: a BN layer that reads, or writes, a part of a stream only.

    select    the layer reads some channels of its input: a forward pre-hook with index_select (the role of the
              authors' `channel_selection`, without its copy to the host and its numpy in every forward pass)
    scatter   the layer writes some channels of its output, the others are 0: a forward hook with index_copy; or, where
              the layer goes on to compute an activation (timm), a forward pre-hook of that

The indices are registered buffers, so they are saved, and move from device to device, with the network.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from netslim.engine.trace.meta_kernels import META, in_channels_last
from netslim.engine.trace.tape import SCATTER, SELECT

WIDTH = "stream_features"  # the attribute beside SCATTER: channels of the stream


def select(layer: nn.Module, positions: Tensor) -> None:
    """From now on the layer reads these channels (k,) of its input."""
    if not hasattr(layer, SELECT):
        layer.register_forward_pre_hook(select_input)
    layer.register_buffer(SELECT, _beside_the_weight(layer, positions))


def scatter(layer: nn.Module, owner: nn.Module, places: Tensor, width: int) -> None:
    """From now on the layer's channels (k,) go to these places among `width`, in front of all other hooks.

    owner: the layer itself, or what it calls next.
    """
    if not hasattr(owner, SCATTER) and owner is layer:
        owner.register_forward_hook(scatter_output, prepend=True)
    elif not hasattr(owner, SCATTER):
        owner.register_forward_pre_hook(scatter_input, prepend=True)
    owner.register_buffer(SCATTER, _beside_the_weight(layer, places))
    setattr(owner, WIDTH, width)


def _beside_the_weight(layer: nn.Module, positions: Tensor) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return positions if weight.device == META else positions.to(weight.device, copy=True)


def select_input(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook: the layer reads only some channels of its input x, of shape (N, C, ...)."""
    x, positions = args[0], layer.get_buffer(SELECT)
    if not in_channels_last(x):
        return (x.index_select(1, positions), *args[1:])
    # index_select would return channels-first memory, slowly, and make all that follows slow: select columns of pixels.
    pixels = x.permute(0, 2, 3, 1)  # (N, H, W, C)
    selected = pixels.flatten(0, 2).index_select(1, positions)
    return (selected.unflatten(0, pixels.shape[:3]).permute(0, 3, 1, 2), *args[1:])


def scatter_output(layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
    """Forward hook: (N, k, ...) becomes (N, width, ...), with zeros between."""
    places, width = layer.get_buffer(SCATTER), getattr(layer, WIDTH)
    if not in_channels_last(out):
        return out.new_zeros(out.shape[0], width, *out.shape[2:]).index_copy(1, places, out)
    pixels = out.permute(0, 2, 3, 1)  # as above
    rows = pixels.flatten(0, 2)
    stream = rows.new_zeros(rows.shape[0], width).index_copy(1, places, rows)
    return stream.unflatten(0, pixels.shape[:3]).permute(0, 3, 1, 2)


def scatter_input(activation: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook: the same, before an activation."""
    return (scatter_output(activation, (), args[0]), *args[1:])


def select_plainly(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """``select_input`` as the tape knows it: one operation, whatever the memory format."""
    return (args[0].index_select(1, layer.get_buffer(SELECT)), *args[1:])


def scatter_plainly(layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
    """``scatter_output`` as the tape knows it."""
    shape = (out.shape[0], getattr(layer, WIDTH), *out.shape[2:])
    return out.new_zeros(shape).index_copy(1, layer.get_buffer(SCATTER), out)


def scatter_input_plainly(activation: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (scatter_plainly(activation, (), args[0]), *args[1:])


PLAIN: dict[Any, Any] = {
    select_input: select_plainly,
    scatter_output: scatter_plainly,
    scatter_input: scatter_input_plainly,
}


def make_plain(layers: Iterable[nn.Module]) -> None:
    """Let these layers select and scatter as the tape knows it."""
    for layer in layers:
        hooks: Any
        for hooks in (layer._forward_pre_hooks, layer._forward_hooks):
            hooks.update((key, PLAIN.get(hook, hook)) for key, hook in hooks.items())
