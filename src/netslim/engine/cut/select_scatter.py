"""What a slim network does beside its classes' own code: a layer that reads, or writes, a part of a stream only.

    select    the layer reads some channels of its input (the role of the authors' `channel_selection`, without its copy
              to the host and its numpy in every forward pass)
    scatter   the layer writes some channels of its output, the others are 0; or, where the layer goes on to compute an
              activation (timm), that reads what was scattered

Both are an index_select, of a stream to which one channel of zeros was added where it scatters. A module around the
layer does it, in the layer's place: there are no hooks, so tracers, quantisers and converters of layers see all of it.
The indices are buffers, so they are saved, and move from device to device, with the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from netslim.engine.trace.meta_kernels import META, in_channels_last
from netslim.engine.trace.tape import SCATTER, SELECT
from netslim.modules import Around

SOURCE = "channel_source"  # the buffer beside SCATTER: for each channel of the stream the layer's own, or the zeros
HOOKS_OF_CALLS = [name for name in vars(nn.Module()) if name.startswith(("_forward", "_backward", "_is_full"))]
Places = dict[int, list[tuple[nn.Module, str]]]  # id of a module -> where it is registered


class Rewired(Around):
    """Around a layer that reads, or writes, a part of a stream only: channels are dimension 1 of (N, C, ...).

    channel_index: positions (k,) in the input. channel_place: places (k,) in the stream. before: it is the layer's
    input that is scattered.
    """

    def __init__(self, layer: nn.Module, before: bool = False) -> None:
        super().__init__(layer)
        self.before = before
        self.register_buffer(SELECT, None)
        self.register_buffer(SCATTER, None)
        self.register_buffer(SOURCE, None, persistent=False)

    def scatter_to(self, places: Tensor, width: int) -> None:
        """Scatter to these places among `width`."""
        self.channel_place = places
        own = torch.arange(len(places), device=places.device)
        self.channel_source = places.new_full((width,), len(places)).scatter(0, places, own)

    def forward(self, x: Tensor) -> Tensor:
        x = self.selected(x)
        return self.layer(self.scattered(x)) if self.before else self.scattered(self.layer(x))

    def selected(self, x: Tensor) -> Tensor:
        index = self.channel_index
        return x if index is None else channels(x, index)

    def scattered(self, x: Tensor) -> Tensor:
        source = self.channel_source
        return x if source is None else channels(torch.cat([x, torch.zeros_like(x[:, :1])], 1), source)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.channel_place is not None and self.channel_source is not None:
            self.scatter_to(self.channel_place, len(self.channel_source))


class Recorded(Rewired):
    """The same as the tape knows it: one operation each, whatever the memory format."""

    def selected(self, x: Tensor) -> Tensor:
        return x if self.channel_index is None else x.index_select(1, self.channel_index)

    def scattered(self, x: Tensor) -> Tensor:
        if self.channel_place is None or self.channel_source is None:
            return x
        shape = (x.shape[0], len(self.channel_source), *x.shape[2:])
        return x.new_zeros(shape).index_copy(1, self.channel_place, x)


def channels(x: Tensor, index: Tensor) -> Tensor:
    """Some channels of (N, C, ...), in the memory format of x."""
    if not torch.jit.is_scripting():  # in a line of its own, or TorchScript would compile what follows
        return _of_pixels(x, index) if isinstance(x, Tensor) and in_channels_last(x) else x.index_select(1, index)
    return x.index_select(1, index)


def _of_pixels(x: Tensor, index: Tensor) -> Tensor:
    """index_select would return channels-first memory, slowly, and make all that follows slow: columns of pixels."""
    pixels = x.permute(0, 2, 3, 1)  # (N, H, W, C)
    selected = pixels.flatten(0, 2).index_select(1, index)
    return selected.unflatten(0, pixels.shape[:3]).permute(0, 3, 1, 2)


def rewire(
    modules: dict[str, nn.Module], select: Mapping[str, Tensor], scatter: Mapping[str, tuple[str, Tensor, int]]
) -> None:
    """Let layers of a network select and scatter from now on.

    modules: all of it, by name; what is put around a layer is added. select: BN name -> positions in its input.
    scatter: BN name -> the layer that writes the stream, or reads what is scattered; places; width of the stream.
    """
    places = _places(modules) if select or scatter else {}
    for name, positions in select.items():
        around = _around(modules, places, name)
        around.channel_index = _beside_the_weight(modules[name], positions)
    for name, (owner, at, width) in scatter.items():
        around = _around(modules, places, owner, before=owner != name)
        around.scatter_to(_beside_the_weight(modules[name], at), width)


def _places(modules: Mapping[str, nn.Module]) -> Places:
    places: Places = {}
    for module in modules.values():
        for key, child in module._modules.items():
            if child is not None and not isinstance(module, Around):
                places.setdefault(id(child), []).append((module, key))
    return places


def _around(modules: dict[str, nn.Module], places: Places, name: str, before: bool = False) -> Rewired:
    """What stands around a layer. If nothing does, it is put there now, and all hooks of the layer's calls with it."""
    found = modules.get(f"{name}.")
    if isinstance(found, Rewired):
        return found
    layer = modules[name]
    _take_off_former_hooks(layer)
    around = modules[f"{name}."] = Rewired(layer, before)
    own = vars(around)
    own["training"] = layer.training
    for hooks in HOOKS_OF_CALLS:
        own[hooks], vars(layer)[hooks] = vars(layer)[hooks], own[hooks]
    for parent, key in places[id(layer)]:
        parent._modules[key] = around
    return around


def _beside_the_weight(layer: nn.Module, positions: Tensor) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return positions if weight.device == META else positions.to(weight.device, copy=True)


def make_plain(modules: Iterable[nn.Module]) -> None:
    """Let these layers select and scatter as the tape knows it."""
    for module in modules:
        if type(module) is Rewired:
            module.__class__ = Recorded


# Whole networks that earlier versions have pickled name these hooks. They run; slimmed again, they get modules instead.


def select_input(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook: the layer reads only some channels of its input x, of shape (N, C, ...)."""
    return (channels(args[0], layer.get_buffer(SELECT)), *args[1:])


def scatter_output(layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
    """Forward hook: (N, k, ...) becomes (N, width, ...), with zeros between."""
    shape = (out.shape[0], layer.stream_features, *out.shape[2:])
    return out.new_zeros(shape).index_copy(1, layer.get_buffer(SCATTER), out)


def scatter_input(activation: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook: the same, before an activation."""
    return (scatter_output(activation, (), args[0]), *args[1:])


def _take_off_former_hooks(layer: nn.Module) -> None:
    hooks: Any
    for hooks in (layer._forward_pre_hooks, layer._forward_hooks):
        for key in [key for key, hook in hooks.items() if hook in (select_input, scatter_output, scatter_input)]:
            del hooks[key]
    for name in (SELECT, SCATTER):
        layer._buffers.pop(name, None)
