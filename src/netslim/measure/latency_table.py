"""How long a network takes that is not written yet, from layers that were measured alone.

    netslim.slim(model, target_latency=0.5, latency=netslim.LatencyTable("onnx"), example_input=x)

Each convolution and linear layer is measured on a grid of widths, where somebody asks; between them its time is
interpolated. A network takes a call of the runtime and the sum over its layers, times a factor: by which the dense
network takes longer than its layers alone (it has others too), or not as long (a runtime joins layers).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import astuple, replace
from functools import cache, partial
from itertools import product
from typing import Any

from torch import nn

from netslim.engine import LayerShape
from netslim.engine.cut.layer_shapes import Times
from netslim.measure import one_layer
from netslim.measure.latency import fastest, repeated
from netslim.measure.measured_times import MeasuredTimes
from netslim.measure.runtimes import RUNTIMES, check_runtime
from netslim.modules import tensors_in

KERNEL = 8  # channels that fast kernels compute at once
WIDTHS = [KERNEL, *(width for power in range(4, 24) for width in (2**power, 3 * 2 ** (power - 1)))]  # 8, 16, 24, 32, 48
NOTHING = LayerShape(rows=1, inputs=1, outputs=1)  # takes as long as a call of the runtime, which a network pays once
LAYER, NETWORK = 0.01, 0.3  # seconds that one is run for, ten times at least


@cache
def around(width: int, groups: int = 1) -> list[tuple[int, float]]:
    """The measured widths next to a width, and their shares in its time.

    Widths that are no multiples of 8 may miss fast kernels, so they have measured widths of their own: 1, 7, 15, 23...

    >>> around(40), around(48), around(35)
    ([(32, 0.5), (48, 0.5)], [(48, 1.0)], [(31, 0.75), (47, 0.25)])
    """
    less = int(width % KERNEL > 0)
    measured = sorted({-(-max(1, each - less) // groups) * groups for each in [1, *WIDTHS]})
    place = bisect_left(measured, width)
    if measured[place] == width:
        return [(width, 1.0)]
    low, high = measured[place - 1 : place + 1]
    share = (width - low) / (high - low)
    return [(low, 1 - share), (high, share)]


def corners(layer: LayerShape) -> list[tuple[LayerShape, float]]:
    """The layers that are measured for a layer, and their shares in its time."""
    if layer.groups == layer.inputs > 1:  # depthwise
        each = layer.outputs // layer.inputs
        return [(replace(layer, inputs=n, outputs=each * n, groups=n), share) for n, share in around(layer.inputs)]
    pairs = product(around(layer.inputs, layer.groups), around(layer.outputs, layer.groups))
    return [(replace(layer, inputs=n, outputs=m), a * b) for (n, a), (m, b) in pairs]


class LatencyTable:
    """A ``latency`` for ``select_channels``: milliseconds of a forward pass on this machine's CPU, in float32.

    Args:
        runtime: "eager" (PyTorch, default), "onnx" (ONNX Runtime), "openvino"; on as many threads as PyTorch uses.
        batch: images at once, default 1.

    Raises:
        ValueError: no such runtime, it is not installed, or no such batch.

    >>> LatencyTable("onnx", batch=0)
    Traceback (most recent call last):
    ValueError: batch must be a whole number of images, 1 or more, got 0
    """

    def __init__(self, runtime: str = "eager", batch: int = 1) -> None:
        if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
            raise ValueError(f"batch must be a whole number of images, 1 or more, got {batch!r}")
        self.runtime, self.batch = RUNTIMES[check_runtime(runtime)], batch

    def __call__(self, model: nn.Module, example_input: Any, layers: Sequence[LayerShape]) -> Times:
        known, given = MeasuredTimes(self.runtime.version), repeated(example_input, self.batch)
        images = len(tensors_in(example_input)[0])
        call = self._time(known, NOTHING)
        open_it = partial(self.runtime.network, model, given)
        whole = known(_digest(model, layers, given), open_it, given, NETWORK)

        def alone(layers: Sequence[LayerShape]) -> float:
            times = (self._time(known, replace(each, rows=each.rows * self.batch // images)) for each in layers)
            return sum(max(0.0, time - call) for time in times)

        dense = alone(layers)
        factor = max(0.0, whole - call) / dense if dense else 0.0

        def times(layers: Sequence[LayerShape]) -> float:
            found = call + factor * alone(layers)
            known.save()
            return found

        known.save()
        return times

    def _time(self, known: MeasuredTimes, layer: LayerShape) -> float:
        """Of one layer alone, between the widths that are measured."""
        return sum(
            share * known(_name(shape), partial(self.runtime.layer, shape), one_layer.example(shape), LAYER)
            for shape, share in corners(layer)
        )

    def measured(self, networks: Sequence[nn.Module], example_input: Any, turns: int = 3) -> list[float]:
        """Milliseconds of whole networks, one after the other in turns: the fastest run of each."""
        given = repeated(example_input, self.batch)
        runs = [self.runtime.network(network, given) for network in networks]
        times = [[fastest(run, given, NETWORK / turns) for run in runs] for _ in range(turns)]
        return [min(each) for each in zip(*times, strict=True)]


def _name(shape: LayerShape) -> str:
    """Its numbers, in the order of ``LayerShape``."""
    return " ".join(str(number).replace(" ", "") for number in astuple(shape))


def _digest(model: nn.Module, layers: Sequence[LayerShape], given: Any) -> str:
    """A name for a whole network on such inputs."""
    sizes = [tuple(tensor.shape) for tensor in tensors_in(given)]
    return f"network {hashlib.sha256(f'{model} {layers} {sizes}'.encode()).hexdigest()[:16]}"
