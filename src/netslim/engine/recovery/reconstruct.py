"""Reconstruction by least squares: each layer makes again, of what it still gets, what it made in the dense network.

One after the other, in the order in which the network runs them, every convolution and linear layer is fitted to the
dense network's output of the same layer, on the channels that were kept (He et al. 2017, "Channel Pruning for
Accelerating Very Deep Neural Networks", equation 1, second step). It needs some unlabelled images and no gradient.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from netslim.engine.checks import check_model
from netslim.engine.cut.plan import check_pair, rows_of
from netslim.engine.recovery.least_squares import Fitted, Sums
from netslim.method.batches import check_batches, run
from netslim.method.recovery import recalibrate, reestimated_statistics
from netslim.modules import Network, tensors_in

NUMBERS = 2**24  # how many numbers of unfolded inputs are held at a time


@dataclass
class Reconstructed:
    """layers: name -> how it was fitted. skipped: name -> why not. What it cost: images, seconds."""

    layers: dict[str, Fitted] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        reasons = list(self.skipped.values())
        held = ", ".join(f"{reasons.count(why)} {why}" for why in dict.fromkeys(reasons))
        cost = f"{self.images} images, {self.seconds:.1f} s"
        return f"reconstructed {len(self.layers)} layers on {cost}" + (held and f" (skipped: {held})")


class _Reached(Exception):
    """The layer in question has run; what comes after it is not needed."""


@torch.no_grad()
def reconstruct(
    small: nn.Module,
    dense: nn.Module,
    batches: Iterable[Any],
    *,
    images: int = 500,
    ridge: float = 1e-3,
    largest: int = 4608,
    through: tuple[nn.Module, nn.Module] | None = None,
) -> Reconstructed:
    """Fit the layers of a slim network to the dense network's outputs, in place; then re-estimate BN statistics.

    With X the layer's unfolded inputs in the slim network (F, rows) and R what its outputs lack of the dense network's
    (C, rows), both centred, W becomes W + R Xᵀ (X Xᵀ + ρ I)⁻¹: least squares that prefer the weights that are there,
    so on these images the error of a layer never grows. A bias makes the means equal.

    Args:
        small: a result of ``slim``, not rescaled yet.
        dense: the network that it was cut from, with its trained weights; left as it is.
        batches: as for ``recalibrate``; labels are not used.
        images: take batches until there are so many, default 500.
        ridge: ρ as a share of the mean diagonal of X Xᵀ, default 1e-3.
        largest: fit no layer with more inputs F = channels of a group · kernel size than this.
        through: what is called on a batch instead, if it is not ``small`` and ``dense`` but what they are in.

    Returns:
        what was fitted and skipped, and why; see ``Reconstructed``. Each group of a grouped convolution is fitted by
        itself. Skipped are transposed convolutions, classes with a forward of their own, layers that run twice or
        share weights, and those that lack nothing.

    Raises:
        ValueError: no batches, a network that is not slim, or another dense network. What fails changes nothing.

    >>> dense = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)).eval()
    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 2.0], [2.0, 0.5]])
    >>> from netslim.engine import slim
    >>> small = slim(dense, {"1": torch.tensor([True, True, False])}, x)
    >>> report = reconstruct(small, dense, [x])
    >>> list(report.layers), report.skipped, report.images
    (['2'], {'0': 'lack nothing'}, 4)
    """
    began = time.perf_counter()
    if not (ridge > 0 and largest > 0 and images > 0):
        raise ValueError(f"images={images}, ridge={ridge} and largest={largest} must be above 0")
    check_model(Network(small))
    check_pair(small, Network(dense))
    rows = rows_of(small, dense)
    given, count = _first(batches, images)
    report = Reconstructed(images=count)
    outer, teacher = through or (small, dense)
    with _undone_if_it_fails(outer), _evaluating(teacher):
        with reestimated_statistics(outer):
            for name, why in _layers(small, partial(run, outer, given[0]), largest):
                pair = _Layer(small.get_submodule(name), outer), _Layer(dense.get_submodule(name), teacher)
                fitted = why or _fit(*pair, given, rows.get(f"{name}.weight"), ridge)
                if isinstance(fitted, str):
                    report.skipped[name] = fitted
                else:
                    report.layers[name] = fitted
        recalibrate(outer, given)
    report.seconds = time.perf_counter() - began
    return report


def _first(batches: Iterable[Any], images: int) -> tuple[list[Any], int]:
    """The first batches, until there are so many images, and how many there are."""
    check_batches("reconstruct", batches)
    given: list[Any] = []
    count = 0
    for batch in batches:
        given.append(batch)
        count += len(tensors_in(batch)[0])
        if count >= images:
            break
    if not given:
        raise ValueError("reconstruct needs at least one batch, got none")
    return given, count


@contextmanager
def _undone_if_it_fails(network: nn.Module) -> Iterator[None]:
    before = {name: tensor.clone() for name, tensor in Network(network).state.items()}
    try:
        yield
    except BaseException:
        for name, tensor in Network(network).state.items():
            tensor.copy_(before[name])
        raise


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _layers(network: nn.Module, run_it: Callable[[], Any], largest: int) -> Iterator[tuple[str, str]]:
    """(name, why it cannot be fitted or "") of all layers with weights, in the order in which they run."""
    modules = Network(network).modules
    layers: dict[nn.Module, str] = {m: name for name, m in modules.items() if isinstance(m, (_ConvNd, nn.Linear))}
    calls: Counter[nn.Module] = Counter()
    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(lambda layer, _: calls.update([layer])).remove)
        run_it()
    uses = Counter(id(parameter) for layer in layers for parameter in layer._parameters.values())
    for layer in dict.fromkeys([*calls, *layers]):
        own = uses[id(layer.weight)] == 1
        yield layers[layer], _why_not(layer, calls[layer], own, largest)


def _why_not(layer: nn.Module, calls: int, own: bool, largest: int) -> str:
    if type(layer).forward not in (nn.Conv2d.forward, nn.Linear.forward):
        return f"of class {type(layer).__name__}"
    if calls != 1:
        return f"run {calls} times"
    if not own:
        return "whose weights are not theirs alone"
    return f"with more than {largest} inputs" if layer.weight[0].numel() > largest else ""  # type: ignore[index]


@dataclass(frozen=True)
class _Layer:
    """A layer, and what is called on a batch so that it runs."""

    layer: nn.Module
    outer: nn.Module

    def at(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Its input and its output; what comes after it does not run."""
        seen: list[tuple[Tensor, Tensor]] = []

        def stop(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            seen.append((args[0], out))
            raise _Reached

        hook = self.layer.register_forward_hook(stop)
        try:
            with suppress(_Reached):
                run(self.outer, batch)
        finally:
            hook.remove()
        return seen[0]


def _fit(small: _Layer, dense: _Layer, batches: Iterable[Any], rows: Tensor | None, ridge: float) -> Fitted | str:
    """Fit one layer; or why there is nothing to fit."""
    layer, sums = small.layer, Sums()
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    for batch in batches:
        (x, made), (_, wanted) = small.at(batch), dense.at(batch)
        axis = 1 if isinstance(layer, nn.Conv2d) else -1
        wanted = wanted.to(made) if rows is None else wanted.index_select(axis, rows.to(wanted.device)).to(made)
        with torch.autocast(x.device.type, enabled=False):
            for part in _parts(layer, x, wanted, wanted - made):
                sums.add(*part)
    return sums.fit(layer, ridge)


def _parts(layer: nn.Conv2d | nn.Linear, x: Tensor, *outs: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Unfolded inputs (G, F, rows) and outputs (G, C, rows) of G groups, some images at a time."""
    groups, inputs = getattr(layer, "groups", 1), layer.weight[0].numel()
    positions = outs[0].numel() // (len(x) * len(layer.weight))
    step = max(1, NUMBERS // (groups * inputs * positions))
    precise = torch.promote_types(x.dtype, torch.float32)
    for some, *made in zip(*(tensor.to(precise).split(step) for tensor in (x, *outs)), strict=True):
        if isinstance(layer, nn.Conv2d):
            flat = [_unfolded(layer, some), *(part.transpose(0, 1).flatten(1) for part in made)]
        else:
            flat = [part.reshape(-1, part.shape[-1]).T for part in (some, *made)]
        yield tuple(part.unflatten(0, (groups, -1)) for part in flat)


def _unfolded(layer: nn.Conv2d, x: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode)
    return F.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride).transpose(0, 1).flatten(1)
